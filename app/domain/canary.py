"""Deciding on a canary: what its own traffic looked like in, the next move out. Pure: `now` is an argument."""

from dataclasses import dataclass
from datetime import datetime

from app.domain.policy import Rollout


@dataclass(frozen=True)
class Sample:
    """What the router saw of one server since the step began. `p99_ms` is None without requests."""

    requests: int
    failed: int
    p99_ms: float | None

    @property
    def error_rate(self) -> float:
        return self.failed / self.requests if self.requests else 0.0


@dataclass(frozen=True)
class Plan:
    """Where the rollout stands: `weight` percent since `since`; `alone` when no other version takes traffic."""

    rollout: Rollout
    weight: int
    since: datetime
    alone: bool = False


@dataclass(frozen=True)
class Advance:
    """Go to `weight` percent; 100 reached and soaked is `weight` None: the rollout is complete."""

    weight: int | None


@dataclass(frozen=True)
class Hold:
    """Stay and look again; `reason` is shown to whoever watches."""

    reason: str


@dataclass(frozen=True)
class RollBack:
    """Take all traffic from the canary now."""

    reason: str


@dataclass(frozen=True)
class AskHuman:
    """The soak is long over and too few requests came to judge: a person decides."""

    reason: str


Move = Advance | Hold | RollBack | AskHuman


def assess(plan: Plan, canary: Sample, now: datetime) -> Move:
    """Judge one look at the canary.

    A guardrail is judged as soon as there are `min_requests`; the step goes on when the soak is over as well. A first
    release has no other version to fall back on and nobody may be calling yet: it advances on its soak alone.
    """
    rails = plan.rollout.guardrails
    enough = canary.requests >= rails.min_requests
    if enough and canary.error_rate > rails.error_rate:
        share = f"{canary.failed} of {canary.requests} requests failed at {plan.weight} %"
        return RollBack(f"error rate {canary.error_rate:.1%} is above {rails.error_rate:.1%}: {share}")
    if enough and canary.p99_ms is not None and canary.p99_ms > rails.p99_ms:
        return RollBack(f"p99 {canary.p99_ms:.1f} ms is above {rails.p99_ms:g} ms at {plan.weight} %")
    watched = now - plan.since
    if watched < plan.rollout.soak:
        return Hold(f"soaking at {plan.weight} % for {plan.rollout.soak.total_seconds():g} s")
    if enough or plan.alone:
        return Advance(_after(plan))
    if watched >= plan.rollout.max_wait:
        return AskHuman(f"only {canary.requests} of {rails.min_requests} requests came at {plan.weight} %")
    return Hold(f"waiting for {rails.min_requests} requests at {plan.weight} % ({canary.requests} so far)")


def _after(plan: Plan) -> int | None:
    return next((step for step in plan.rollout.steps if step > plan.weight), None)
