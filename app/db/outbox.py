"""All SQL about the outbox and about named leases."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import insert, or_, select, update
from sqlalchemy.orm import Session

from app.db.columns import table
from app.db.models import NamedLease, OutboxRow
from app.db.session import insert_or_ignore, now

_ADD = insert(table(OutboxRow))
_LEFT_OUT = "left out: it was no longer true"


def add(session: Session, model: str, writes: Iterable[tuple[str, Mapping[str, Any]]]) -> None:
    """Queue writes (operation, arguments) about a model, to be sent in this order."""
    due = {"model": model, "created_at": now(session), "next_try_at": now(session)}
    rows = [{**due, "operation": operation, "arguments": dict(arguments)} for operation, arguments in writes]
    if rows:
        session.execute(_ADD, rows)


def pending(session: Session, model: str | None = None, limit: int = 500) -> Sequence[OutboxRow]:
    """Rows not yet sent, oldest first; of one model or of all."""
    query = select(OutboxRow).where(OutboxRow.next_try_at.is_not(None)).order_by(OutboxRow.id).limit(limit)
    if model is not None:
        query = query.where(OutboxRow.model == model)
    return session.scalars(query).all()


def waiting_models(session: Session) -> set[str]:
    """The models that something unsent is about."""
    query = select(OutboxRow.model).where(OutboxRow.next_try_at.is_not(None)).distinct()
    return set(session.scalars(query))


def has_due(session: Session, late: timedelta = timedelta(0)) -> bool:
    """Whether something is to be sent now, or was so `late` ago."""
    query = select(OutboxRow.id).where(OutboxRow.next_try_at <= now(session) - late).limit(1)
    return session.execute(query).first() is not None


def mark_done(session: Session, row_id: int, due: datetime | None) -> bool:
    """Note that a row was sent which was `due` then; False where somebody wants it said again since."""
    done = {"done_at": now(session), "next_try_at": None, "last_error": ""}
    query = update(OutboxRow).where(OutboxRow.id == row_id, OutboxRow.next_try_at == due).values(**done)
    sent = query.returning(OutboxRow.id).execution_options(synchronize_session=False)
    return session.execute(sent).first() is not None


def leave_out(session: Session, row_id: int) -> None:
    """Never send a row that waits: what it would say is true no more."""
    _update(session, row_id, {"done_at": now(session), "next_try_at": None, "last_error": _LEFT_OUT})


def say_again(session: Session, row: OutboxRow, about: Sequence[str]) -> None:
    """Have the newest write after `row`, or it itself, sent once more that has the same operation and the same
    arguments `about`; one that was left out or given up stays so."""
    query = select(OutboxRow).where(OutboxRow.model == row.model, OutboxRow.operation == row.operation)
    later = session.scalars(query.where(OutboxRow.id >= row.id).order_by(OutboxRow.id.desc()))
    same = (each for each in later if all(each.arguments[key] == row.arguments[key] for key in about))
    newest = next(same, None)
    if newest is None or newest.last_error == _LEFT_OUT or (newest.done_at is None and newest.next_try_at is None):
        return
    _update(session, newest.id, {"done_at": None, "next_try_at": now(session)})


def mark_failed(session: Session, row_id: int, error: str, pause: timedelta | None, refused: bool) -> None:
    """Note a failed try; without a `pause` the row is given up and keeps its error for people to see. `refused` counts
    it in `attempts`: an outside part that was away has refused nothing."""
    values: dict[str, Any] = {"last_error": error, "next_try_at": now(session) + pause if pause is not None else None}
    if refused:
        values["attempts"] = OutboxRow.attempts + 1
    _update(session, row_id, values)


def _update(session: Session, row_id: int, values: Mapping[str, Any]) -> None:
    query = update(OutboxRow).where(OutboxRow.id == row_id).values(**values)
    session.execute(query.execution_options(synchronize_session=False))


def take_lease(session: Session, name: str, owner: str, ttl: timedelta) -> bool:
    """Become the one that does the job `name`, or prolong that; False while somebody else does it."""
    moment = now(session)
    query = (
        update(NamedLease)
        .where(NamedLease.name == name, or_(NamedLease.until < moment, NamedLease.owner == owner))
        .values(owner=owner, until=moment + ttl)
        .returning(NamedLease.name)
        .execution_options(synchronize_session=False)
    )
    if session.execute(query).first() is not None:
        return True
    if session.get(NamedLease, name) is not None:
        return False
    return insert_or_ignore(session, NamedLease, {"name": name, "owner": owner, "until": moment + ttl}) is not None


def renew_lease(session: Session, name: str, owner: str, ttl: timedelta) -> bool:
    """Prolong a lease that was taken; False where somebody else has had it since."""
    query = update(NamedLease).where(NamedLease.name == name, NamedLease.owner == owner)
    prolonged = query.values(until=now(session) + ttl).returning(NamedLease.name)
    return session.execute(prolonged.execution_options(synchronize_session=False)).first() is not None


def idle(session: Session, name: str) -> bool:
    """Whether nobody does the job `name` now."""
    query = select(NamedLease.name).where(NamedLease.name == name, NamedLease.until >= now(session))
    return session.execute(query).first() is None


def drop_lease(session: Session, name: str, owner: str) -> None:
    """Let the next one do the job at once."""
    query = update(NamedLease).where(NamedLease.name == name, NamedLease.owner == owner)
    session.execute(
        query.values(until=now(session) - timedelta(seconds=1)).execution_options(synchronize_session=False)
    )
