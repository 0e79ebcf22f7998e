"""The Merkle tree of RFC 6962: hashes, a tree that only grows, and proofs of inclusion and of consistency.

A node is named (level, index): it covers the 2**level leaves from index * 2**level on. Only nodes whose leaves are all
there are ever kept, so what was kept once never changes. Leaves are counted from 0 here. Hashes are 32 raw bytes.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

EMPTY = hashlib.sha256().digest()
Node = tuple[int, int]
Lookup = Callable[[Node], bytes]


def leaf_hash(data: bytes) -> bytes:
    """RFC 6962, 2.1: a leaf can never be taken for a node, as another byte stands before it."""
    return hashlib.sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()


@dataclass
class Frontier:
    """All that a growing tree has to remember: its size and the full subtrees that it falls into, largest first."""

    size: int = 0
    peaks: list[bytes] = field(default_factory=list)

    def add(self, leaf: bytes) -> list[tuple[Node, bytes]]:
        """Append the hash of a leaf; returns the nodes above the leaves that are full now."""
        completed, level, index = [], 0, self.size
        self.peaks.append(leaf)
        while index % 2:
            right = self.peaks.pop()
            self.peaks[-1] = node_hash(self.peaks[-1], right)
            level, index = level + 1, index // 2
            completed.append(((level, index), self.peaks[-1]))
        self.size += 1
        return completed

    def root(self) -> bytes:
        """The hash of the whole tree."""
        if not self.peaks:
            return EMPTY
        found = self.peaks[-1]
        for peak in reversed(self.peaks[:-1]):
            found = node_hash(peak, found)
        return found


def peaks(size: int) -> list[Node]:
    """The full subtrees that a tree of so many leaves falls into, largest first."""
    found, start = [], 0
    for level in reversed(range(size.bit_length())):
        if size >> level & 1:
            found.append((level, start >> level))
            start += 1 << level
    return found


def inclusion_path(index: int, size: int) -> list[list[Node]]:
    """What RFC 6962's PATH(index, D[size]) consists of, from the leaf up: each entry is a range of leaves, given by the
    full subtrees that it falls into."""
    if not 0 <= index < size:
        raise ValueError(f"leaf {index} is not in a tree of {size} leaves")
    path, start, end = [], 0, size
    while end - start > 1:
        middle = start + _split(end - start)
        inside, outside = ((start, middle), (middle, end)) if index < middle else ((middle, end), (start, middle))
        path.append(_subtrees(*outside))
        start, end = inside
    return path[::-1]


def consistency_path(old: int, size: int) -> list[list[Node]]:
    """What RFC 6962's PROOF(old, D[size]) consists of, in its order."""
    if not 0 < old <= size:
        raise ValueError(f"a tree of {size} leaves was never one of {old}")
    path: list[list[Node]] = []
    start, end, known = 0, size, True
    while end != old:
        middle = start + _split(end - start)
        if old <= middle:
            path.append(_subtrees(middle, end))
            end = middle
        else:
            path.append(_subtrees(start, middle))
            start, known = middle, False
    if not known:
        path.append(_subtrees(start, end))
    return path[::-1]


def joined(subtrees: Sequence[Node], lookup: Lookup) -> bytes:
    """The hash of a range of leaves from the full subtrees that it falls into."""
    found = lookup(subtrees[-1])
    for node in reversed(subtrees[:-1]):
        found = node_hash(lookup(node), found)
    return found


def root_from_inclusion(index: int, size: int, leaf: bytes, path: Sequence[bytes]) -> bytes:
    """The root that the path leads to (RFC 9162, 2.1.3.2).

    Raises:
        ValueError: the path has another length than such a tree has.
    """
    if not 0 <= index < size:
        raise ValueError(f"leaf {index} is not in a tree of {size} leaves")
    found, place, last, left = leaf, index, size - 1, list(path)
    while last:
        if place % 2 or place == last:
            found = node_hash(_next(left), found)
            while not place % 2 and place:
                place, last = place // 2, last // 2
        else:
            found = node_hash(found, _next(left))
        place, last = place // 2, last // 2
    if left:
        raise ValueError("the path is longer than the tree is high")
    return found


def _next(path: list[bytes]) -> bytes:
    if not path:
        raise ValueError("the path is shorter than the tree is high")
    return path.pop(0)


def _split(count: int) -> int:
    """The largest power of two below `count`, which is where RFC 6962 divides a tree."""
    return 1 << ((count - 1).bit_length() - 1)


def _subtrees(start: int, end: int) -> list[Node]:
    return [(level, (start >> level) + index) for level, index in peaks(end - start)]
