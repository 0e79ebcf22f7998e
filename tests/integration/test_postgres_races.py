"""Two transactions that meet on PostgreSQL: they wait for each other in one order, and readers see one moment."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import text

from app.db import audit
from app.db.migrate import upgrade
from app.db.models import AuditHead
from app.db.session import Database
from app.domain.policy import Approvals, default_policy
from app.services import intake, promotions, trail
from tests.fakes import quick
from tests.plant import MODEL, World
from tests.services import Postgres, postgres

PATIENCE = 30.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    with postgres(tmp_path_factory.mktemp("postgres")) as running:
        yield running


@pytest.fixture
def world(server: Postgres, tmp_path: Path) -> Iterator[World]:
    url = server.fresh()
    upgrade(url)
    database = Database(url)
    made = World(database, tmp_path)
    made.policies.known[MODEL] = quick(default_policy(MODEL), "staging", approvals=Approvals(required=1))
    made.runner._timing = replace(made.runner._timing, lease=timedelta(minutes=5))
    yield made
    database.close()


def blocked(world: World) -> int:
    """How many transactions wait for a lock."""
    query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    with world.database.read() as session:
        return int(session.execute(text(query)).scalar_one())


def meet(world: World, *transactions: Callable[[], object]) -> None:
    """Start the transactions one after the other while nobody may append to the audit trail, then let them go on.

    Raises what any of them raises; a deadlock is an error of one of them.
    """
    with ThreadPoolExecutor() as pool:
        running: list[Future[object]] = []
        with world.database.begin() as session:
            session.get(AuditHead, 1, with_for_update=True)
            for transaction in transactions:
                running.append(pool.submit(transaction))
                end = time.monotonic() + PATIENCE
                while blocked(world) < len(running) and time.monotonic() < end:
                    time.sleep(0.01)
            assert blocked(world) == len(running)
        for future in running:
            future.result(PATIENCE)


def test_the_end_of_one_promotion_and_a_stop_of_the_next_do_not_wait_in_a_circle(world: World) -> None:
    active = world.ask("1")
    world.run(active)
    waiting = world.ask("2")
    meet(
        world,
        lambda: world.runner.advance(active),
        lambda: promotions.cancel(world.core, waiting, "", "ada"),
    )
    assert world.show(active)["state"] == "SUPERSEDED"
    assert world.show(waiting)["state"] == "CANCELLED"


def test_one_reading_about_two_environments_does_not_wait_in_a_circle(world: World) -> None:
    production, staging = world.ask("1"), world.ask("1", "staging")
    assert world.run(staging)["state"] == "APPROVAL"
    promotions.cancel(world.core, staging, "", "ada")
    world.registry.change(MODEL, aliases={"to-production": "2", "to-staging": "2"})
    meet(
        world,
        lambda: intake.observe(world.core, MODEL, intake.WEBHOOK),
        lambda: world.runner.advance(staging),
    )
    assert world.show(production)["state"] == "SUPERSEDED"
    assert world.show(staging)["state"] == "CANCELLED"


def test_the_trail_is_verified_while_it_grows(world: World) -> None:
    done = threading.Event()

    def grow() -> None:
        while not done.is_set():
            with world.database.begin() as session:
                audit.append(session, "test", {"some": "body"})

    with ThreadPoolExecutor() as pool:
        growing = pool.submit(grow)
        try:
            verdicts = [trail.verify(world.database) for _ in range(50)]
        finally:
            done.set()
        growing.result(PATIENCE)
    assert [verdict.reason for verdict in verdicts if not verdict.verified] == []
    assert verdicts[-1].leaves > verdicts[0].leaves
