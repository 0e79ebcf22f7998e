"""All SQL about promotions: the queue, its leases, the compare-and-set that writes a state, and the steps' records."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, bindparam, case, func, insert, literal, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session
from sqlalchemy.orm.attributes import set_committed_value
from sqlalchemy.orm.util import identity_key

from app.db import fences
from app.db.columns import table
from app.db.models import Promotion, StepRun
from app.db.session import insert_or_ignore, now
from app.domain.errors import Conflict, LostLease
from app.domain.promotion import ACTIVE, OPEN, State

_KNOWN = [state.value for state in State]
"""A state that a newer worker wrote is that worker's to run: ours leaves the row alone."""
_PROMOTIONS, _STEPS = table(Promotion), table(StepRun)
_LOCKED = select(Promotion).where(Promotion.id == bindparam("id")).with_for_update()
_CLAIM = (
    update(Promotion)
    .where(Promotion.id == bindparam("wanted"), Promotion.next_run_at <= bindparam("moment"))
    .where(or_(Promotion.lease_until.is_(None), Promotion.lease_until < bindparam("moment")))
    .where(Promotion.state.in_(_KNOWN))
    .values(
        crashes=Promotion.crashes + case((Promotion.lease_owner.is_not(None), 1), else_=0),
        lease_owner=bindparam("new_owner"),
        lease_until=bindparam("new_until"),
    )
    .returning(Promotion)
    .execution_options(synchronize_session=False, populate_existing=True)
)
_FENCE = update(_PROMOTIONS).where(_PROMOTIONS.c.id == bindparam("wanted"))
_WRITE_HELD = (
    update(_PROMOTIONS)
    .where(_PROMOTIONS.c.id == bindparam("held_id"), _PROMOTIONS.c.state == bindparam("held_state"))
    .where(_PROMOTIONS.c.lease_epoch == bindparam("held_epoch"))
    .returning(_PROMOTIONS.c.id)
)
_ENTER = insert(_STEPS)
_FINISH = update(_STEPS).where(
    _STEPS.c.promotion_id == bindparam("step_of"),
    _STEPS.c.state == bindparam("step_state"),
    _STEPS.c.finished_at.is_(None),
)

CALM: Mapping[str, Any] = {"attempt": 0, "crashes": 0, "failures": None, "last_error": ""}
"""What a row says whose step got on: all failures are forgotten."""


@dataclass(frozen=True)
class LeftBehind:
    """What stands in the row of a promotion: `crashes` with the one that its `owner`, who never gave it back, adds."""

    owner: str | None
    crashes: int


@dataclass(frozen=True)
class Claim:
    """The right to write promotion `id`, as long as it stands in `state` and its lease still has this `epoch`, which is
    also the fencing token for all that its holder does outside.

    `due` and `stopping` are what the row said when it was claimed: whether it was woken, or asked to stop, since."""

    id: int
    state: State
    epoch: int
    owner: str
    due: datetime | None = None
    stopping: bool = False


def get(session: Session, promotion_id: int) -> Promotion | None:
    return session.get(Promotion, promotion_id, populate_existing=True)


def get_locked(session: Session, promotion_id: int) -> Promotion | None:
    """The row, locked until the transaction ends, so that a request to stop and a transition take turns."""
    locked = session.scalars(_LOCKED, {"id": promotion_id}, execution_options={"populate_existing": True})
    return locked.one_or_none()


def add(session: Session, values: Mapping[str, Any]) -> Promotion | None:
    """Insert a promotion; None where another one already waits for the same model and environment."""
    return insert_or_ignore(session, Promotion, values)


def claim(session: Session, promotion_id: int, owner: str, ttl: timedelta) -> tuple[Promotion, Claim] | None:
    """Take the lease of a promotion that is due; None where it is not due or somebody else holds it.

    A lease that was left behind by a process that died counts as one crash of the present step.
    """
    moment = now(session)
    wanted = {"wanted": promotion_id, "moment": moment, "new_owner": owner, "new_until": moment + ttl}
    row = session.scalars(_CLAIM, wanted).one_or_none()
    if row is None:
        return None
    epoch = fences.issue(session, row.model, row.environment)
    session.execute(_FENCE, {"wanted": promotion_id, "lease_epoch": epoch})
    set_committed_value(row, "lease_epoch", epoch)
    return row, Claim(row.id, State(row.state), row.lease_epoch, owner, row.next_run_at, bool(row.stop))


