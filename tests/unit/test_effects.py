"""What moves traffic is announced before and told after, allowed at that very moment, and true when a process dies."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from app.db import promotions as rows
from app.db.models import Promotion
from app.db.session import Database
from app.domain.approvals import Verdict
from app.domain.canary import Sample
from app.domain.errors import Transient
from app.domain.freeze import Frozen
from app.domain.permissions import Caller
from app.domain.policy import Rollout, default_policy
from app.domain.promotion import Wait
from app.ports import Route
from app.services import approvals, history, outbox, trail
from tests.fakes import quick
from tests.plant import FAST, MODEL, World
from workers.context import Context, load
from workers.steps import rollout

RITA = Caller("rita", "reviewer")
TOLD = ("effect.intended", "effect.done", "effect.failed", "canary.weight")


class Killed(BaseException):
    """Stands for kill -9: nothing after it runs."""


@pytest.fixture
def world(database: Database, tmp_path: Path) -> World:
    made = World(database, tmp_path)
    steps = Rollout(steps=(10, 100), soak=timedelta(0))
    made.policies.known[MODEL] = quick(default_policy(MODEL), rollout=steps)
    return made


def approved(world: World, version: str) -> int:
    number = world.ask(version)
    approvals.decide(world.core, number, RITA, "approve", world.run(number)["digest"], "good")
    return number


def live(world: World, version: str) -> None:
    assert world.run(approved(world, version))["state"] == "LIVE"


def effects(world: World, number: int) -> list[tuple[str, int]]:
    leaves = [leaf for leaf in trail.page(world.database, 0, 1000) if leaf["body"].get("promotion") == number]
    return [(leaf["kind"], leaf["body"]["weight"]) for leaf in leaves if leaf["kind"] in TOLD]


def serving(world: World) -> list[tuple[str, str, int, int | None]]:
    """Version, role and weight of what the trail says, and the weight that is not known to have been set."""
    found = history.at_a_time(world.database, MODEL, "production", datetime.now(UTC))
    return [(r["version"], r["role"], r["weight"], r["intended"] and r["intended"]["weight"]) for r in found]


def on_apply(world: World, act: Callable[[Route], None]) -> None:
    """Do something to the router's next change, before it is carried out."""
    apply = world.router.apply

    def once(routes: list[Route], change: Route, fence: int) -> None:
        world.router.apply = apply  # type: ignore[method-assign]
        act(change)
        apply(routes, change, fence)

    world.router.apply = once  # type: ignore[method-assign]


def slow_down(world: World) -> None:
    """From now on the worker looks at a canary once, and not again at once."""
    world.runner._timing = replace(world.runner._timing, tick=timedelta(hours=1))


def take_over(world: World, number: int) -> dict[str, Any]:
    """Another worker goes on after the lease of the first has run out."""
    with world.database.begin() as session:
        row = session.get_one(Promotion, number)
        row.lease_until = row.created_at - timedelta(hours=1)
        rows.wake(session, number)
    world.runner = world.worker("worker-2")
    slow_down(world)
    return world.run(number)


def test_every_move_is_announced_and_told(world: World) -> None:
    live(world, "1")
    number = approved(world, "2")
    assert world.run(number)["state"] == "LIVE"
    said = [("effect.intended", "effect.done", "canary.weight"), ("effect.intended", "effect.done")]
    assert effects(world, number) == [
        *((kind, 10) for kind in said[0]),
        *((kind, 100) for kind in said[0]),
        *((kind, 100) for kind in said[1]),
    ]
    leaves = {leaf["seq"]: leaf for leaf in trail.page(world.database, 0, 1000)}
    for leaf in leaves.values():
        if leaf["kind"] == "effect.done":
            assert leaves[leaf["body"]["intended"]]["kind"] == "effect.intended"


def test_bringing_traffic_back_is_announced_and_told(world: World) -> None:
    live(world, "1")
    world.metrics.seen = Sample(100, 50, 2.0)
    number = approved(world, "2")
    assert world.run(number)["state"] == "ROLLED_BACK"
    assert effects(world, number)[-2:] == [("effect.intended", 0), ("effect.done", 0)]
    assert serving(world) == [("1", "stable", 100, None)]


