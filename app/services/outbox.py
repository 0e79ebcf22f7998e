"""Sending what the outbox holds, in order for each model, and keeping our own writes from looking like requests."""

import logging
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from sqlalchemy.orm import Session

from app.db import audit, outbox, registry
from app.db.models import OutboxRow
from app.db.session import now
from app.domain.errors import HeadgateError, LostLease, Transient
from app.domain.registry import ASK_TAG, NO_STAGE, OWN, Change, ModelView, diff, event_of
from app.domain.retry import backoff
from app.parts import Core
from app.ports import Written
from app.services import singly, writeback
from app.services.singly import holding

log = logging.getLogger(__name__)
LEASE = "deliver"
MAX_REFUSALS = 60
AWAY_PAUSE = timedelta(seconds=5)
_OUTCOMES = {Written.DONE: "done", Written.ALREADY: "done", Written.NOT: "left"}
# Which arguments of a write, besides the model, say what it is about.
_ABOUT = {
    writeback.SET_MODEL_TAG: ("key",),
    writeback.SET_TAG: ("version", "key"),
    writeback.SET_ALIAS: ("alias",),
    writeback.SET_STAGE: ("version",),
}


def deliver(core: Core, owner: str, stopping: Callable[[], bool] = lambda: False) -> int:
    """Send all that is due, or until `stopping`; one process at a time. Returns how many were sent.

    A model whose write fails keeps the rest of its writes back, so that MLflow never sees them out of order.
    """
    with core.db.read() as session:
        if not outbox.has_due(session):
            return 0
    sent = 0
    with holding(core.db, LEASE, owner) as holder:
        try:
            while holder and (some := _round(core, holder, stopping)):
                sent += some
        except LostLease as error:
            log.warning("outbox.lost_lease", extra={"reason": error.reason})
    return sent


def _round(core: Core, holder: str, stopping: Callable[[], bool]) -> int:
    """Send each model's writes up to the first that fails or has to wait; 0 where there was nothing to do."""
    with core.db.read() as session:
        if not outbox.has_due(session):
            return 0
        moment, rows = now(session), list(outbox.pending(session))
    sent, stuck = 0, set[str]()
    for row in _leave_out_overtaken(core, rows):
        if stopping():
            return 0
        if row.model in stuck:
            continue
        if row.next_try_at is not None and row.next_try_at <= moment and _deliver_one(core, row, holder):
            sent += 1
        else:
            stuck.add(row.model)
    return sent


def _leave_out_overtaken(core: Core, rows: list[OutboxRow]) -> list[OutboxRow]:
    """A tag that a later row sets anew is not sent: of a promotion quicker than MLflow only the last word counts."""
    kept, targets = list[OutboxRow](), set[tuple[str, str, str]]()
    overtaken = list[OutboxRow]()
    for row in reversed(rows):
        target = (row.model, row.arguments["version"], row.arguments.get("key", ""))
        again = row.operation == writeback.SET_TAG and target in targets
        (overtaken if again else kept).append(row)
        if row.operation == writeback.SET_TAG:
            targets.add(target)
    if overtaken:
        with core.db.begin() as session:
            for row in overtaken:
                outbox.leave_out(session, row.id)
    return kept[::-1]


def _deliver_one(core: Core, row: OutboxRow, holder: str) -> bool:
    try:
        written = _send(core, row)
    except Transient as error:
        # That MLflow is away is no reason to ever leave it with an old truth: this is tried until it is told.
        _put_off(core, row, holder, error.reason, AWAY_PAUSE, refused=False)
        return False
    except Exception as error:
        if not isinstance(error, HeadgateError):
            log.exception("outbox.defect", extra={"row": row.id})
        pause = backoff(row.attempts + 1) if row.attempts + 1 < MAX_REFUSALS else None
        _put_off(core, row, holder, str(error) or type(error).__name__, pause, refused=True)
        return False
    with core.db.begin() as session:
        held = _still_mine(session, row, holder)
        # Said again meanwhile, by one that was overtaken in the middle of an older word: then so do we.
        done = held and outbox.mark_done(session, row.id, row.next_try_at)
        if held:
            _note_own_write(session, row, written)
        if done:
            _tell(session, row, _OUTCOMES[written])
    _expect(held)
    return done


def _put_off(core: Core, row: OutboxRow, holder: str, reason: str, pause: timedelta | None, refused: bool) -> None:
    log.warning("outbox.failed", extra={"row": row.id, "operation": row.operation, "reason": reason})
    with core.db.begin() as session:
        held = _still_mine(session, row, holder)
        if held:
            outbox.mark_failed(session, row.id, reason, pause, refused)
        if held and pause is None:
            _tell(session, row, "failed")
    _expect(held)


def _tell(session: Session, row: OutboxRow, outcome: str) -> None:
    """Say in the audit trail how a write went that moves what stands in MLflow, as it was announced there."""
    if row.operation in writeback.MOVES:
        told = {"model": row.model, "operation": row.operation, **row.arguments}
        audit.append(session, f"registry.{outcome}", told)


