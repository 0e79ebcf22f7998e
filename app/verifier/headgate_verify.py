#!/usr/bin/env python3
"""Checks Headgate's audit trail without Headgate: an export, or the proof of one leaf, against signed checkpoints.

    python headgate_verify.py export trail.txt --key KEY [--anchor checkpoints.txt]
    python headgate_verify.py proof answer.json --key KEY

This one file needs Python 3.11 and the package `cryptography`; copy it to where you check. KEY is the public key that
you were given when the trail began (`<name>+<8 hex digits>+<base64>`), not one that comes with what you check. An
anchor is a file of checkpoints that was kept where nobody who could change the database could reach it.

What it proves: no leaf up to the newest checkpoint was changed, added, taken away or moved since that checkpoint was
signed. What nothing can prove without a checkpoint from outside: that whoever holds the database and the signing key
did not write the whole trail anew. Formats: RFC 6962 (tree), RFC 8785 (leaves), C2SP signed notes (checkpoints).
"""

import argparse
import base64
import binascii
import hashlib
import json
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

FORMAT = "headgate-audit-export/1"
LONGEST_LINE = 16 << 20
_FIELDS = {"at", "body", "kind", "seq"}
_SIGNATURE = re.compile(r"\u2014 (\S{1,300}) ([A-Za-z0-9+/=]{1,500})")


class Bad(Exception):
    """What was found; `leaf` is the number of the first leaf that does not hold, where it can be named."""

    def __init__(self, reason: str, leaf: int | None = None) -> None:
        super().__init__(reason)
        self.leaf = leaf


@dataclass(frozen=True)
class Key:
    """A public key of Ed25519, the name under which it signs, and the four bytes that stand for it."""

    name: str
    identity: bytes
    key: bytes


@dataclass(frozen=True)
class Checkpoint:
    """A signed statement: the trail named `origin` had `size` leaves, and this root."""

    origin: str
    size: int
    root: bytes


class Tree:
    """A Merkle tree that grows: the full subtrees that it falls into, largest first."""

    def __init__(self) -> None:
        self.size = 0
        self.peaks: list[bytes] = []

    def add(self, leaf: bytes) -> None:
        self.peaks.append(leaf)
        index = self.size
        while index & 1:
            right = self.peaks.pop()
            self.peaks[-1] = hashlib.sha256(b"\x01" + self.peaks[-1] + right).digest()
            index >>= 1
        self.size += 1

    def root(self) -> bytes:
        if not self.peaks:
            return hashlib.sha256().digest()
        found = self.peaks[-1]
        for peak in reversed(self.peaks[:-1]):
            found = hashlib.sha256(b"\x01" + peak + found).digest()
        return found


def parse_key(text: str) -> Key:
    """A verifier key. Raises Bad where it is none of Ed25519."""
    name, _, rest = text.strip().partition("+")
    identity, _, data = rest.partition("+")
    raw = _base64(data, "the key")
    expected = hashlib.sha256(name.encode() + b"\n" + raw).digest()[:4]
    if len(raw) != 33 or raw[0] != 1 or identity != expected.hex():
        raise Bad(f"{text[:80]!r} is no verifier key: <name>+<8 hex digits>+<base64>, of Ed25519")
    return Key(name, expected, raw[1:])


def parse_note(note: str, keys: Sequence[Key]) -> Checkpoint:
    """The checkpoint that a note holds. Raises Bad where none of the keys has signed it, or one has signed falsely."""
    body, gap, signatures = note.encode(errors="replace").decode().partition("\n\n")  # half a pair becomes another text
    lines = body.split("\n")
    if not gap or len(lines) != 3 or not re.fullmatch(r"0|[1-9][0-9]{0,17}", lines[1]):
        raise Bad(f"this is no checkpoint: {note[:80]!r}")
    _check_signatures(f"{body}\n".encode(), signatures, keys)
    root = _base64(lines[2], "a checkpoint's root")
    if len(root) != 32:
        raise Bad("a checkpoint's root is not a SHA-256")
    return Checkpoint(lines[0], int(lines[1]), root)


def _check_signatures(text: bytes, signatures: str, keys: Sequence[Key]) -> None:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    good = 0
    for line in signatures.strip("\n").split("\n"):
        found = _SIGNATURE.fullmatch(line)
        if found is None:
            raise Bad(f"a checkpoint has a line that is no signature: {line[:80]!r}")
        raw = _base64(found[2], "a signature")
        for key in keys:
            if (key.name, key.identity) != (found[1], raw[:4]):
                continue
            try:
                Ed25519PublicKey.from_public_bytes(key.key).verify(raw[4:], text)
            except InvalidSignature:
                raise Bad(f"the signature of {key.name} under a checkpoint is false") from None
            good += 1
    if not good:
        raise Bad(f"none of the given keys has signed the checkpoint {text[:60]!r}")