def left_behind(session: Session, promotion_id: int) -> LeftBehind | None:
    """Who, if anybody, let the lease of this promotion run out, and how often its step has crashed by now."""
    query = select(Promotion.lease_owner, Promotion.crashes).where(Promotion.id == promotion_id)
    free = or_(Promotion.lease_until.is_(None), Promotion.lease_until < now(session))
    found = session.execute(query.where(free)).one_or_none()
    return LeftBehind(found[0], found[1] + (found[0] is not None)) if found is not None else None


def holds_suspect(session: Session, owner: str, crashes: int, but: int) -> bool:
    """Whether this worker runs another promotion at this moment whose step has crashed so often."""
    query = select(Promotion.id).where(Promotion.crashes >= crashes, Promotion.id != but)
    query = query.where(Promotion.lease_owner == owner, Promotion.lease_until >= now(session))
    return session.execute(query.limit(1)).first() is not None


def renew(session: Session, held: Claim, ttl: timedelta) -> bool:
    """Prolong the lease; False where it was given back or has passed to somebody else."""
    query = update(Promotion).where(Promotion.id == held.id, Promotion.lease_epoch == held.epoch)
    # Giving back keeps the epoch: only the owner tells a lease that is held from one that just was.
    query = query.where(Promotion.lease_owner == held.owner).values(lease_until=now(session) + ttl)
    prolonged = query.returning(Promotion.id).execution_options(synchronize_session=False)
    return session.execute(prolonged).first() is not None


def let_go(session: Session, held: Claim, pause: timedelta) -> None:
    """What a worker says that was refused. Where it still holds the lease, it gives it back and the step runs again
    after `pause`, with a newer token. Where its lease had lapsed, the worker that took it over has counted a crash:
    there was none, for this one lives."""
    mine = (Promotion.id == held.id) & (Promotion.lease_epoch == held.epoch) & (Promotion.lease_owner == held.owner)
    given_back = update(Promotion).where(mine).values(**_given_back(session, now(session) + pause))
    quiet = {"synchronize_session": False}
    if session.execute(given_back.returning(Promotion.id).execution_options(**quiet)).first() is not None:
        return
    same = (Promotion.id == held.id) & (Promotion.state == held.state.value) & (Promotion.lease_epoch > held.epoch)
    uncounted = update(Promotion).where(same, Promotion.crashes > 0).values(crashes=Promotion.crashes - 1)
    session.execute(uncounted.execution_options(**quiet))


def move(session: Session, held: Claim, after: State, reason: str, next_run_at: datetime | None) -> None:
    """Write a new state and give the lease back.

    Raises:
        LostLease: the row no longer stands where the claim says.
        Conflict: another promotion is active for this model and environment; the transaction can only be given up.
    """
    values: dict[str, Any] = {"state": after.value, "reason": reason, "progress": {}, **CALM}
    try:
        _write_or_raise(session, held, {**values, **_given_back(session, next_run_at)})
    except IntegrityError as error:
        raise Conflict("another promotion is active for this model and environment") from error


def reschedule(session: Session, held: Claim, next_run_at: datetime | None, **values: Any) -> None:
    """Keep the state, write `values`, and give the lease back until `next_run_at`.

    Raises:
        LostLease: the lease has passed to somebody else.
    """
    _write_or_raise(session, held, {**values, **_given_back(session, next_run_at)})


def _given_back(session: Session, next_run_at: datetime | None) -> dict[str, Any]:
    return {"next_run_at": next_run_at, "updated_at": now(session), "lease_owner": None, "lease_until": None}


def _write_or_raise(session: Session, held: Claim, values: Mapping[str, Any]) -> None:
    mine = {"held_id": held.id, "held_state": held.state.value, "held_epoch": held.epoch}
    if session.execute(_WRITE_HELD, {**values, **mine}).first() is None:
        raise LostLease(f"promotion {held.id} is no longer held in {held.state} by this worker")
    row = session.identity_map.get(identity_key(Promotion, held.id))
    for name, value in values.items() if row is not None else ():
        set_committed_value(row, name, value)


