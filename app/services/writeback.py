"""What Headgate tells MLflow: which writes a transition causes. They are queued here and sent by services.outbox."""

import logging
from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import timedelta
from typing import Any

from sqlalchemy.orm import Session

from app.db import audit, outbox, promotions, registry, releases
from app.db.models import OutboxRow, Promotion
from app.db.session import now
from app.domain.policy import EnvironmentPolicy, Triggers
from app.domain.promotion import ENDED, State
from app.domain.registry import ASK_TAG, NO_STAGE, Ask, Change

log = logging.getLogger(__name__)
SET_MODEL_TAG, SET_TAG, DELETE_TAG, SET_ALIAS, DELETE_ALIAS, SET_STAGE = (
    "set_model_tag",
    "set_tag",
    "delete_tag",
    "set_alias",
    "delete_alias",
    "set_stage",
)
MOVES = (SET_ALIAS, DELETE_ALIAS, SET_STAGE)
MAX_TAG = 1000
Write = tuple[str, Mapping[str, Any]]
"""The operation and its arguments, as the outbox keeps them."""
PUT_BACK, MAX_PUT_BACK = "only Headgate moves this alias", 5


def announce(session: Session, row: Promotion, url: str) -> None:
    """A promotion was opened: the version carries its address from now on."""
    told = [("headgate.promotion", url), ("headgate.reason", ""), ("headgate.status", State.REQUESTED.label)]
    outbox.add(session, row.model, [_tag(row.version, key, value) for key, value in told])


def keep_marks(session: Session, row: Promotion, policy: EnvironmentPolicy) -> None:
    """A promotion was opened: clean-up after an earlier one that is still unsent must not take its marks away, nor make
    somebody who takes them back look like us."""
    for unsent in outbox.pending(session, row.model):
        if unsent.arguments["version"] == row.version and _takes_mark_away(unsent, row, policy.triggers):
            outbox.leave_out(session, unsent.id)


def _takes_mark_away(unsent: OutboxRow, row: Promotion, triggers: Triggers) -> bool:
    match unsent.operation:
        case "delete_alias":
            return bool(unsent.arguments["alias"] == triggers.alias)
        case "delete_tag":
            return bool(unsent.arguments["value"] == row.environment)
        case "set_stage":
            return row.trigger.get("field") == "stage" and triggers.stage in unsent.arguments.get("only_from", ())
    return False


def tell(session: Session, row: Promotion, policy: EnvironmentPolicy, state: State, reason: str) -> None:
    """A promotion has entered `state`: status and reason on the version; at the end the request is taken away.

    The request goes first: MLflow can delete an alias only whatever it points to, so a person who reads the end and
    asks for the next version must not find us still deleting. The status comes last: whoever sees it finds what
    explains it already there.
    """
    _queue(session, row.model, _words(session, row, policy, state, reason), row.id)


def _queue(session: Session, model: str, writes: Iterable[Write], promotion: int | None = None) -> None:
    """Queue writes, and announce in the audit trail those that move what stands in MLflow; services.outbox says there
    how they went."""
    queued = list(writes)
    outbox.add(session, model, queued)
    moves = [{"operation": operation, **arguments} for operation, arguments in queued if operation in MOVES]
    if moves:
        whose = {"promotion": promotion} if promotion is not None else {}
        audit.append(session, "registry.intended", {**whose, "model": model, "writes": moves})


def _words(session: Session, row: Promotion, policy: EnvironmentPolicy, state: State, reason: str) -> Iterator[Write]:
    if state in ENDED:
        yield from _requests_away(session, row, policy, state)
    if state is State.LIVE:
        yield from _live(session, row, policy)
    if reason or state is State.REQUESTED:  # a second try starts with a clean slate
        yield _tag(row.version, "headgate.reason", reason)
    if state is State.APPROVAL and row.digest:
        yield _tag(row.version, "headgate.digest", row.digest)
    yield _tag(row.version, "headgate.status", state.label)


