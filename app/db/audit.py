"""All SQL about the audit trail: append in line, read in order, look up what proofs are made of."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import and_, func, insert, or_, select, update
from sqlalchemy.orm import Session

from app.db.columns import table
from app.db.models import AuditCheckpoint, AuditHead, AuditLeaf, AuditNode, Promotion
from app.db.session import at_last, now
from app.domain.audit import Leaf, leaf_data
from app.domain.merkle import Frontier, Node, leaf_hash

PAGE = 1000
_WAITING = "leaves"
_HEAD, _LEAF, _NODE = table(AuditHead), table(AuditLeaf), table(AuditNode)
_LOCK_HEAD = select(_HEAD.c.size, _HEAD.c.peaks).where(_HEAD.c.id == 1).with_for_update()
_MOVE_HEAD = update(_HEAD).where(_HEAD.c.id == 1)
_ADD_LEAVES, _ADD_NODES = insert(_LEAF), insert(_NODE)


@dataclass
class Receipt:
    """The number that a leaf gets when the transaction is committed; 0 until then."""

    seq: int = 0


def append(session: Session, kind: str, body: dict[str, Any]) -> Receipt:
    """Add one leaf to the trail with the caller's transaction, as its last act: without the leaf nothing of it holds.

    Appenders wait for each other on the head row. Whoever holds it takes no other lock any more, so that nobody can
    wait in a circle: all the rows that a transaction touches are locked before.
    """
    waiting = session.info.setdefault(_WAITING, [])
    if not waiting:
        at_last(session, lambda: _append(session, session.info.pop(_WAITING)))
    receipt = Receipt()
    waiting.append((kind, body, receipt))
    return receipt


def _append(session: Session, waiting: Sequence[tuple[str, dict[str, Any], Receipt]]) -> None:
    session.flush()
    at, found = now(session).isoformat(), session.execute(_LOCK_HEAD).one_or_none()
    if found is None:  # the migration writes the row; a trail without its head must not be continued
        raise RuntimeError("the audit trail has no head row: run the migrations")
    tree = Frontier(found.size, [bytes.fromhex(peak) for peak in found.peaks])
    leaves, nodes = [], list[tuple[Node, bytes]]()
    for kind, body, receipt in waiting:
        receipt.seq = seq = tree.size + 1
        digest = leaf_hash(leaf_data(seq, at, kind, body))
        leaves.append({"seq": seq, "at": at, "kind": kind, "body": body, "hash": digest.hex()})
        nodes += tree.add(digest)
    session.execute(_ADD_LEAVES, leaves)
    if nodes:
        rows = [{"level": level, "position": place, "hash": digest} for (level, place), digest in nodes]
        session.execute(_ADD_NODES, rows)
    session.execute(_MOVE_HEAD, {"size": tree.size, "peaks": [peak.hex() for peak in tree.peaks]})


def head(session: Session) -> tuple[str, Frontier]:
    """The trail's name, and the tree over all leaves."""
    row = session.execute(select(_HEAD).where(_HEAD.c.id == 1)).one()
    return row.origin, Frontier(row.size, [bytes.fromhex(peak) for peak in row.peaks])


def leaves(session: Session, after: int = 0, limit: int | None = None) -> Iterator[Leaf]:
    """The leaves behind `after`, in order. They are read page by page, so a reader may stop anywhere."""
    while limit is None or limit > 0:
        size = PAGE if limit is None else min(PAGE, limit)
        page = session.execute(select(_LEAF).where(_LEAF.c.seq > after).order_by(_LEAF.c.seq).limit(size)).all()
        for row in page:
            yield Leaf(row.seq, row.at, row.kind, row.body, row.hash)
        if len(page) < size:
            return
        after, limit = page[-1].seq, limit - size if limit is not None else None


