"""The whole trail: an export against the checkpoints in it and those from outside."""

import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import BinaryIO

from .checkpoints import Checkpoint, Key, notes, parse_note
from .leaves import parsed
from .reading import Bad
from .tree import Tree

FORMAT = "headgate-audit-export/1"
LONGEST_LINE = 16 << 20


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
        seq = parsed(data, number)["seq"]
        if type(seq) is not int or seq != number:
            raise Bad(f"leaf {number} is missing: here stands leaf {str(seq)[:20]}", number)
        yield data
