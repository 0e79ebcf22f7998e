"""All SQL about what we saw of the registry: observed models, the ledger of changes, webhook deliveries."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, delete, func, insert, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import InstrumentedAttribute, Session

from app.db.columns import table
from app.db.models import ChangeRow, Delivery, ObservedModel, Setting
from app.db.session import insert_or_ignore, now
from app.domain.registry import Change, Event, ModelView

BASELINE = "registry.baseline"
DUE, CAME = "due", "came"


def observed(session: Session, model: str) -> tuple[ModelView | None, int]:
    """What was last seen of a model, and the generation of that; (None, 0) where it was never seen. The row is locked:
    whoever compares it with what MLflow says now also replaces it."""
    row = session.get(ObservedModel, model, populate_existing=True, with_for_update=True)
    return (ModelView.from_json(model, row.view), row.generation) if row else (None, 0)


def generation(session: Session, model: str) -> int:
    """The generation of what was last seen of a model, 0 where it was never seen."""
    return (
        session.execute(select(ObservedModel.generation).where(ObservedModel.name == model)).scalar_one_or_none() or 0
    )


def seen(session: Session, model: str) -> ModelView | None:
    """What was last seen of a model, without its lock."""
    view = session.execute(select(ObservedModel.view).where(ObservedModel.name == model)).scalar_one_or_none()
    return ModelView.from_json(model, view) if view is not None else None


def all_observed(session: Session) -> dict[str, ModelView]:
    rows = session.execute(select(ObservedModel.name, ObservedModel.view)).all()
    return {name: ModelView.from_json(name, view) for name, view in rows}


def store(session: Session, name: str, view: ModelView | None, generation: int) -> bool:
    """Replace what was seen, if it still has `generation`; False where somebody else was faster."""
    if view is None:
        gone = delete(ObservedModel).where(ObservedModel.name == name, ObservedModel.generation == generation)
        return session.execute(gone.returning(ObservedModel.name)).first() is not None
    if generation == 0:
        first = {"name": name, "view": view.as_json(), "generation": 1, "observed_at": now(session)}
        return insert_or_ignore(session, ObservedModel, first) is not None
    newer = (
        update(ObservedModel)
        .where(ObservedModel.name == name, ObservedModel.generation == generation)
        .values(view=view.as_json(), generation=generation + 1, observed_at=now(session))
        .returning(ObservedModel.name)
        .execution_options(synchronize_session=False)
    )
    return session.execute(newer).first() is not None


def store_new(session: Session, views: Sequence[ModelView]) -> bool:
    """Store models that were never seen; False, and nothing is stored, where somebody was faster with one of them."""
    first = {"generation": 1, "observed_at": now(session)}
    rows = [{**first, "name": view.name, "view": view.as_json()} for view in views]
    if not rows:
        return True
    try:
        with session.begin_nested():
            session.execute(insert(table(ObservedModel)), rows)
    except IntegrityError:
        return False
    return True


def add_changes(session: Session, lines: Sequence[tuple[Change, str]], via: str) -> None:
    """Write many lines of the ledger, each with its note, that open nothing and that MLflow has no webhook for."""
    rows = [{**vars(change), "note": note, "via": via, "seen_at": now(session)} for change, note in lines]
    if rows:
        session.execute(insert(table(ChangeRow)), rows)


def add_change(
    session: Session, change: Change, via: str, note: str = "", promotion_id: int | None = None, *, due: bool = False
) -> ChangeRow:
    """Write a line of the ledger; `due` where MLflow sends a webhook for it."""
    row = ChangeRow(
        model=change.model,
        field=change.field,
        version=change.version,
        before=change.before,
        after=change.after,
        via=via,
        seen_at=now(session),
        promotion_id=promotion_id,
        note=note,
        webhook=DUE if due else None,
    )
    session.add(row)
    session.flush()
    return row


def changes(session: Session, model: str | None, before_id: int | None, limit: int) -> Sequence[ChangeRow]:
    """The ledger, newest first."""
    query = select(ChangeRow).order_by(ChangeRow.id.desc()).limit(limit)
    if model is not None:
        query = query.where(ChangeRow.model == model)
    if before_id is not None:
        query = query.where(ChangeRow.id < before_id)
    return session.scalars(query).all()


def count_changes(session: Session, model: str | None) -> dict[str, int]:
    """How many lines of the ledger there are, by how they were seen."""
    query = select(ChangeRow.via, func.count()).group_by(ChangeRow.via)
    if model is not None:
        query = query.where(ChangeRow.model == model)
    return dict(session.execute(query).all())


def count_webhooks(session: Session, model: str | None) -> int:
    """How many changes there are that MLflow has an event for."""
    query = select(func.count()).select_from(ChangeRow).where(ChangeRow.webhook.is_not(None))
    return session.scalar(query if model is None else query.where(ChangeRow.model == model)) or 0


def count_due(session: Session, model: str | None, after: datetime | None, before: datetime) -> int:
    """How many changes seen between two times still have no delivery that announced them."""
    query = select(func.count()).select_from(ChangeRow).where(ChangeRow.webhook == DUE, ChangeRow.seen_at < before)
    if after is not None:
        query = query.where(ChangeRow.seen_at > after)
    return session.scalar(query if model is None else query.where(ChangeRow.model == model)) or 0


def count_noted(session: Session, model: str, field: str, note: str, since: datetime) -> int:
    """How many changes of a field since then carry a note that begins so."""
    query = select(func.count()).select_from(ChangeRow).where(ChangeRow.model == model, ChangeRow.field == field)
    return session.scalar(query.where(ChangeRow.seen_at > since, ChangeRow.note.startswith(note))) or 0


def latest_change(session: Session, model: str, field: str, version: str | None) -> ChangeRow | None:
    """The last line of the ledger about an alias, or about a version's tag."""
    query = select(ChangeRow).where(ChangeRow.model == model, ChangeRow.field == field)
    if version is not None:
        query = query.where(ChangeRow.version == version)
    return session.scalars(query.order_by(ChangeRow.id.desc()).limit(1)).first()


