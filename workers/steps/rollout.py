"""ROLLOUT: move traffic to the release in steps, watching its own answers, each look a short run of this step."""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from app.domain.canary import Advance, AskHuman, Hold, Plan, RollBack, assess
from app.domain.digests import short
from app.domain.errors import Fault
from app.domain.promotion import Done, End, Outcome, State, Wait
from app.ports import Endpoint, Route, Server
from app.services.releases import spec_of
from workers.context import Context

MAX_HISTORY = 600


def run(context: Context) -> Outcome:
    """Start the release, then give it the policy's steps of traffic; roll back when a guardrail breaks."""
    context.vouch()
    if context.digest != context.digest_now:
        return End(State.FAILED, "what was approved no longer matches what was recorded; no traffic was moved")
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
    _apply(context, Route(context.model, context.environment, context.route.stable))


def _start(context: Context) -> Outcome:
    build = context.step(State.BUILD)
    endpoint = context.plant.servers[build["target"]].start(spec_of(context.plant, build), context.fence)
    return Wait(timedelta(0), {"endpoint": vars(endpoint), "weight": 0, "history": []})


def _canary(context: Context) -> Server:
    digest = context.digest or ""
    return Server(f"{context.version}@{short(digest)}", Endpoint(**context.progress["endpoint"]))


def _apply(context: Context, route: Route) -> None:
    context.hold()
    others = [r for r in context.routes if (r.model, r.environment) != (route.model, route.environment)]
    context.plant.router.apply([*others, route], route, context.fence)


def _move(context: Context, weight: int) -> Outcome:
    """Give the canary `weight` percent from now on."""
    route = Route(context.model, context.environment, context.route.stable, _canary(context), weight)
    _apply(context, route)
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
        _apply(context, Route(context.model, context.environment, context.route.stable, _canary(context), weight))


def _told_to_continue(context: Context) -> bool:
    """Whether a person has answered for just this release at just this weight."""
    stands = ("continue", context.digest, context.progress["weight"])
    return any((d.decision, d.digest, d.weight) == stands for d in context.decisions)


def _complete(context: Context) -> Outcome:
    """The canary has all traffic and kept its word: it becomes the stable release."""
    canary = _canary(context)
    _apply(context, Route(context.model, context.environment, canary))
    evidence: dict[str, Any] = {"history": context.progress["history"], "release": canary.release}
    return Done(evidence)
