"""Checks Headgate's audit trail without Headgate: an export, the proof of one leaf, or the evidence of one promotion.

    python headgate_verify.pyz export trail.txt --key KEY [--anchor checkpoints.txt]
    python headgate_verify.pyz proof answer.json --key KEY
    python headgate_verify.pyz pack promotion.zip --key KEY [--anchor checkpoints.txt]

This one file needs Python 3.11 and the package `cryptography`; copy it to where you check. It is a zip of a few short
files of Python: `python -m zipfile -e headgate_verify.pyz here` lays them out to be read. KEY is the public key that
you were given when the trail began (`<name>+<8 hex digits>+<base64>`), not one that comes with what you check. An
anchor is a file of checkpoints that was kept where nobody who could change the database could reach it.

What it proves: no leaf up to the newest checkpoint was changed, added, taken away or moved since that checkpoint was
signed. What nothing can prove without a checkpoint from outside: that whoever holds the database and the signing key
did not write the whole trail anew. Formats: RFC 6962 (tree), RFC 8785 (leaves), C2SP signed notes (checkpoints), DSSE
and in-toto (the statement of a pack). Each command says in words what it has proved, and what it has not.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from .archive import LARGEST_PACK
from .checkpoints import Key, kept, parse_key
from .export import check_export
from .leaves import check_proof
from .pack import check_pack
from .reading import Bad, unambiguous


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns 0 where all holds, 1 where something does not, 2 for arguments that make no sense."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("export", "proof", "pack"))
    parser.add_argument("file", type=Path)
    parser.add_argument("--key", action="append", required=True, help="a public key that you trust; may be repeated")
    parser.add_argument("--anchor", action="append", type=Path, default=[], help="checkpoints that were kept elsewhere")
    given = parser.parse_args(arguments)
    try:
        keys = [parse_key(text) for text in given.key]
        sys.stdout.write(f"{_told(given.what, given.file, keys, given.anchor)}\n")
    except Bad as bad:
        sys.stderr.write(f"DOES NOT HOLD: {bad}\n")
        return 1
    except OSError as error:
        sys.stderr.write(f"{error.filename}: {error.strerror}\n")
        return 2
    return 0


def _told(what: str, file: Path, keys: Sequence[Key], anchors: Sequence[Path]) -> str:
    outside = [note for anchor in anchors for note in kept(anchor)]
    if what == "export":
        return _export(file, keys, outside)
    if what == "proof":
        return _proof(file, keys)
    with file.open("rb") as pack:
        data = pack.read(LARGEST_PACK + 1)
    if len(data) > LARGEST_PACK:
        raise Bad(f"the pack is larger than any that there can be ({LARGEST_PACK} bytes)")
    return "\n".join(check_pack(data, keys, outside))


def _export(file: Path, keys: Sequence[Key], outside: Sequence[str]) -> str:
    with file.open("rb") as export:
        tree, points = check_export(export, keys, outside)
    covered = points[-1].size if points else 0
    counted = f"{len(points)} signed checkpoints, {len(outside)} of them from outside"
    said = f"{tree.size} leaves hold; {counted}, cover {covered}"
    return said if outside else f"{said}. Without one from outside, a trail made anew as a whole would hold as well."


def _proof(file: Path, keys: Sequence[Key]) -> str:
    try:
        answer = json.loads(file.read_bytes(), object_pairs_hook=unambiguous)
    except (ValueError, RecursionError):
        raise Bad(f"{file} is not JSON") from None
    proof = answer.get("proof", answer) if isinstance(answer, dict) else answer
    leaf, point = check_proof(proof, keys)
    told = json.dumps(leaf, indent=2, sort_keys=True)
    return f"{told}\nThis is leaf {leaf['seq']} of {point.origin}, in the checkpoint of {point.size} leaves."