def _still_mine(session: Session, row: OutboxRow, holder: str) -> bool:
    """Whether this sender was the only one while it sent `row`. If not, MLflow may have heard its word after a newer
    one of another sender: the newest about the same thing is said again. The words that take a request away need no
    repeating: they do nothing where it is gone, and what a person says again must stand."""
    if outbox.renew_lease(session, LEASE, holder, singly.LEASE):
        return True
    about = _ABOUT.get(row.operation)
    if about is not None:
        outbox.say_again(session, row, about)
    return False


def _expect(held: bool) -> None:
    # What this sender still has in memory may have been sent by another one, and newer words after it.
    if not held:
        raise LostLease("another worker sends what MLflow is to be told")


def _send(core: Core, row: OutboxRow) -> Written:
    model, arguments = row.model, row.arguments
    version = arguments["version"]
    match row.operation:
        case writeback.SET_MODEL_TAG:
            core.registry.set_model_tag(model, arguments["key"], arguments["value"])
        case writeback.SET_TAG:
            core.registry.set_version_tag(model, version, arguments["key"], arguments["value"])
        case writeback.DELETE_TAG if _stands(core, row):
            return core.registry.delete_version_tag(model, version, arguments["key"], arguments["value"])
        case writeback.SET_ALIAS:
            return core.registry.set_alias(model, arguments["alias"], version)
        case writeback.DELETE_ALIAS if _stands(core, row):
            return core.registry.delete_alias(model, arguments["alias"], version)
        case writeback.SET_STAGE:
            only_from = arguments.get("only_from")
            return core.registry.set_stage(model, version, arguments["stage"], archive=False, only_from=only_from)
    return Written.ALREADY


def _stands(core: Core, row: OutboxRow) -> bool:
    """Whether the mark that is to go stood when we last looked. If not, it is gone already, and whatever a person has
    put in its place since then is a request that nobody has seen yet."""
    with core.db.read() as session:
        view = registry.seen(session, row.model)
    return view is not None and _apply(view, row) != view


def _may_leave(arguments: dict[str, Any], present: str) -> bool:
    """Whether a stage write applies to a version that stands in `present`: its `only_from` names the stages."""
    return "only_from" not in arguments or present in arguments["only_from"]


def is_own(pending: list[OutboxRow], change: Change) -> bool:
    """Whether a change is what a write that is still on its way would produce."""
    return any(_produces(row, change) for row in pending)


def _produces(row: OutboxRow, change: Change) -> bool:
    """Whether this write turns `before` into `after`: of another version, or from another value, it is somebody's."""
    arguments = row.arguments
    version = arguments["version"]
    match row.operation:
        case writeback.SET_STAGE:
            moved = change.field == "stage" and (change.version, change.after) == (version, arguments["stage"])
            return moved and _may_leave(arguments, change.before or NO_STAGE)
        case writeback.SET_ALIAS:
            return change.field == f"alias:{arguments['alias']}" and change.after == version
        case writeback.DELETE_ALIAS:
            return change.field == f"alias:{arguments['alias']}" and (change.before, change.after) == (version, None)
        case writeback.DELETE_TAG:
            seen = (change.field, change.version, change.before, change.after)
            return seen == (f"tag:{arguments['key']}", version, arguments["value"], None)
    return False


def _note_own_write(session: Session, row: OutboxRow, written: Written) -> None:
    # What we wrote is what we have seen: the next reading then finds no difference, and whatever a person does
    # afterwards, even back to the old value, is a difference again.
    view, generation = registry.observed(session, row.model)
    if view is None or written is Written.NOT:
        return
    # MLflow has deleted whatever stood there by then, also what a reading has seen since our look.
    after = _apply(view, row, sure=written is Written.DONE)
    if after == view:
        return
    registry.store(session, row.model, after, generation)
    for change in diff(view, after):
        due = written is Written.DONE and event_of(change) is not None
        registry.add_change(session, change, OWN, due=due)


def _apply(view: ModelView, row: OutboxRow, *, sure: bool = False) -> ModelView:
    aliases, stages, asks = dict(view.aliases), dict(view.stages), dict(view.asks)
    arguments = row.arguments
    version = arguments["version"]
    match row.operation:
        case writeback.SET_ALIAS:
            aliases[arguments["alias"]] = version
        case writeback.DELETE_ALIAS if sure or aliases.get(arguments["alias"]) == version:
            aliases.pop(arguments["alias"], None)
        case writeback.DELETE_TAG if arguments["key"] == ASK_TAG and (sure or asks.get(version) == arguments["value"]):
            asks.pop(version, None)
        case writeback.SET_STAGE if _may_leave(arguments, stages.get(version, NO_STAGE)):
            stages[version] = arguments["stage"]
            if arguments["stage"] == NO_STAGE:
                del stages[version]
    return ModelView(view.name, aliases, stages, asks)
