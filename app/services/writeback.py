"""What Headgate tells MLflow: which writes a transition causes. They are queued here and sent by services.outbox."""

from collections.abc import Collection, Mapping
from typing import Any

from sqlalchemy.orm import Session

from app.db import outbox, promotions, releases
from app.db.models import OutboxRow, Promotion
from app.domain.policy import EnvironmentPolicy, Triggers
from app.domain.promotion import ENDED, State
from app.domain.registry import ASK_TAG, NO_STAGE, Ask, Change

SET_TAG, DELETE_TAG, SET_ALIAS, DELETE_ALIAS, SET_STAGE = (
    "set_tag",
    "delete_tag",
    "set_alias",
    "delete_alias",
    "set_stage",
)
MAX_TAG = 1000


def announce(session: Session, row: Promotion, url: str) -> None:
    """A promotion was opened: the version carries its address from now on."""
    _tag(session, row, "headgate.promotion", url)
    _tag(session, row, "headgate.reason", "")
    _tag(session, row, "headgate.status", State.REQUESTED.label)


def keep_marks(session: Session, row: Promotion, policy: EnvironmentPolicy) -> None:
    """A promotion was opened: clean-up after an earlier one that is still unsent must not take its marks away, nor make
    somebody who takes them back look like us."""
    for unsent in outbox.pending(session, row.model):
        if unsent.arguments["version"] == row.version and _takes_mark_away(unsent, row, policy.triggers):
            outbox.mark_done(session, unsent.id)


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
    if state in ENDED:
        _take_requests_away(session, row, policy, state)
    if state is State.LIVE:
        _tell_live(session, row, policy)
    if reason or state is State.REQUESTED:  # a second try starts with a clean slate
        _tag(session, row, "headgate.reason", reason)
    if state is State.APPROVAL and row.digest:
        _tag(session, row, "headgate.digest", row.digest)
    _tag(session, row, "headgate.status", state.label)


def _tell_live(session: Session, row: Promotion, policy: EnvironmentPolicy) -> None:
    """The alias, and for the legacy UI the stage. A version has one stage but may serve in several environments:
    going live in staging does not take it, or the version before it, out of Production."""
    _add(session, row.model, SET_ALIAS, alias=row.environment, version=row.version)
    stage = policy.triggers.stage
    if stage is None:
        return
    lower = {"only_from": [NO_STAGE, "Archived"]} if stage == "Staging" else {}
    _add(session, row.model, SET_STAGE, version=row.version, stage=stage, **lower)
    before = releases.in_role(session, row.model, row.environment, releases.STABLE)
    if before is not None and before.version != row.version:
        _add(session, row.model, SET_STAGE, version=before.version, stage="Archived", only_from=[stage])


def refuse_repeat(session: Session, ask: Ask) -> None:
    """A version that serves already was asked for again: the request is taken away, and MLflow says why."""
    reason = f"version {ask.version} already serves in {ask.environment}; nothing was done"
    _add(session, ask.change.model, SET_TAG, version=ask.version, key="headgate.reason", value=reason)
    _take_mark_away(session, ask.change.model, ask.change.field, ask.version, ask.environment)


def refuse_environment(session: Session, change: Change, known: Collection[str]) -> str:
    """A version was marked for an environment that its policy does not have: MLflow says which ones there are."""
    reason = f"the policy has no environment {change.after!r}; it has: {', '.join(sorted(known))}"
    _add(session, change.model, SET_TAG, version=str(change.version), key="headgate.reason", value=reason[:MAX_TAG])
    return reason


def put_back(session: Session, change: Change, environment: str) -> str:
    """Somebody moved the alias of an environment: if a release serves there, MLflow is told the truth again."""
    serves = releases.in_role(session, change.model, environment, releases.STABLE)
    if serves is None or serves.version == change.after:
        return ""
    _add(session, change.model, SET_ALIAS, alias=environment, version=serves.version)
    return f"only Headgate moves this alias: it goes back to version {serves.version}, which serves"


def _take_mark_away(session: Session, model: str, field: str, version: str, environment: str) -> None:
    if field.startswith("alias:"):
        _add(session, model, DELETE_ALIAS, alias=field.removeprefix("alias:"), version=version)
    elif field == f"tag:{ASK_TAG}":
        _add(session, model, DELETE_TAG, version=version, key=ASK_TAG, value=environment)


def _take_requests_away(session: Session, row: Promotion, policy: EnvironmentPolicy, state: State) -> None:
    """The version has its answer, so all that asks for it in this environment goes: a mark that stayed would be no
    change when it is set again, and that request would be lost."""
    if any(waiting.version == row.version for waiting in promotions.waiting(session, row.model, row.environment)):
        return  # the version was asked for anew, and these marks belong to that promotion
    trigger: Mapping[str, Any] = row.trigger
    field = str(trigger.get("field", ""))
    for mark in sorted({f"alias:{policy.triggers.alias}", f"tag:{ASK_TAG}", field}):
        _take_mark_away(session, row.model, mark, row.version, row.environment)
    if field == "stage" and state is not State.LIVE:
        asked = str(trigger.get("after") or NO_STAGE)
        _add(
            session,
            row.model,
            SET_STAGE,
            version=row.version,
            stage=str(trigger.get("before") or NO_STAGE),
            only_from=[asked],
        )


def _tag(session: Session, row: Promotion, key: str, value: str) -> None:
    _add(session, row.model, SET_TAG, version=row.version, key=key, value=value[:MAX_TAG])


def _add(session: Session, model: str, operation: str, **arguments: str | list[str]) -> None:
    outbox.add(session, model, operation, arguments)
