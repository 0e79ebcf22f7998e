"""All SQL about the audit chain: append in line, read in order."""

from collections.abc import Iterator
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.db.models import AuditHead, AuditLeaf
from app.db.session import now
from app.domain.audit import GENESIS, Leaf, leaf_hash


def append(session: Session, kind: str, body: dict[str, Any]) -> Leaf:
    """Add one leaf to the chain in the caller's transaction; appenders wait for each other on the head row."""
    head = session.get(AuditHead, 1, with_for_update=True, populate_existing=True)
    if head is None:  # the migration writes the row; a chain without its head must not be continued
        raise RuntimeError("the audit chain has no head row: run the migrations")
    seq, at = head.seq + 1, now(session).isoformat()
    leaf = Leaf(seq, at, kind, body, head.hash, leaf_hash(seq, at, kind, body, head.hash))
    session.add(AuditLeaf(seq=seq, at=at, kind=kind, body=body, previous=head.hash, hash=leaf.hash))
    head.seq, head.hash = seq, leaf.hash
    session.flush()
    return leaf


def head(session: Session) -> tuple[int, str]:
    """The number of leaves and the hash of the last one."""
    row = session.get(AuditHead, 1)
    return (row.seq, row.hash) if row else (0, GENESIS)


def leaves(session: Session, after: int = 0, limit: int | None = None) -> Iterator[Leaf]:
    """The leaves behind `after`, in order."""
    query = select(AuditLeaf).where(AuditLeaf.seq > after).order_by(AuditLeaf.seq).limit(limit)
    for row in session.scalars(query.execution_options(yield_per=1000)):
        yield Leaf(row.seq, row.at, row.kind, row.body, row.previous, row.hash)
