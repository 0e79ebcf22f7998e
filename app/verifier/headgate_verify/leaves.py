"""Leaves: what one has to be, and the proof that one is in the trail."""

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from .checkpoints import Checkpoint, Key, parse_note
from .reading import Bad, base64_of, unambiguous
from .tree import root_by_path

_FIELDS = {"at", "body", "kind", "seq"}


def check_proof(proof: Any, keys: Sequence[Key]) -> tuple[dict[str, Any], Checkpoint]:
    """The leaf that a proof (the JSON of /api/v1/audit/proof, or the `proof` of an approval's answer) proves to be in
    the trail, and the checkpoint that it is in.

    Raises:
        Bad: it proves nothing.
    """
    try:
        seq, leaf, path, note = proof["seq"], proof["leaf"].encode(), proof["path"], proof["checkpoint"]["note"]
        steps = [base64_of(step, "the path") for step in path]
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise Bad(f"this is no proof ({type(error).__name__}: {str(error)[:80]})") from None
    point = parse_note(str(note), keys)
    return included(seq, leaf, steps, point), point


def included(seq: Any, leaf: bytes, steps: list[bytes], point: Checkpoint) -> dict[str, Any]:
    """The leaf of these bytes, once its path leads to the checkpoint's root."""
    if type(seq) is not int or not 0 < seq <= point.size:
        raise Bad("the leaf's number is none that the checkpoint's trail has")
    if root_by_path(seq - 1, point.size, hashlib.sha256(b"\x00" + leaf).digest(), steps) != point.root:
        raise Bad(f"leaf {seq} is not in the trail of this checkpoint", seq)
    found = parsed(leaf, seq)
    if found["seq"] != seq:
        raise Bad(f"the leaf is {str(found['seq'])[:20]}, the proof is of {seq}", seq)
    return found


def parsed(data: bytes, number: int) -> dict[str, Any]:
    try:
        leaf = json.loads(data, object_pairs_hook=unambiguous)
    except (ValueError, RecursionError) as error:
        raise Bad(f"leaf {number} is not JSON that means one thing ({type(error).__name__})", number) from None
    if not isinstance(leaf, dict) or leaf.keys() != _FIELDS:
        raise Bad(f"leaf {number} has other fields than {', '.join(sorted(_FIELDS))}", number)
    return leaf
