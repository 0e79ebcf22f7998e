"""The hash chain of the audit trail: how a leaf is hashed and how a chain is checked."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from app.domain.digests import digest_json

GENESIS = "sha256:" + "0" * 64


@dataclass(frozen=True)
class Leaf:
    """One entry: `seq` counts from 1 without a gap, `at` is UTC ISO 8601, `hash` covers all else and `previous`."""

    seq: int
    at: str
    kind: str
    body: Mapping[str, Any]
    previous: str
    hash: str


def leaf_hash(seq: int, at: str, kind: str, body: Mapping[str, Any], previous: str) -> str:
    """The hash of a leaf over its content and the hash before it."""
    return digest_json({"seq": seq, "at": at, "kind": kind, "body": dict(body), "previous": previous})


@dataclass(frozen=True)
class Verdict:
    """`leaves` were read; `first_bad` is the sequence number at which the chain breaks, None where it holds."""

    leaves: int
    first_bad: int | None
    reason: str
    head: str

    @property
    def verified(self) -> bool:
        return self.first_bad is None


def verify_chain(leaves: Iterable[Leaf]) -> Verdict:
    """Walk the chain from the first leaf and stop at the first one that does not hold.

    A chain cut off at its end looks complete: compare `head` with one that was kept elsewhere.
    """
    previous, count = GENESIS, 0
    for leaf in leaves:
        expected = count + 1
        if leaf.seq != expected:
            return Verdict(count, expected, f"leaf {expected} is missing (found {leaf.seq})", previous)
        if leaf.previous != previous:
            return Verdict(count, leaf.seq, "its link does not match the leaf before it", previous)
        if leaf.hash != leaf_hash(leaf.seq, leaf.at, leaf.kind, leaf.body, leaf.previous):
            return Verdict(count, leaf.seq, "its content does not match its hash", previous)
        previous, count = leaf.hash, expected
    return Verdict(count, None, "", previous)
