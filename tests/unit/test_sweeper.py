"""What is late is run without any message; nothing is run twice, and no worker takes more than it has threads for."""

import itertools
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from celery import Celery
from sqlalchemy import update

from app.adapters.celery_queue import make_app
from app.db.models import Promotion
from app.db.promotions import claim, wake, wake_waiting
from app.db.session import Database, now
from app.domain.errors import Transient
from app.domain.policy import Rollout, default_policy
from app.services import promotions
from tests.fakes import quick
from tests.plant import FAST, MODEL, World
from workers import owner
from workers.runner import Runner
from workers.sweeper import UPKEEP, Late, Sweeper, choose
from workers.tasks import Desk, register

NOTHING: frozenset[int | str] = frozenset()


def test_the_longest_overdue_get_the_free_threads() -> None:
    assert choose(Late([7, 3, 9]), NOTHING, 2) == [7, 3]


@pytest.mark.parametrize("free", [0, -3])
def test_without_a_free_thread_no_promotion_is_run_but_the_chores_are(free: int) -> None:
    assert choose(Late([7], chores=frozenset(UPKEEP)), NOTHING, free) == list(UPKEEP)


def test_what_runs_already_is_not_started_again() -> None:
    assert choose(Late([7, 3], chores=frozenset({"deliver", "poll"})), frozenset({7, "poll"}), 2) == ["deliver", 3]


@pytest.fixture
def world(database: Database, tmp_path: Path) -> World:
    made = World(database, tmp_path)
    rollout = Rollout(soak=timedelta(0))
    made.policies.known[MODEL] = quick(default_policy(MODEL), "staging", rollout=rollout)
    return made


def desk(world: World, stopping: Callable[[], bool] = lambda: False, name: str = "worker-1") -> Desk:
    runner = Runner(world.core, world.plant, FAST, name, stopping)
    return Desk(world.core, world.plant, runner, name, ("http://headgate/webhooks/mlflow", "secret"), 1, stopping)


class Stop(threading.Event):
    """What ends sweepers and waits for their end: a thread that outlives its test would open connections for nobody."""

    def __init__(self) -> None:
        super().__init__()
        self.sweepers: list[Sweeper] = []


@pytest.fixture
def stop(world: World) -> Iterator[Stop]:  # the world, and its database, end after what works in it
    event = Stop()
    yield event
    event.set()
    for each in event.sweepers:
        each.join()


def sweeper(world: World, stop: Stop, busy: int = 0, away: int = 0) -> Sweeper:
    """A worker's sweeper, for which the database is `away` that many times."""
    at_work, looks = desk(world, stop.is_set), itertools.count()

    def found() -> Desk:
        if next(looks) < away:
            raise Transient("The database did not answer.")
        return at_work

    stop.sweepers.append(Sweeper(found, 2, lambda: busy, stop))
    return stop.sweepers[-1]


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def ask(world: World) -> int:
    """A promotion that has been due for long."""
    row = promotions.request(world.core, MODEL, "1", "staging", "", "ada")
    with world.database.begin() as session:
        session.execute(update(Promotion).values(next_run_at=now(session) - timedelta(minutes=1)))
    return row.id


def stored(world: World, promotion_id: int) -> Promotion:
    with world.database.read() as session:
        return session.get_one(Promotion, promotion_id)


def test_with_every_message_lost_a_request_in_mlflow_goes_live_and_mlflow_is_told(world: World, stop: Stop) -> None:
    world.registry.change(MODEL, aliases={"to-staging": "1"})
    sweeper(world, stop).start()
    until(lambda: world.registry.models[MODEL].aliases.get("staging") == "1")
    assert world.show(1)["state"] == "LIVE"


def test_a_database_that_is_away_for_a_while_ends_no_sweeper(world: World, stop: Stop) -> None:
    promotion_id = ask(world)
    sweeper(world, stop, away=2).start()
    until(lambda: world.show(promotion_id)["state"] == "LIVE")


def test_a_worker_whose_threads_are_busy_leaves_promotions_to_others(world: World, stop: Stop) -> None:
    # Given a worker that runs as many steps as it may, when something is late,
    promotion_id = ask(world)
    for _ in range(3):
        sweeper(world, stop, busy=2).look()
    # then another worker can still take it.
    assert stored(world, promotion_id).lease_epoch == 0
    sweeper(world, stop).look()
    until(lambda: world.show(promotion_id)["state"] == "LIVE")


