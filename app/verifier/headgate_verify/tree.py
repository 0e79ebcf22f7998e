"""The Merkle tree of RFC 6962: as it grows, and what paths in it prove."""

import hashlib

from .checkpoints import Checkpoint
from .reading import Bad


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


def root_by_path(index: int, size: int, leaf: bytes, path: list[bytes]) -> bytes:
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


def began_as(old: Checkpoint, new: Checkpoint, path: list[bytes]) -> bool:
    """RFC 9162, 2.1.4.2."""
    steps = [old.root, *path] if old.size & (old.size - 1) == 0 else list(path)
    place, last = old.size - 1, new.size - 1
    while place & 1:
        place, last = place >> 1, last >> 1
    if not steps:
        return False
    before = after = steps[0]
    for step in steps[1:]:
        if not last:
            return False
        if place & 1 or place == last:
            before, after = _above(step, before), _above(step, after)
            while place and not place & 1:
                place, last = place >> 1, last >> 1
        else:
            after = _above(after, step)
        place, last = place >> 1, last >> 1
    return not last and (before, after) == (old.root, new.root)


def _above(left: bytes, right: bytes) -> bytes:
    if len(left) != 32 or len(right) != 32:
        raise Bad("the path is shorter than the tree is high, or no path of SHA-256")
    return hashlib.sha256(b"\x01" + left + right).digest()