def about(session: Session, model: str, kinds: Sequence[str], until: str) -> Iterator[Leaf]:
    """The leaves of these kinds about one model that were written up to a time (UTC, as leaves have it), in order.

    A leaf without a model belongs to the model of its promotion.
    """
    of_model = select(Promotion.id).where(Promotion.model == model)
    named, numbered = _LEAF.c.body["model"].as_string(), _LEAF.c.body["promotion"].as_integer()
    query = select(_LEAF).where(
        _LEAF.c.kind.in_(kinds), _LEAF.c.at <= until, or_(named == model, numbered.in_(of_model))
    )
    for row in session.execute(query.order_by(_LEAF.c.seq).execution_options(yield_per=PAGE)):
        yield Leaf(row.seq, row.at, row.kind, row.body, row.hash)


def of_promotion(session: Session, promotion_id: int, until: int) -> Iterator[Leaf]:
    """All leaves about one promotion, up to leaf `until`, in order."""
    mine = _LEAF.c.body["promotion"].as_integer() == promotion_id
    for row in session.execute(select(_LEAF).where(mine, _LEAF.c.seq <= until).order_by(_LEAF.c.seq)):
        yield Leaf(row.seq, row.at, row.kind, row.body, row.hash)


def hashes(session: Session, nodes: Iterable[Node]) -> dict[Node, bytes]:
    """The kept hashes of full subtrees; what is missing is missing in the answer."""
    wanted = set(nodes)
    low = [index + 1 for level, index in wanted if level == 0]
    high = [and_(_NODE.c.level == level, _NODE.c.position == index) for level, index in wanted if level]
    found: dict[Node, bytes] = {}
    if low:
        rows = session.execute(select(_LEAF.c.seq, _LEAF.c.hash).where(_LEAF.c.seq.in_(low)))
        found |= {(0, row.seq - 1): bytes.fromhex(row.hash) for row in rows}
    if high:
        found |= {(row.level, row.position): row.hash for row in session.execute(select(_NODE).where(or_(*high)))}
    return found


def level(session: Session, number: int) -> Iterator[tuple[int, bytes]]:
    """Position and hash of each kept node of one level, in order; level 0 has the leaves. They are read page by page,
    so a reader may stop anywhere."""
    key, query = _NODE.c.position, select(_NODE.c.position, _NODE.c.hash).where(_NODE.c.level == number)
    first = 0
    if number == 0:
        key, query, first = _LEAF.c.seq, select(_LEAF.c.seq, _LEAF.c.hash), 1
    last = first - 1
    while page := session.execute(query.where(key > last).order_by(key).limit(PAGE)).all():
        for place, digest in page:
            yield place - first, digest if isinstance(digest, bytes) else bytes.fromhex(digest)
        last = page[-1][0]


def count_nodes(session: Session) -> int:
    """How many nodes above the leaves are kept."""
    return session.execute(select(func.count()).select_from(_NODE)).scalar_one()


def latest_of(session: Session, kind: str) -> Leaf | None:
    """The newest leaf of a kind."""
    query = select(_LEAF).where(_LEAF.c.kind == kind).order_by(_LEAF.c.seq.desc()).limit(1)
    row = session.execute(query).one_or_none()
    return Leaf(row.seq, row.at, row.kind, row.body, row.hash) if row else None


def models_between(session: Session, after: int, until: int) -> set[str]:
    """The models that leaves behind `after` up to `until` are about."""
    query = select(_LEAF.c.body).where(_LEAF.c.seq > after, _LEAF.c.seq <= until)
    return {str(body["model"]) for body in session.scalars(query) if body.get("model")}


def last_checkpoint(session: Session) -> AuditCheckpoint | None:
    """The newest checkpoint that was given away."""
    return session.scalars(select(AuditCheckpoint).order_by(AuditCheckpoint.size.desc()).limit(1)).one_or_none()


def add_checkpoint(session: Session, size: int, at: datetime, note: str) -> None:
    """Note a checkpoint that is given away."""
    session.add(AuditCheckpoint(size=size, at=at, note=note))


def checkpoints(session: Session) -> Sequence[AuditCheckpoint]:
    """All checkpoints that were given away, oldest first."""
    return session.scalars(select(AuditCheckpoint).order_by(AuditCheckpoint.size)).all()