def holders(session: Session) -> Sequence[str]:
    """Who holds leases that have not lapsed."""
    query = select(Promotion.lease_owner).where(Promotion.lease_until >= now(session)).distinct()
    return [owner for owner in session.scalars(query) if owner is not None]


def lapse(session: Session, owner: str) -> None:
    """End the leases of an owner that has certainly died; they still count as crashes."""
    query = update(Promotion).where(Promotion.lease_owner == owner, Promotion.lease_until >= now(session))
    gone = query.values(lease_until=now(session) - timedelta(milliseconds=1))
    session.execute(gone.execution_options(synchronize_session=False))


def disown(session: Session, owner: str) -> None:
    """Leave what `owner` holds to others when its leases end, without counting that as crashes: it was told to stop."""
    query = update(Promotion).where(Promotion.lease_owner == owner).values(lease_owner=None)
    session.execute(query.execution_options(synchronize_session=False))


def moves_traffic(session: Session, model: str, environment: str) -> bool:
    """Whether a worker holds a rollout there, or has held one and did not say how it ended."""
    query = select(Promotion.id).where(Promotion.model == model, Promotion.environment == environment)
    query = query.where(_is_in(State.ROLLOUT), Promotion.lease_until.is_not(None))
    return session.execute(query.limit(1)).first() is not None


def due(session: Session, limit: int = 200, late: timedelta = timedelta(0)) -> Sequence[int]:
    """The ids of promotions that somebody should run now, or should have run `late` ago, the longest overdue first."""
    moment = now(session)
    query = (
        select(Promotion.id)
        .where(Promotion.next_run_at <= moment - late, Promotion.state.in_(_KNOWN))
        .where(or_(Promotion.lease_until.is_(None), Promotion.lease_until < moment))
        .order_by(Promotion.next_run_at)
        .limit(limit)
    )
    return session.scalars(query).all()


def wake(session: Session, promotion_id: int) -> None:
    """Make a promotion due at once: something it waits for may have come."""
    query = update(Promotion).where(Promotion.id == promotion_id, Promotion.next_run_at.is_not(None))
    session.execute(query.values(next_run_at=_woken(session)).execution_options(synchronize_session=False))


def wake_waiting(session: Session, model: str, environment: str) -> None:
    """Make due at once whatever waits until the model and environment are free."""
    query = update(Promotion).where(Promotion.model == model, Promotion.environment == environment)
    query = query.where(_is_in(State.REQUESTED), Promotion.next_run_at.is_not(None))
    session.execute(query.values(next_run_at=_woken(session)).execution_options(synchronize_session=False))


def _woken(session: Session) -> ColumnElement[datetime]:
    """When a promotion is due once it is woken. What is overdue stays so, or whoever looks for what is late would never
    find it; while a step runs, the new time tells its worker that it was woken. The row is written in either case: a
    claim that comes meanwhile waits for what the waking transaction brings."""
    moment = now(session)
    overdue = and_(Promotion.lease_owner.is_(None), Promotion.next_run_at <= moment)
    another = (
        Promotion.next_run_at == moment,
        moment - timedelta(milliseconds=1),
    )  # two wakes in one tick of the clock
    return case((overdue, Promotion.next_run_at), another, else_=moment)


def open_for(session: Session, model: str, environment: str) -> Sequence[Promotion]:
    """The unfinished promotions of a model and environment, locked, oldest first: at most one runs, one waits."""
    query = _unfinished(model, environment).with_for_update()
    return session.scalars(query.execution_options(populate_existing=True)).all()


def unfinished(session: Session, model: str, environment: str) -> Sequence[Promotion]:
    """The same without a lock, for whoever only looks."""
    return session.scalars(_unfinished(model, environment)).all()


def _unfinished(model: str, environment: str) -> Select[Promotion]:
    query = select(Promotion).where(Promotion.model == model, Promotion.environment == environment)
    return query.where(_is_in(*OPEN)).order_by(Promotion.id)


def waiting(session: Session, model: str, environment: str) -> Sequence[Promotion]:
    """The promotion, if any, that waits until the model and environment are free."""
    query = select(Promotion).where(Promotion.model == model, Promotion.environment == environment)
    return session.scalars(query.where(_is_in(State.REQUESTED))).all()