def test_what_is_woken_again_and_again_is_late_all_the_same(world: World, stop: Stop) -> None:
    # Given something that is long due, when somebody wakes it without end,
    promotion_id = ask(world)

    def live() -> bool:
        with world.database.begin() as session:
            wake(session, promotion_id)
            wake_waiting(session, MODEL, "staging")
        return bool(world.show(promotion_id)["state"] == "LIVE")

    # then it is run, although no message comes.
    sweeper(world, stop).start()
    until(live)


def test_a_worker_that_is_told_to_stop_ends_its_step_and_another_one_goes_on(world: World) -> None:
    promotion_id = ask(world)
    told = iter([False, True])
    desk(world, lambda: next(told)).runner.advance(promotion_id)
    assert [step["state"] for step in world.show(promotion_id)["steps"]] == ["REQUESTED", "SNAPSHOT"]
    desk(world, name="worker-2").runner.advance(promotion_id)
    states = [step["state"] for step in world.show(promotion_id)["steps"]]
    assert states[-1] == "LIVE" and len(states) == len(set(states))


def test_what_a_stopped_worker_left_in_the_middle_counts_as_no_crash_of_the_step(world: World) -> None:
    # Given a worker that ends at its deadline with a step in its hands,
    promotion_id, at_work = ask(world), desk(world)
    with world.database.begin() as session:
        claimed = claim(session, promotion_id, at_work.owner, timedelta(0))
        assert claimed is not None
    at_work.give_back()
    # when another one takes the step up, then it does not take it for deadly.
    with world.database.begin() as session:
        again = claim(session, promotion_id, "worker-2", timedelta(0))
        assert again is not None and again[0].crashes == 0


def test_a_state_of_a_newer_version_is_left_to_newer_workers(world: World, stop: Stop) -> None:
    promotion_id = ask(world)
    with world.database.begin() as session:
        session.execute(update(Promotion).values(state="SHADOW"))
    old = desk(world)
    old.sweep()
    old.runner.advance(promotion_id)
    sweeper(world, stop).look()
    assert world.queue.advanced == [promotion_id]  # by the request, while it was still REQUESTED
    row = stored(world, promotion_id)
    assert (row.state, row.lease_epoch, row.crashes) == ("SHADOW", 0, 0)
    assert world.show(promotion_id)["state"] == "SHADOW"


@pytest.fixture
def celery(world: World, tmp_path: Path) -> Celery:
    app = make_app("", str(tmp_path))
    register(app, lambda: desk(world))
    return app


def test_a_message_of_a_newer_sender_may_say_more(world: World, celery: Celery) -> None:
    promotion_id = ask(world)
    celery.tasks["headgate.advance"](promotion_id, "because", priority=3)
    assert world.show(promotion_id)["state"] == "LIVE"


def test_a_message_may_name_what_it_says(world: World, celery: Celery) -> None:
    promotion_id = ask(world)
    celery.tasks["headgate.advance"](promotion_id=promotion_id)
    assert world.show(promotion_id)["state"] == "LIVE"


def test_a_message_that_says_too_little_is_dropped(
    world: World, celery: Celery, caplog: pytest.LogCaptureFixture
) -> None:
    celery.tasks["headgate.observe"]()
    assert [record.message for record in caplog.records if record.levelname == "WARNING"] == ["task.says_too_little"]


def test_what_a_killed_process_of_this_machine_held_goes_on_at_once(world: World, stop: Stop) -> None:
    # Given a promotion that a process has claimed for an hour before it was killed, and one that a living one has,
    killed = subprocess.run(
        [sys.executable, "-c", "from workers import owner; print(owner.here())"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    left, held = world.ask("1", "staging"), world.ask("1")
    for promotion_id, holder in ((left, killed), (held, owner.here())):
        with world.database.begin() as session:
            assert claim(session, promotion_id, holder, timedelta(hours=1)) is not None
    make_late(world)
    # when a worker of this machine looks, then it takes the first one, and leaves the other one alone.
    sweeper(world, stop).look()
    until(lambda: world.show(left)["state"] == "LIVE")
    assert world.show(held)["state"] == "REQUESTED"


def make_late(world: World) -> None:
    with world.database.begin() as session:
        session.execute(update(Promotion).values(next_run_at=now(session) - timedelta(minutes=1)))
