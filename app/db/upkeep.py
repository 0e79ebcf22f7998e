"""All SQL that deletes what nobody needs any more. The audit trail, promotions and the ledger of changes stay."""

from collections.abc import Mapping
from datetime import datetime

from sqlalchemy import ColumnElement, Table, bindparam, delete, literal, or_, select, tuple_
from sqlalchemy.orm import Session

from app.db.columns import table
from app.db.models import Delivery, IdempotentAnswer, OutboxRow

_BEFORE = bindparam("before", type_=table(OutboxRow).c.done_at.type)
# Of webhook calls, those that were acted on; of writes to MLflow, those that were made: what was refused for good keeps
# its error for people to see.
_OLD: Mapping[Table, ColumnElement[bool]] = {
    table(Delivery): (table(Delivery).c.received_at < _BEFORE)
    & or_(table(Delivery).c.observed_at.is_not(None), table(Delivery).c.model.is_(None)),
    table(OutboxRow): table(OutboxRow).c.done_at < _BEFORE,
    table(IdempotentAnswer): table(IdempotentAnswer).c.created_at < _BEFORE,
}
FORGETTABLE = tuple(_OLD)


def forget(session: Session, forgettable: Table, before: datetime, limit: int) -> int:
    """Delete at most `limit` rows that are older than `before`, and that nobody waits for; returns how many."""
    key = tuple(forgettable.primary_key)
    # A limit that the planner does not know makes it read the whole table.
    old = select(*key).where(_OLD[forgettable]).limit(literal(limit, literal_execute=True))
    deleted = session.execute(delete(forgettable).where(tuple_(*key).in_(old)).returning(*key), {"before": before})
    return len(deleted.all())
