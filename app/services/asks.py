"""What a change in MLflow means under the model's policy, and what is done about it: a promotion opened or stopped."""

import re

from sqlalchemy.orm import Session

from app.db import promotions
from app.domain.errors import Invalid
from app.domain.policy import EnvironmentPolicy, Policy, Triggers, default_policy
from app.domain.promotion import State
from app.domain.registry import ASK_TAG, Ask, Change, ModelView, Withdrawal, interpret
from app.parts import Core
from app.services import writeback
from app.services.promotions import open_promotion, stop

FIRST_LOOK = "first look at this registry: a stage set before is history, not a request"
_ENVIRONMENT = re.compile(r"[A-Za-z0-9_-]{1,200}")


def answer(
    session: Session, core: Core, change: Change, policy: Policy, trouble: str, known: bool, after: ModelView | None
) -> tuple[int | None, str]:
    """The promotion that a change opens, if it does, and a note where it asks for what cannot be. `after` is the model
    as it is now, None where it is gone; `known` False marks the first look at a registry."""
    _, ask = interpret(change, policy)
    if ask is not None and change.field == "stage" and not known:
        return None, FIRST_LOOK
    if ask is not None:
        return open_ask(session, core, policy, ask, trouble), ""
    if change.field == f"tag:{ASK_TAG}" and change.after is not None:
        return None, writeback.refuse_environment(session, change, policy.environments)
    kind, _, name = change.field.partition(":")
    if kind == "alias" and name in policy.environments and after is not None:
        return None, writeback.put_back(session, change, name, after.versions)
    return None, ""


def note_of_history(change: Change, policy: Policy, known: bool) -> str | None:
    """The note for a change of a model that is new to us and serves nowhere, if all that it wants is to be noted."""
    _, ask = interpret(change, policy)
    if ask is not None:
        return FIRST_LOOK if change.field == "stage" and not known else None
    return None if change.field == f"tag:{ASK_TAG}" else ""


def policy_for(core: Core, model: str, found: list[Change]) -> tuple[Policy, str]:
    """The policy that says what a change means. A malformed file is no reason to overlook a request: the default's
    triggers and any `to-<environment>` apply then, and what they open fails at once with the second value as reason."""
    try:
        return core.policies.policy(model), ""
    except Invalid as error:
        remedy = "Mend the file (`headgate policy check FILE`), then `headgate retry` or ask again in MLflow."
        default = default_policy(model)
        asked = {name: EnvironmentPolicy(Triggers(f"to-{name}")) for name in filter(None, map(_asked, found))}
        return Policy(model, {**asked, **default.environments}), f"The policy is malformed: {error} {remedy}"


def _asked(change: Change) -> str | None:
    """The environment that a change names by itself, whatever the policy says."""
    if change.field == f"tag:{ASK_TAG}":
        name = change.after or ""
    else:
        name = change.field.removeprefix("alias:to-") if change.field.startswith("alias:to-") else ""
    return name if _ENVIRONMENT.fullmatch(name) else None


def withdraw(session: Session, taken_back: Withdrawal) -> None:
    """Cancel what was asked for by the mark that is gone now."""
    for row in promotions.open_for(session, taken_back.change.model, taken_back.environment):
        if row.version == taken_back.version and row.trigger.get("field") == taken_back.change.field:
            stop(session, row, State.CANCELLED, "the request was taken back in MLflow", None)


def open_ask(session: Session, core: Core, policy: Policy, ask: Ask, trouble: str) -> int | None:
    """Open the promotion that is asked for, and end it at once where the policy is in `trouble`; None where the version
    is on its way or serves already."""
    trigger = {"field": ask.change.field, "before": ask.change.before, "after": ask.change.after}
    row = open_promotion(session, core, policy, (ask.version, ask.environment), trigger, None)
    if row is None:
        if not promotions.open_for(session, policy.model, ask.environment):
            writeback.refuse_repeat(session, ask)  # it serves already; a mark that stays would look like a request
        return None
    if trouble:
        stop(session, row, State.FAILED, trouble, None)
    return row.id