def notes(lines: Iterable[str]) -> Iterator[str]:
    """The notes of a file that has an empty line after each of them."""
    note, gaps = "", 0
    for line in lines:
        if line == "\n" and gaps:
            yield note
            note, gaps = "", 0
        else:
            gaps += line == "\n"
            note += line
        if len(note) > 65536:
            raise Bad("a checkpoint is longer than any that there can be")
    if note.strip():
        yield note


def check_export(export: BinaryIO, keys: Sequence[Key], anchored: Iterable[str] = ()) -> tuple[Tree, list[Checkpoint]]:
    """Read an export and compare it with the checkpoints in it and with `anchored` ones (notes).

    Returns the tree over all leaves, and the checkpoints that it agrees with, oldest first.

    Raises:
        Bad: something does not hold.
    """
    origin, size, count = _first_line(export)
    inside = [_note_of(export) for _ in range(count)]
    points = sorted((parse_note(note, keys) for note in (*inside, *anchored)), key=lambda point: point.size)
    for point in points:
        if point.origin != origin:
            raise Bad(f"the export is of the trail {origin[:80]!r}, a checkpoint of {point.origin[:80]!r}")
    tree, waiting, good = Tree(), points[::-1], 0
    for data in _leaves(export):
        good = _agree(tree, waiting, good)
        tree.add(hashlib.sha256(b"\x00" + data).digest())
    _agree(tree, waiting, good)
    if tree.size != size:
        raise Bad(f"the export promises {size} leaves and has {tree.size}", min(size, tree.size) + 1)
    if waiting:
        raise Bad(f"a checkpoint has {waiting[0].size} leaves, the export only {tree.size}", tree.size + 1)
    signed = points[-1].size if points else 0
    if signed < tree.size:
        raise Bad(f"no checkpoint has the leaves from {signed + 1} on: anybody may have written them", signed + 1)
    return tree, points


def _agree(tree: Tree, waiting: list[Checkpoint], good: int) -> int:
    """Compare the tree with the checkpoints of its size; returns the size of the last checkpoint that agrees."""
    reached = good
    while waiting and waiting[-1].size == tree.size:
        if waiting.pop().root != tree.root():
            raise Bad(f"one of the leaves {good + 1} to {tree.size} is not what the checkpoint has", good + 1)
        reached = tree.size
    return reached


def _first_line(export: BinaryIO) -> tuple[str, int, int]:
    words = _line(export).rstrip("\n").split(" ")
    if len(words) != 4 or words[0] != FORMAT or not all(re.fullmatch(r"[0-9]{1,18}", word) for word in words[2:]):
        raise Bad(f"this is no export: its first line is not '{FORMAT} <origin> <leaves> <checkpoints>'")
    return words[1], int(words[2]), int(words[3])


def _note_of(export: BinaryIO) -> str:
    note = next(notes(iter(lambda: _line(export), "")), "")
    if not note:
        raise Bad("the export's checkpoints are cut off")
    return note


def _line(export: BinaryIO) -> str:
    data = export.readline(LONGEST_LINE)
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise Bad("the export is not text in UTF-8") from None


def _leaves(export: BinaryIO) -> Iterator[bytes]:
    """The bytes of each leaf, once its line is what it should be by itself."""
    number = 0
    while line := export.readline(LONGEST_LINE):
        number += 1
        digest, data = line[:64], line[65:-1]
        if line[-1:] != b"\n" or line[64:65] != b" ":
            raise Bad(f"line {number} of the leaves is cut off, or longer than {LONGEST_LINE} bytes", number)
        if hashlib.sha256(b"\x00" + data).hexdigest().encode() != digest:
            raise Bad(f"leaf {number} does not match its hash", number)
        seq = _parsed(data, number)["seq"]
        if type(seq) is not int or seq != number:
            raise Bad(f"leaf {number} is missing: here stands leaf {str(seq)[:20]}", number)
        yield data


def _parsed(data: bytes, number: int) -> dict[str, Any]:
    try:
        leaf = json.loads(data, object_pairs_hook=_unambiguous)
    except (ValueError, RecursionError) as error:
        raise Bad(f"leaf {number} is not JSON that means one thing ({type(error).__name__})", number) from None
    if not isinstance(leaf, dict) or leaf.keys() != _FIELDS:
        raise Bad(f"leaf {number} has other fields than {', '.join(sorted(_FIELDS))}", number)
    return leaf