def active_for(session: Session, model: str, environment: str) -> Promotion | None:
    """The one promotion that occupies the model and environment now."""
    query = select(Promotion).where(Promotion.model == model, Promotion.environment == environment)
    return session.scalars(query.where(_is_in(*ACTIVE))).one_or_none()


def _is_in(*states: State) -> ColumnElement[bool]:
    """The states as part of the statement: only then a planner sees that a partial index holds all that is asked for,
    and does not read through all that has ended."""
    values = sorted(state.value for state in states)
    if len(values) == 1:
        return Promotion.state == literal(values[0], literal_execute=True)
    return Promotion.state.in_(bindparam("states", values, expanding=True, literal_execute=True))


def search(
    session: Session, model: str | None, environment: str | None, state: State | None, before_id: int | None, limit: int
) -> Sequence[Promotion]:
    """Promotions, newest first, filtered by whatever is given."""
    query = select(Promotion).order_by(Promotion.id.desc()).limit(limit)
    if model is not None:
        query = query.where(Promotion.model == model)
    if environment is not None:
        query = query.where(Promotion.environment == environment)
    if state is not None:
        query = query.where(Promotion.state == state.value)
    if before_id is not None:
        query = query.where(Promotion.id < before_id)
    return session.scalars(query).all()


def latest(session: Session, model: str, environments: Sequence[str], limit: int) -> Sequence[Promotion]:
    """The newest promotions of a model to any of the environments, newest first."""
    query = select(Promotion).where(Promotion.model == model, Promotion.environment.in_(environments))
    return session.scalars(query.order_by(Promotion.id.desc()).limit(limit)).all()


def evidence_by_promotion(session: Session, ids: Sequence[int], state: State) -> dict[int, dict[str, Any]]:
    """What the finished step of that state left behind, by promotion; the latest run counts."""
    query = select(StepRun.promotion_id, StepRun.evidence).where(StepRun.promotion_id.in_(ids))
    query = query.where(StepRun.state == state.value, StepRun.finished_at.is_not(None)).order_by(StepRun.id)
    return {row.promotion_id: row.evidence for row in session.execute(query)}


def count_by_state(session: Session) -> dict[str, int]:
    rows = session.execute(select(Promotion.state, func.count()).group_by(Promotion.state))
    return {row[0]: row[1] for row in rows}


def enter_step(session: Session, promotion_id: int, state: State) -> None:
    """Record that a promotion has entered a state."""
    step = {"promotion_id": promotion_id, "state": state.value, "entered_at": now(session)}
    session.execute(_ENTER, {**step, "evidence": {}})


def finish_step(
    session: Session, promotion_id: int, state: State, evidence: Mapping[str, Any], digest: str | None
) -> None:
    """Record the end of the step that the promotion is in."""
    step = {"step_of": promotion_id, "step_state": state.value}
    session.execute(_FINISH, {**step, "finished_at": now(session), "evidence": dict(evidence), "digest": digest})


def steps(session: Session, promotion_id: int) -> Sequence[StepRun]:
    """All steps of a promotion in the order in which they ran."""
    query = select(StepRun).where(StepRun.promotion_id == promotion_id).order_by(StepRun.id)
    return session.scalars(query.execution_options(populate_existing=True)).all()


def last_rows(session: Session, model: str, environment: str, uri: str) -> str | None:
    """The digest that the judging rows at `uri` had at the last promotion that copied them from there."""
    query = (
        select(StepRun.evidence)
        .join(Promotion, Promotion.id == StepRun.promotion_id)
        .where(Promotion.model == model, Promotion.environment == environment)
        .where(StepRun.state == State.SNAPSHOT.value, StepRun.finished_at.is_not(None))
        .order_by(StepRun.id.desc())
        .limit(20)
    )
    found = (row["data"] for row in session.scalars(query) if (row.get("data_from") or {}).get("uri") == uri)
    return next(found, None)


def evidence(session: Session, promotion_id: int) -> dict[str, dict[str, Any]]:
    """What each finished step left behind, by state; the latest run counts."""
    return evidence_of(steps(session, promotion_id))


def evidence_of(steps: Sequence[StepRun]) -> dict[str, dict[str, Any]]:
    """The same, of steps that were read before."""
    return {step.state: step.evidence for step in steps if step.finished_at is not None}