def add_delivery(session: Session, call: Mapping[str, Any]) -> bool:
    """Remember a webhook call, given by its columns; False where this delivery came before."""
    return insert_or_ignore(session, Delivery, {**call, "received_at": now(session)}) is not None


def last_delivery(session: Session) -> datetime | None:
    """When the last webhook came."""
    return session.scalar(select(func.max(Delivery.received_at)))


def unobserved_models(session: Session, late: timedelta = timedelta(0)) -> Sequence[str]:
    """Models named by deliveries that nobody has acted on yet, though they came `late` ago."""
    query = select(Delivery.model).where(Delivery.observed_at.is_(None), Delivery.model.is_not(None)).distinct()
    query = query.where(Delivery.received_at <= now(session) - late)
    return [model for model in session.scalars(query) if model is not None]


def cover(session: Session, model: str, until: datetime) -> Sequence[Delivery]:
    """Take the deliveries about `model` that were received up to `until`, the oldest first: the reading that began then
    shows what they were about."""
    query = update(Delivery).where(Delivery.model == model, Delivery.observed_at.is_(None))
    query = query.where(Delivery.received_at <= until).values(observed_at=now(session))
    rows = session.scalars(query.returning(Delivery).execution_options(synchronize_session=False)).all()
    return sorted(rows, key=lambda row: row.received_at)


def match(session: Session, delivery: Delivery, since: datetime) -> None:
    """Note a delivery with the newest change that still waits for it and was seen after `since`, if there is one."""
    event = said(delivery)
    if event is None:
        return
    query = select(ChangeRow).where(ChangeRow.webhook == DUE, ChangeRow.seen_at > since)
    query = query.where(
        ChangeRow.model == delivery.model, ChangeRow.field == event.field, _holds(ChangeRow.after, event)
    )
    if event.version is not None:
        query = query.where(ChangeRow.version == event.version)
    change = session.scalars(query.order_by(ChangeRow.id.desc()).limit(1)).first()
    if change is not None:
        note(session, delivery, change)


def note(session: Session, delivery: Delivery, change: ChangeRow) -> None:
    """Note that a delivery announced a change."""
    change.webhook, delivery.change_id = CAME, change.id
    session.flush()


def said(delivery: Delivery) -> Event | None:
    """What a delivery says of the registry."""
    return Event(delivery.field, delivery.version, delivery.value) if delivery.field is not None else None


def _holds(column: InstrumentedAttribute[str | None], event: Event) -> ColumnElement[bool]:
    return column.is_(None) if event.value is None else column == event.value


def unmatched(session: Session, since: datetime) -> Sequence[Delivery]:
    """Deliveries received after `since` that say what a field held, and that no reading has ever shown to be so."""
    query = select(Delivery).where(Delivery.received_at > since, Delivery.field.is_not(None))
    query = query.where(Delivery.change_id.is_(None), Delivery.observed_at.is_not(None))
    return session.scalars(query.order_by(Delivery.received_at)).all()


def delivery(session: Session, source: str, delivery_id: str) -> Delivery | None:
    return session.get(Delivery, (source, delivery_id))


def said_of(session: Session, one: Delivery, since: datetime) -> Sequence[Delivery]:
    """What other deliveries say of the same alias or tag that no reading before `since` covers."""
    query = select(Delivery).where(Delivery.model == one.model, Delivery.field == one.field)
    query = query.where(Delivery.version.is_not_distinct_from(one.version), Delivery.delivery_id != one.delivery_id)
    query = query.where(or_(Delivery.observed_at.is_(None), Delivery.observed_at >= since))
    return session.scalars(query).all()


def fact(session: Session, name: str) -> str | None:
    row = session.get(Setting, name)
    return row.value if row is not None else None


def set_fact(session: Session, name: str, value: str) -> None:
    session.merge(Setting(name=name, value=value))
    session.flush()


def has_baseline(session: Session) -> bool:
    """Whether a first full snapshot was taken: before it a legacy stage is history, not a request."""
    return fact(session, BASELINE) is not None


def set_baseline(session: Session) -> None:
    if not has_baseline(session):
        set_fact(session, BASELINE, now(session).isoformat())
