"""All SQL about what we saw of the registry: observed models, the ledger of changes, webhook deliveries."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from app.db.models import ChangeRow, Delivery, ObservedModel, Setting
from app.db.session import insert_or_ignore, now
from app.domain.registry import Change, ModelView

BASELINE = "registry.baseline"


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


def add_change(session: Session, change: Change, via: str, note: str, promotion_id: int | None) -> ChangeRow:
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


def add_delivery(session: Session, source: str, delivery_id: str, event: str, model: str | None) -> bool:
    """Remember a webhook call; False where this delivery came before."""
    call = {"source": source, "delivery_id": delivery_id, "event": event[:255], "model": model}
    return insert_or_ignore(session, Delivery, {**call, "received_at": now(session)}) is not None


def unobserved_models(session: Session, late: timedelta = timedelta(0)) -> Sequence[str]:
    """Models named by deliveries that nobody has acted on yet, though they came `late` ago."""
    query = select(Delivery.model).where(Delivery.observed_at.is_(None), Delivery.model.is_not(None)).distinct()
    query = query.where(Delivery.received_at <= now(session) - late)
    return [model for model in session.scalars(query) if model is not None]


def mark_observed(session: Session, model: str, until: datetime) -> None:
    """Deliveries about `model` received up to `until` are covered by the reading that follows it."""
    query = update(Delivery).where(Delivery.model == model, Delivery.observed_at.is_(None))
    query = query.where(Delivery.received_at <= until).values(observed_at=now(session))
    session.execute(query.execution_options(synchronize_session=False))


def has_baseline(session: Session) -> bool:
    """Whether a first full snapshot was taken: before it a legacy stage is history, not a request."""
    return session.get(Setting, BASELINE) is not None


def set_baseline(session: Session) -> None:
    if not has_baseline(session):
        session.add(Setting(name=BASELINE, value=now(session).isoformat()))
        session.flush()
