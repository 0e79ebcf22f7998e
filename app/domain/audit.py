"""The audit trail: what a leaf's bytes are, and how the leaves are checked against the tree's root."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from app.domain.canonical import canonical
from app.domain.merkle import Frontier, leaf_hash


@dataclass(frozen=True)
class Leaf:
    """One entry: `seq` counts from 1 without a gap, `at` is UTC ISO 8601, `hash` is that of its bytes, in hex."""

    seq: int
    at: str
    kind: str
    body: Mapping[str, Any]
    hash: str

    def data(self) -> bytes:
        """The bytes that are hashed, and that an export has as a line: canonical JSON of all but the hash."""
        return leaf_data(self.seq, self.at, self.kind, self.body)


def leaf_data(seq: int, at: str, kind: str, body: Mapping[str, Any]) -> bytes:
    """Canonical JSON of a leaf. Raises ValueError or TypeError where its body is none that JSON can hold."""
    return canonical({"seq": seq, "at": at, "kind": kind, "body": dict(body)})


@dataclass(frozen=True)
class Verdict:
    """`leaves` were read; `first_bad` is the sequence number at which the trail breaks, None where it holds; `root` is
    the hash of the tree over all leaves that were read, in hex."""

    leaves: int
    first_bad: int | None
    reason: str
    root: str

    @property
    def verified(self) -> bool:
        return self.first_bad is None


def verify_leaves(leaves: Iterable[Leaf]) -> Verdict:
    """Walk the leaves from the first and stop at the first one that does not hold.

    That they hold among themselves says little: compare `root` with a checkpoint that was kept elsewhere.
    """
    tree = Frontier()
    for leaf in leaves:
        expected = tree.size + 1
        if leaf.seq != expected:
            return Verdict(tree.size, expected, f"leaf {expected} is missing (found {leaf.seq})", tree.root().hex())
        digest = leaf_hash(leaf.data())
        if leaf.hash != digest.hex():
            return Verdict(tree.size, leaf.seq, "its content does not match its hash", tree.root().hex())
        tree.add(digest)
    return Verdict(tree.size, None, "", tree.root().hex())