def _unambiguous(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice")
    return found


def check_proof(proof: Any, keys: Sequence[Key]) -> tuple[dict[str, Any], Checkpoint]:
    """The leaf that a proof (the JSON of /api/v1/audit/proof, or the `proof` of an approval's answer) proves to be in
    the trail, and the checkpoint that it is in.

    Raises:
        Bad: it proves nothing.
    """
    try:
        seq, leaf, path, note = proof["seq"], proof["leaf"].encode(), proof["path"], proof["checkpoint"]["note"]
        steps = [_base64(step, "the path") for step in path]
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise Bad(f"this is no proof ({type(error).__name__}: {str(error)[:80]})") from None
    point = parse_note(str(note), keys)
    if type(seq) is not int or not 0 < seq <= point.size:
        raise Bad("the leaf's number is none that the checkpoint's trail has")
    if _root(seq - 1, point.size, hashlib.sha256(b"\x00" + leaf).digest(), steps) != point.root:
        raise Bad(f"leaf {seq} is not in the trail of this checkpoint", seq)
    found = _parsed(leaf, seq)
    if found["seq"] != seq:
        raise Bad(f"the leaf is {str(found['seq'])[:20]}, the proof is of {seq}", seq)
    return found, point


def _root(index: int, size: int, leaf: bytes, path: list[bytes]) -> bytes:
    """RFC 9162, 2.1.3.2."""
    found, place, last, left = leaf, index, size - 1, path[::-1]
    while last:
        if place & 1 or place == last:
            found = _above(left.pop() if left else b"", found)
            while not place & 1 and place:
                place, last = place >> 1, last >> 1
        else:
            found = _above(found, left.pop() if left else b"")
        place, last = place >> 1, last >> 1
    return b"" if left else found


def _above(left: bytes, right: bytes) -> bytes:
    if len(left) != 32 or len(right) != 32:
        raise Bad("the path is shorter than the tree is high, or no path of SHA-256")
    return hashlib.sha256(b"\x01" + left + right).digest()


def _base64(text: Any, what: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError, TypeError):
        raise Bad(f"{what} is not base64") from None


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns 0 where all holds, 1 where something does not, 2 for arguments that make no sense."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("export", "proof"))
    parser.add_argument("file", type=Path)
    parser.add_argument("--key", action="append", required=True, help="a public key that you trust; may be repeated")
    parser.add_argument("--anchor", action="append", type=Path, default=[], help="checkpoints that were kept elsewhere")
    given = parser.parse_args(arguments)
    try:
        keys = [parse_key(text) for text in given.key]
        told = _export(given.file, keys, given.anchor) if given.what == "export" else _proof(given.file, keys)
        sys.stdout.write(f"{told}\n")
    except Bad as bad:
        sys.stderr.write(f"DOES NOT HOLD: {bad}\n")
        return 1
    except OSError as error:
        sys.stderr.write(f"{error.filename}: {error.strerror}\n")
        return 2
    return 0


def _export(file: Path, keys: Sequence[Key], anchors: Sequence[Path]) -> str:
    outside = [note for anchor in anchors for note in kept(anchor)]
    with file.open("rb") as export:
        tree, points = check_export(export, keys, outside)
    covered = points[-1].size if points else 0
    counted = f"{len(points)} signed checkpoints, {len(outside)} of them from outside"
    said = f"{tree.size} leaves hold; {counted}, cover {covered}"
    return said if outside else f"{said}. Without one from outside, a trail made anew as a whole would hold as well."


def kept(anchor: Path) -> list[str]:
    try:
        with anchor.open(encoding="utf-8", newline="\n") as lines:
            return list(notes(lines))
    except UnicodeDecodeError:
        raise Bad(f"{anchor} is not a file of checkpoints") from None


def _proof(file: Path, keys: Sequence[Key]) -> str:
    try:
        answer = json.loads(file.read_bytes(), object_pairs_hook=_unambiguous)
    except (ValueError, RecursionError):
        raise Bad(f"{file} is not JSON") from None
    proof = answer.get("proof", answer) if isinstance(answer, dict) else answer
    leaf, point = check_proof(proof, keys)
    told = json.dumps(leaf, indent=2, sort_keys=True)
    return f"{told}\nThis is leaf {leaf['seq']} of {point.origin}, in the checkpoint of {point.size} leaves."


if __name__ == "__main__":
    sys.exit(main())
