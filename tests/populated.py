"""A world with promotions in many states, for tests that look at all of them."""

from dataclasses import replace
from datetime import timedelta

from app.db import promotions as rows
from app.domain.canary import Sample
from app.domain.errors import Invalid
from app.domain.permissions import Caller
from app.domain.policy import Approvals, Policy, Rollout, default_policy
from app.domain.promotion import State
from app.services import approvals, intake, promotions
from tests.fakes import quick
from tests.plant import World

REVIEWER = Caller("rita", "reviewer")


def populate(world: World) -> dict[State, int]:
    """One promotion of a model of its own in each of these states, by state: that of ROLLOUT asks people whether its
    canary may go on. Whoever is reviewer or admin may decide."""
    world.metrics.seen = Sample(0, 0, None)  # nobody calls the canary
    world.runner._timing = replace(world.runner._timing, tick=timedelta(hours=1))
    found = {State.LIVE: _decided(world, "live"), State.ROLLOUT: _asking(world, "rolls")}
    found[State.APPROVAL] = _open(world, "waits", "1")
    found[State.CANCELLED] = _open(world, "cancelled", "1")
    promotions.cancel(world.core, found[State.CANCELLED], "no", "rita")
    world.run(found[State.CANCELLED])
    found[State.FAILED] = _failed(world, "fails")
    found[State.REQUESTED] = _ask(world, "asked", "1")
    for state, number in found.items():
        assert world.show(number)["state"] == state, world.show(number)
    return found


def _policy(model: str, rollout: Rollout) -> Policy:
    anyone = Approvals(required=1, roles=("reviewer", "admin"), prevent_self_review=False)
    return quick(default_policy(model), approvals=anyone, rollout=rollout)


def _ask(world: World, model: str, version: str) -> int:
    world.policies.known.setdefault(model, _policy(model, Rollout(soak=timedelta(0))))
    artifacts = world.folder / "model-1"
    world.registry.register(model, version, artifacts)
    world.registry.change(model, aliases={"to-production": version})
    (number,) = intake.observe(world.core, model, intake.WEBHOOK)
    return number


def _open(world: World, model: str, version: str) -> int:
    number = _ask(world, model, version)
    assert world.run(number)["state"] == "APPROVAL"
    return number


def _decided(world: World, model: str, version: str = "1") -> int:
    number = _open(world, model, version)
    approvals.decide(world.core, number, REVIEWER, "approve", world.show(number)["digest"], "good")
    _look(world, number)
    return number


def _asking(world: World, model: str) -> int:
    _decided(world, model)
    world.policies.known[model] = _policy(model, Rollout(soak=timedelta(0), max_wait=timedelta(0)))
    number = _decided(world, model, "2")
    assert world.show(number)["progress"]["question"]
    return number


def _failed(world: World, model: str) -> int:
    world.policies.known[model] = Invalid("policy", "is malformed")
    number = _ask(world, model, "1")
    world.policies.known[model] = _policy(model, Rollout(soak=timedelta(0)))
    return number


def _look(world: World, number: int) -> None:
    for _ in range(3):
        with world.database.begin() as session:
            rows.wake(session, number)
        world.run(number)
