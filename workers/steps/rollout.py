"""ROLLOUT: move traffic to the release in steps, watching its own answers, each look a short run of this step."""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from app.domain.approvals import CONTINUE, Verdict
from app.domain.approvals import Outcome as Answer
from app.domain.canary import Advance, AskHuman, Hold, Plan, RollBack, assess
from app.domain.digests import short
from app.domain.errors import Fault
from app.domain.promotion import Done, End, Outcome, State, Wait
from app.ports import Endpoint, Route, Server
from app.services.releases import spec_of
from workers.context import Context

MAX_HISTORY = 600
MOVE, AGAIN, COMPLETE, BACK = "move", "again", "complete", "back"


def run(context: Context) -> Outcome:
    """Start the release, then give it the policy's steps of traffic; roll back when a guardrail breaks."""
    context.vouch()
    if context.voided:
        return End(State.FAILED, context.voided)
    if context.verdict is None or not context.verdict.enough:
        return End(State.ROLLED_BACK, _no_longer(context.verdict))
    if "endpoint" not in context.progress:
        return _start(context)
    if context.progress["weight"] == 0:
        first = 100 if context.route.stable is None else context.policy.rollout.steps[0]
        return _move(context, first)
    return _look(context)


def undo(context: Context) -> None:
    """All traffic back to what was stable before."""
    try:
        context.plant.router.address(context.environment)
    except Fault:
        return  # the router has no such environment (any more), so no traffic either
    _apply(context, Route(context.model, context.environment, context.route.stable), BACK)


def _no_longer(verdict: Verdict | None) -> str:
    """Why what was approved is not any more; names are not told here, `headgate show` has them."""
    match verdict:
        case Verdict(outcome=Answer.EXPIRED):
            return "it was approved, but time ran out before any traffic was moved"
        case Verdict(outcome=Answer.DENIED):
            return "it was rejected"
        case Verdict(missing=missing):
            return f"it is no longer approved: {missing} of the approvals that it needs do not count any more"
    return "nothing says that it was approved"


def _start(context: Context) -> Outcome:
    build = context.step(State.BUILD)
    endpoint = context.plant.servers[build["target"]].start(spec_of(context.plant, build), context.fence)
    return Wait(timedelta(0), {"endpoint": vars(endpoint), "weight": 0, "history": []})


def _canary(context: Context) -> Server:
    digest = context.digest or ""
    return Server(f"{context.version}@{short(digest)}", Endpoint(**context.progress["endpoint"]))


def _apply(context: Context, route: Route, what: str) -> bool:
    """Have the router follow, told in the audit trail before and after; False where what allows a move has changed."""
    share = {MOVE: route.weight, AGAIN: route.weight, COMPLETE: 100, BACK: 0}[what]
    release = f"{context.version}@{short(context.digest or '')}"
    # To bring traffic back, or to where it is allowed to be already, needs nobody's word.
    moves = what in (MOVE, COMPLETE)
    effect = context.intend({"effect": what, "release": release, "weight": share}, moves)
    if effect is None:
        return False
    others = [r for r in context.routes if (r.model, r.environment) != (route.model, route.environment)]
    context.plant.router.apply([*others, route], route, context.fence)
    effect.done = True
    return True


def _frozen(context: Context) -> Outcome | None:
    """While nothing may be moved, the canary keeps the traffic that it has, and is watched."""
    cold = context.verdict.frozen if context.verdict is not None else None
    if cold is None:
        return None
    until = f"until {cold.until.isoformat()}" if cold.until is not None else "with no end in sight"
    note = f"stays at {context.progress['weight']} %, frozen {until}: {cold.reason}"
    return Wait(context.timing.tick, {**context.progress, "note": note, "question": None})


def _move(context: Context, weight: int) -> Outcome:
    """Give the canary `weight` percent from now on."""
    if (held := _frozen(context)) is not None:
        return held
    route = Route(context.model, context.environment, context.route.stable, _canary(context), weight)
    if not _apply(context, route, MOVE):
        return Wait(timedelta(0), context.progress)
    since = datetime.now(tz=context.now.tzinfo).isoformat()
    return Wait(context.timing.tick, {**context.progress, "weight": weight, "since": since, "question": None})


def _look(context: Context) -> Outcome:
    """Judge what the canary's clients got since the weight was set."""
    progress = context.progress
    build = context.step(State.BUILD)
    if context.plant.servers[build["target"]].find(build["name"]) is None:
        return End(State.ROLLED_BACK, f"the canary's server died at {progress['weight']} %")
    _ensure_routed(context)
    since = datetime.fromisoformat(progress["since"])
    alone = context.route.stable is None
    sample = context.plant.metrics.sample(context.model, context.environment, "canary", since.timestamp())
    plan = Plan(context.policy.rollout, progress["weight"], since, alone)
    seen = {"at": context.now.isoformat(), "weight": progress["weight"], **vars(sample)}
    history = [*progress["history"], seen][-MAX_HISTORY:]
    updated = replace(context, progress={**progress, "history": history})
    match assess(plan, sample, datetime.now(tz=since.tzinfo)):
        case Advance(None):
            return _complete(updated)
        case Advance(weight) if weight is not None:
            return _move(updated, weight)
        case RollBack(reason):
            return End(State.ROLLED_BACK, reason, {"history": history})
        case AskHuman(reason) if _told_to_continue(context):
            later = [step for step in context.policy.rollout.steps if step > progress["weight"]]
            return _move(updated, later[0]) if later else _complete(updated)
        case AskHuman(reason):
            return Wait(context.timing.tick, {**updated.progress, "question": reason})
        case Hold(reason):
            return Wait(context.timing.tick, {**updated.progress, "note": reason, "question": None})
    raise Fault("the rollout's assessment gave no move")


def _ensure_routed(context: Context) -> None:
    """A router that was restarted, or changed by a worker that died before it could say so, follows again. Where that
    worker may only have been stopped, the router is told in any case: from our token on it refuses the other's."""
    weight = context.progress["weight"]
    seen = context.plant.router.status(context.model, context.environment).weights.get("canary")
    if context.taken_over or seen != weight:
        route = Route(context.model, context.environment, context.route.stable, _canary(context), weight)
        _apply(context, route, AGAIN)


def _told_to_continue(context: Context) -> bool:
    """Whether a person has answered for just this release at just this weight."""
    stands = (CONTINUE, context.digest, context.progress["weight"])
    return any((d.decision, d.digest, d.weight) == stands and not d.revoked for d in context.decisions)


def _complete(context: Context) -> Outcome:
    """The canary has all traffic and kept its word: it becomes the stable release."""
    if (held := _frozen(context)) is not None:
        return held
    canary = _canary(context)
    if not _apply(context, Route(context.model, context.environment, canary), COMPLETE):
        return Wait(timedelta(0), context.progress)
    evidence: dict[str, Any] = {"history": context.progress["history"], "release": canary.release}
    return Done(evidence)
