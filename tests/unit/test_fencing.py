"""A worker that is held up until its lease is over, at the worst of places, changes nothing when it goes on."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from app.db import fences, releases
from app.db import promotions as rows
from app.db.models import Fence, Promotion
from app.db.session import Database, now
from app.domain.errors import LostLease, Transient
from app.domain.permissions import Caller
from app.domain.policy import Rollout, default_policy
from app.domain.retry import LIMITS, Kind
from app.ports import Endpoint, ReleaseSpec, Route, SandboxJob
from app.services import approvals, promotions
from app.services import releases as release_service
from examples.airbnb.stage import wait
from tests.fakes import quick
from tests.plant import FAST, MODEL, World
from workers.context import Context, load

PATIENCE = 30.0
REVIEWER = Caller("rita", "reviewer")
PRODUCTION = (MODEL, "production")


@pytest.fixture
def world(database: Database, tmp_path: Path) -> World:
    made = World(database, tmp_path)
    made.policies.known[MODEL] = quick(default_policy(MODEL), rollout=Rollout(soak=timedelta(0)))
    return made


def approve(world: World, promotion_id: int) -> None:
    approvals.decide(world.core, promotion_id, REVIEWER, "approve", world.show(promotion_id)["digest"], "good")


def go_live(world: World, version: str) -> int:
    promotion_id = world.ask(version)
    world.run(promotion_id)
    approve(world, promotion_id)
    assert world.run(promotion_id)["state"] == "LIVE"
    return promotion_id


def lapse(world: World, promotion_id: int) -> None:
    """Time passes for the lease, and for whatever the promotion waits for."""
    with world.database.begin() as session:
        late = {"lease_until": now(session) - timedelta(seconds=1), "next_run_at": now(session)}
        session.execute(update(Promotion).where(Promotion.id == promotion_id).values(late))


def overtake(world: World, promotion_id: int) -> None:
    """The lease lapses, and another worker takes the promotion as far as it goes."""
    lapse(world, promotion_id)
    world.worker("worker-2").advance(promotion_id)


def once(part: Any, method: str, meanwhile: Callable[[], None]) -> None:
    """Have something happen at the first call of a method, before it does its work."""
    works = getattr(part, method)

    def held_up(*arguments: Any) -> Any:
        setattr(part, method, works)
        meanwhile()
        return works(*arguments)

    setattr(part, method, held_up)


def name_of(world: World, promotion_id: int) -> str:
    name: str = world.show(promotion_id)["evidence"]["build"]["name"]
    return name


def crashes(world: World, promotion_id: int) -> int:
    with world.database.read() as session:
        return session.get_one(Promotion, promotion_id).crashes


def test_tokens_grow_over_all_promotions_of_a_model_and_environment(world: World) -> None:
    tokens = []
    for promotion_id in (go_live(world, "1"), go_live(world, "2"), world.ask("1"), world.ask("1", "staging")):
        with world.database.begin() as session:
            row = session.get_one(Promotion, promotion_id)
            tokens.append(fences.issue(session, row.model, row.environment))
    assert tokens[0] < tokens[1] < tokens[2]
    assert tokens[3] == 1


def test_a_stale_proof_does_not_stop_what_its_heir_serves_from(world: World) -> None:
    # Given a worker that is held up just before it stops what it has proved,
    promotion_id = world.ask("1")

    def meanwhile() -> None:
        overtake(world, promotion_id)
        approve(world, promotion_id)
        lapse(world, promotion_id)
        world.worker("worker-2").advance(promotion_id)
        assert world.show(promotion_id)["state"] == "LIVE"

    once(world.server, "stop", meanwhile)
    world.runner.advance(promotion_id)
    # then what another worker has started since, under the same name, still runs.
    assert world.server.names() == [name_of(world, promotion_id)]


def test_a_stale_start_does_not_bring_back_what_was_stopped(world: World) -> None:
    promotion_id = world.ask("1")

    def meanwhile() -> None:
        overtake(world, promotion_id)
        promotions.cancel(world.core, promotion_id, "", "ada")
        for _ in range(2):
            lapse(world, promotion_id)
            world.worker("worker-2").advance(promotion_id)
        assert world.show(promotion_id)["state"] == "CANCELLED"

    once(world.server, "start", meanwhile)
    world.runner.advance(promotion_id)
    assert world.server.names() == []
    assert world.server.starts == [name_of(world, promotion_id)]  # its heir's


def test_a_stale_move_of_traffic_is_refused_by_the_router_itself(world: World) -> None:
    # Given a worker that is held up after its last look at the lease, on its way to the router,
    first = go_live(world, "1")
    stable = world.router.routes[PRODUCTION].stable
    promotion_id = world.ask("2")
    world.run(promotion_id)
    approve(world, promotion_id)

    def meanwhile() -> None:
        promotions.cancel(world.core, promotion_id, "", "ada")
        overtake(world, promotion_id)

    once(world.router, "apply", meanwhile)
    world.runner.advance(promotion_id)
    # then the router tells what the other one told it.
    assert world.show(promotion_id)["state"] == "CANCELLED"
    assert (world.router.routes[PRODUCTION].stable, world.router.routes[PRODUCTION].canary) == (stable, None)
    assert name_of(world, first) in world.server.names()


def test_an_heir_that_moves_nothing_shuts_the_other_out_all_the_same(world: World) -> None:
    # Given a worker that is held up on its way to give the canary more traffic,
    go_live(world, "1")
    soak = Rollout(soak=timedelta(0), steps=(10, 50, 100))
    world.policies.known[MODEL] = quick(default_policy(MODEL), rollout=soak)
    promotion_id = world.ask("2")
    world.run(promotion_id)
    approve(world, promotion_id)
    weights: list[int] = []
    apply = world.router.apply

    def meanwhile(routes: list[Route], change: Route, fence: int) -> None:
        if change.weight == 50 and not weights:
            # when its heir only looks, and waits,
            weights.append(world.router.routes[PRODUCTION].weight)
            once(world.metrics, "sample", lambda: promotions_wait(world))
            lapse(world, promotion_id)
            heir = world.worker("worker-2")
            heir._timing = replace(heir._timing, tick=timedelta(hours=1))
            heir.advance(promotion_id)
        apply(routes, change, fence)

    world.router.apply = meanwhile  # type: ignore[method-assign]
    world.runner.advance(promotion_id)
    # then the canary has what it had.
    assert weights == [10]
    assert world.router.routes[PRODUCTION].weight == 10
    assert world.show(promotion_id)["progress"]["weight"] == 10


def promotions_wait(world: World) -> None:
    """From now on nobody calls the canary, so there is nothing to judge."""
    world.metrics.seen = replace(world.metrics.seen, requests=0)


def test_the_repair_of_a_server_that_took_too_long_moves_no_traffic(world: World) -> None:
    # Given a repair that is held up on its way to the router,
    first = go_live(world, "1")
    world.server.stop(name_of(world, first), None)
    later: list[int] = []
    once(world.router, "apply", lambda: later.append(go_live(world, "2")))
    release_service.tend(world.database, world.plant, "worker-1")
    # then traffic goes where a promotion has sent it meanwhile.
    (second,) = later
    route = world.router.routes[PRODUCTION]
    assert route.stable is not None
    assert route.stable.endpoint == world.server.running[name_of(world, second)]


def test_a_repair_keeps_away_from_traffic_that_a_worker_is_moving(world: World) -> None:
    # Given a rollout whose worker has told the router and not yet recorded it, and an old server that has died,
    first = go_live(world, "1")
    promotion_id = world.ask("2")
    world.run(promotion_id)
    approve(world, promotion_id)
    moves: list[Route] = []
    apply = world.router.apply

    def repair(routes: list[Route], change: Route, fence: int) -> None:
        apply(routes, change, fence)
        if change.canary is not None and not moves:
            moves.append(change)
            world.server.stop(name_of(world, first), None)
            release_service.tend(world.database, world.plant, "worker-2")
            moves.append(world.router.routes[PRODUCTION])

    world.router.apply = repair  # type: ignore[method-assign]
    world.runner.advance(promotion_id)
    # then the repair starts the server and leaves the route to the worker.
    assert moves[1].weight == moves[0].weight and moves[1].canary == moves[0].canary
    assert world.show(promotion_id)["state"] == "LIVE"


def test_a_stale_step_vouches_for_no_canary(world: World) -> None:
    # Given a rollout that one worker has claimed and another one has taken over,
    world.policies.known[MODEL] = quick(default_policy(MODEL), rollout=Rollout(soak=timedelta(hours=1)))
    world.runner._timing = replace(world.runner._timing, tick=timedelta(hours=1))
    promotion_id = world.ask("1")
    world.run(promotion_id)
    approve(world, promotion_id)
    world.run(promotion_id)
    contexts = [claimed(world, promotion_id, worker) for worker in ("worker-1", "worker-2")]
    with world.database.begin() as session:
        releases.renew_lease(session, promotion_id, now(session) - timedelta(seconds=1))
    # then only the second one can vouch for the canary.
    with pytest.raises(LostLease):
        contexts[0].vouch()
    assert not release_service.canary_lease_holds(world.database, *PRODUCTION)
    contexts[1].vouch()
    assert release_service.canary_lease_holds(world.database, *PRODUCTION)


def claimed(world: World, promotion_id: int, worker: str) -> Context:
    lapse(world, promotion_id)
    with world.database.begin() as session:
        found = rows.claim(session, promotion_id, worker, FAST.lease)
        assert found is not None
        return load(session, world.core, world.plant, FAST, *found)


def test_a_late_worker_that_lives_takes_its_crash_back(world: World) -> None:
    # Given a worker that is late again and again, because the database is slow and not because the step kills it,
    promotion_id = world.ask("1")
    counted: list[int] = []
    for turn in range(LIMITS[Kind.CRASH] + 2):
        once(world.server, "start", lambda: late(world, promotion_id, counted))
        lapse(world, promotion_id)
        world.worker(f"worker-{turn}").advance(promotion_id)
    # then each claim has counted a crash, none is left, and the promotion goes on.
    assert counted == [1] * len(counted) and len(counted) == LIMITS[Kind.CRASH] + 2
    assert crashes(world, promotion_id) == 0
    lapse(world, promotion_id)
    assert world.run(promotion_id)["state"] == "APPROVAL"


def late(world: World, promotion_id: int, counted: list[int]) -> None:
    """Another worker takes the promotion, finds its server away, and gives it back."""
    start = world.server.start

    def away(spec: ReleaseSpec, fence: int) -> Endpoint:
        counted.append(crashes(world, promotion_id))
        raise Transient("No room.", "Wait.")

    world.server.start = away  # type: ignore[method-assign]
    overtake(world, promotion_id)
    world.server.start = start  # type: ignore[method-assign]


def test_a_database_that_was_put_back_to_an_older_copy_catches_up_with_what_the_outside_has_seen(world: World) -> None:
    # Given servers and a router that have seen more than the database remembers,
    first = go_live(world, "1")
    world.router.seen[PRODUCTION] = 500
    world.server.seen[name_of(world, first)] = 300
    with world.database.begin() as session:
        session.execute(update(Fence).values(token=10))
    # when servers die and a version is asked for, then each is refused once, and works from then on.
    world.server.running.clear()
    for _ in range(3):
        release_service.tend(world.database, world.plant, "worker-1")
    assert name_of(world, first) in world.server.names()
    assert go_live(world, "2")


def test_work_in_progress_is_each_holders_own(world: World) -> None:
    # Given a worker that is held up in a conversion until its heir is in the middle of the same one,
    promotion_id = world.ask("1")
    heir_converts, late_one_ended = threading.Event(), threading.Event()
    conversions: list[Path] = []

    def before(job: SandboxJob) -> None:
        if job.program == "convert":
            conversions.append(job.output)
            if len(conversions) == 1:
                assert heir_converts.wait(PATIENCE)
            else:
                heir_converts.set()
                assert late_one_ended.wait(PATIENCE)

    world.sandbox.before = before
    with ThreadPoolExecutor() as pool:
        late = pool.submit(world.runner.advance, promotion_id)
        wait(lambda: bool(conversions), PATIENCE, "the first conversion")
        lapse(world, promotion_id)
        heir = pool.submit(world.worker("worker-2").advance, promotion_id)
        late.result(PATIENCE)
        late_one_ended.set()
        heir.result(PATIENCE)
    # then the heir's work is not taken from under it, and nothing is left of either.
    shown = world.show(promotion_id)
    assert (shown["state"], shown["last_error"]) == ("APPROVAL", "")
    assert len(set(conversions)) == len(conversions) == 2
    assert list((world.folder / "store" / "scratch").iterdir()) == []