def _live(session: Session, row: Promotion, policy: EnvironmentPolicy) -> Iterator[Write]:
    """The alias, and for the legacy UI the stage. A version has one stage but may serve in several environments:
    going live in staging does not take it, or the version before it, out of Production."""
    yield SET_ALIAS, {"alias": row.environment, "version": row.version}
    stage = policy.triggers.stage
    if stage is None:
        return
    lower = {"only_from": [NO_STAGE, "Archived"]} if stage == "Staging" else {}
    yield SET_STAGE, {"version": row.version, "stage": stage, **lower}
    before = releases.in_role(session, row.model, row.environment, releases.STABLE)
    if before is not None and before.version != row.version:
        yield SET_STAGE, {"version": before.version, "stage": "Archived", "only_from": [stage]}


def tell_break_glass(session: Session, row: Promotion, told: str) -> None:
    """Somebody asked for the emergency way: whoever looks at the version in MLflow sees it, for good."""
    words = f"promotion {row.id} to {row.environment}: {told}"
    outbox.add(session, row.model, [_tag(row.version, "headgate.break-glass", words)])


def refuse_repeat(session: Session, ask: Ask) -> None:
    """A version that serves already was asked for again: the request is taken away, and MLflow says why."""
    reason = f"version {ask.version} already serves in {ask.environment}; nothing was done"
    away = _mark_away(ask.change.field, ask.version, ask.environment)
    _queue(session, ask.change.model, [_tag(ask.version, "headgate.reason", reason), *away])


def refuse_environment(session: Session, change: Change, known: Collection[str]) -> str:
    """A version was marked for an environment that its policy does not have: MLflow says which ones there are."""
    reason = f"the policy has no environment {change.after!r}; it has: {', '.join(sorted(known))}"
    outbox.add(session, change.model, [_tag(str(change.version), "headgate.reason", reason)])
    return reason


def put_back(session: Session, change: Change, environment: str, versions: Collection[str]) -> str:
    """Somebody moved the alias of an environment: if a release serves there, MLflow is told the truth again; `versions`
    are those that MLflow still has. Somebody who goes on moving it, such as a second Headgate, wins for the hour: two
    programs that correct each other would never end."""
    serves = releases.in_role(session, change.model, environment, releases.STABLE)
    if serves is None or serves.version == change.after:
        return ""
    if serves.version not in versions:
        return f"version {serves.version} serves and is gone from MLflow: the alias cannot go back to it"
    hour_ago = now(session) - timedelta(hours=1)
    if registry.count_noted(session, change.model, change.field, PUT_BACK, hour_ago) >= MAX_PUT_BACK:
        log.warning("writeback.contested", extra={"model": change.model, "alias": environment})
        return f"left so: it was put back {MAX_PUT_BACK} times within the hour, and somebody goes on moving it"
    _queue(session, change.model, [(SET_ALIAS, {"alias": environment, "version": serves.version})])
    return f"{PUT_BACK}: it goes back to version {serves.version}, which serves"


def _mark_away(field: str, version: str, environment: str) -> Iterator[Write]:
    if field.startswith("alias:"):
        yield DELETE_ALIAS, {"alias": field.removeprefix("alias:"), "version": version}
    elif field == f"tag:{ASK_TAG}":
        yield DELETE_TAG, {"version": version, "key": ASK_TAG, "value": environment}


def _requests_away(session: Session, row: Promotion, policy: EnvironmentPolicy, state: State) -> Iterator[Write]:
    """The version has its answer, so all that asks for it in this environment goes: a mark that stayed would be no
    change when it is set again, and that request would be lost."""
    if any(waiting.version == row.version for waiting in promotions.waiting(session, row.model, row.environment)):
        return  # the version was asked for anew, and these marks belong to that promotion
    trigger: Mapping[str, Any] = row.trigger
    field = str(trigger.get("field", ""))
    for mark in sorted({f"alias:{policy.triggers.alias}", f"tag:{ASK_TAG}", field}):
        yield from _mark_away(mark, row.version, row.environment)
    if field == "stage" and state is not State.LIVE:
        back, asked = str(trigger.get("before") or NO_STAGE), str(trigger.get("after") or NO_STAGE)
        yield SET_STAGE, {"version": row.version, "stage": back, "only_from": [asked]}


def _tag(version: str, key: str, value: str) -> Write:
    return SET_TAG, {"version": version, "key": key, "value": value[:MAX_TAG]}