def test_a_worker_that_dies_in_the_middle_of_a_move_leaves_the_doubt_in_the_trail(world: World) -> None:
    live(world, "1")
    number = approved(world, "2")

    def die(_change: Route) -> None:
        raise Killed

    on_apply(world, die)
    with pytest.raises(Killed):
        world.run(number)
    # Nobody knows whether the router was told: the trail says both.
    assert serving(world) == [("1", "stable", 100, None), ("2", "canary", 0, 10)]
    world.metrics.seen = Sample(0, 0, None)
    shown = take_over(world, number)
    assert shown["state"] == "ROLLOUT"
    assert serving(world) == [("1", "stable", 90, None), ("2", "canary", 10, None)]
    assert trail.verify(world.database).verified


def test_a_router_that_fails_leaves_the_doubt_until_it_obeys(world: World) -> None:
    live(world, "1")
    number = approved(world, "2")

    def fail(_change: Route) -> None:
        raise Transient("HAProxy does not answer.", "Start it.")

    on_apply(world, fail)
    assert world.run(number)["last_error"]
    assert effects(world, number) == [("effect.intended", 10), ("effect.failed", 10)]
    assert serving(world) == [("1", "stable", 100, None), ("2", "canary", 0, 10)]


def looked(world: World, number: int) -> Context:
    """What a worker sees that has just claimed the promotion."""
    with world.database.begin() as session:
        rows.wake(session, number)
        claimed = rows.claim(session, number, "worker-3", FAST.lease)
    assert claimed is not None
    with world.database.read() as session:
        return load(session, world.core, world.plant, FAST, *claimed)


def in_canary(world: World) -> int:
    """Version 2 with 10 % of the traffic, and due to get more."""
    live(world, "1")
    number = approved(world, "2")
    slow_down(world)
    assert world.run(number)["progress"]["weight"] == 10
    return number


def test_an_approval_that_is_taken_back_after_the_look_stops_the_move(world: World) -> None:
    number = in_canary(world)
    context = looked(world, number)
    approvals.revoke(world.core, number, RITA, "I was wrong")
    moves = len(world.router.history)
    found = rollout.run(context)
    assert isinstance(found, Wait) and (found.delay, found.progress["weight"]) == (timedelta(0), 10)
    assert len(world.router.history) == moves
    assert take_over(world, number)["state"] == "ROLLED_BACK"


@pytest.mark.parametrize("until", [datetime(2027, 1, 2, tzinfo=UTC), None])
def test_a_freeze_that_begins_in_mid_rollout_keeps_the_weight(world: World, until: datetime | None) -> None:
    context = looked(world, in_canary(world))
    frozen = replace(held(context), frozen=Frozen("the holidays", until))
    moves = len(world.router.history)
    found = rollout.run(replace(context, verdict=frozen))
    assert isinstance(found, Wait) and found.progress["weight"] == 10
    assert found.progress["note"].startswith("stays at 10 %, frozen")
    assert len(world.router.history) == moves


def test_a_canary_is_watched_while_it_is_frozen(world: World) -> None:
    context = looked(world, in_canary(world))
    world.metrics.seen = Sample(100, 50, 2.0)
    frozen = replace(held(context), frozen=Frozen("the holidays", None))
    assert "50 of 100 requests failed" in str(rollout.run(replace(context, verdict=frozen)))


def held(context: Context) -> Verdict:
    assert context.verdict is not None and context.verdict.enough
    return context.verdict


def test_what_moves_in_mlflow_is_announced_and_its_outcome_told(world: World) -> None:
    live(world, "1")
    leaves = trail.page(world.database, 0, 1000)
    intended = [
        (leaf["seq"], write)
        for leaf in leaves
        if leaf["kind"] == "registry.intended"
        for write in leaf["body"]["writes"]
    ]
    done = [(leaf["seq"], leaf["body"]) for leaf in leaves if leaf["kind"] == "registry.done"]
    moved = {"operation": "set_alias", "alias": "production", "version": "1"}
    (at,) = [seq for seq, write in intended if write == moved]
    (later,) = [seq for seq, body in done if body == {"model": MODEL, **moved}]
    assert at < later
    assert len(intended) == len(done)  # the request is taken away, and both are told


def test_a_move_in_mlflow_that_came_too_late_is_told_as_left(world: World) -> None:
    number = approved(world, "1")
    for _ in range(2):
        world.runner.advance(number)
    assert world.show(number)["state"] == "LIVE"
    del world.registry.versions[(MODEL, "1")]  # somebody deletes the version before MLflow is told
    outbox.deliver(world.core, "worker-1")
    told = {leaf["kind"]: leaf["body"] for leaf in trail.page(world.database, 0, 1000) if "alias" in leaf["body"]}
    assert told["registry.left"] == {"model": MODEL, "operation": "set_alias", "alias": "production", "version": "1"}
