"""All SQL about the audit chain: append in line, read in order."""

from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import insert, select, update
from sqlalchemy.orm import Session

from app.db.models import AuditHead, AuditLeaf, table
from app.db.session import at_last, now
from app.domain.audit import GENESIS, Leaf, leaf_hash

PAGE = 1000
_WAITING = "leaves"
_HEAD = table(AuditHead)
_LOCK_HEAD = select(_HEAD.c.seq, _HEAD.c.hash).where(_HEAD.c.id == 1).with_for_update()
_MOVE_HEAD = update(_HEAD).where(_HEAD.c.id == 1)
_ADD_LEAVES = insert(table(AuditLeaf))


def append(session: Session, kind: str, body: dict[str, Any]) -> None:
    """Add one leaf to the chain with the caller's transaction, as its last act.

    Appenders wait for each other on the head row. Whoever holds it takes no other lock any more, so that nobody can
    wait in a circle: all the rows that a transaction touches are locked before.
    """
    waiting = session.info.setdefault(_WAITING, [])
    if not waiting:
        at_last(session, lambda: _append(session, session.info.pop(_WAITING)))
    waiting.append((kind, body))


def _append(session: Session, waiting: Sequence[tuple[str, dict[str, Any]]]) -> None:
    session.flush()
    at, found = now(session).isoformat(), session.execute(_LOCK_HEAD).one_or_none()
    if found is None:  # the migration writes the row; a chain without its head must not be continued
        raise RuntimeError("the audit chain has no head row: run the migrations")
    (seq, previous), added = found, []
    for kind, body in waiting:
        seq += 1
        digest = leaf_hash(seq, at, kind, body, previous)
        added.append({"seq": seq, "at": at, "kind": kind, "body": body, "previous": previous, "hash": digest})
        previous = digest
    session.execute(_ADD_LEAVES, added)
    session.execute(_MOVE_HEAD, {"seq": seq, "hash": previous})


def head(session: Session) -> tuple[int, str]:
    """The number of leaves and the hash of the last one."""
    row = session.get(AuditHead, 1)
    return (row.seq, row.hash) if row else (0, GENESIS)


def leaves(session: Session, after: int = 0, limit: int | None = None) -> Iterator[Leaf]:
    """The leaves behind `after`, in order. They are read page by page, so a reader may stop anywhere."""
    while limit is None or limit > 0:
        size = PAGE if limit is None else min(PAGE, limit)
        query = select(AuditLeaf).where(AuditLeaf.seq > after).order_by(AuditLeaf.seq).limit(size)
        page = session.scalars(query).all()
        for row in page:
            yield Leaf(row.seq, row.at, row.kind, row.body, row.previous, row.hash)
        if len(page) < size:
            return
        after, limit = page[-1].seq, limit - size if limit is not None else None
