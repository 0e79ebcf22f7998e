"""Fifty copies of one message, four workers with databases of their own, two sweepers: one effect each."""

import queue
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import select

from app.db import promotions as rows
from app.db.models import AuditLeaf, OutboxRow, Promotion, StepRun
from app.db.session import Database
from app.domain.errors import Transient
from app.domain.policy import Rollout, default_policy
from app.domain.promotion import FLOW
from app.parts import Core
from app.services import history, intake, outbox, trail
from tests.fakes import quick
from tests.plant import FAST, MODEL, World
from workers.runner import Runner

COPIES, WORKERS, SWEEPERS = 50, 4, 2
PATIENT = replace(FAST, lease=timedelta(minutes=2))


@pytest.fixture
def world(database: Database, tmp_path: Path) -> World:
    made = World(database, tmp_path)
    made.policies.known[MODEL] = quick(default_policy(MODEL), "staging", rollout=Rollout(soak=timedelta(0)))
    return made


@pytest.fixture
def cores(world: World, database_url: str) -> Iterator[list[Core]]:
    """One for each worker and each sweeper, as processes of their own would have them."""
    with ExitStack() as stack:
        databases = [stack.enter_context(closing(Database(database_url))) for _ in range(WORKERS + SWEEPERS)]
        yield [replace(world.core, db=database) for database in databases]


def patiently(work: Callable[[], object]) -> None:
    """What a task does: where the database is busy, the next message or sweep finds the same."""
    for _ in range(20):
        try:
            work()
            return
        except Transient:
            continue
    raise AssertionError("the database was always busy")


def take(messages: "queue.Queue[int]", work: Callable[[int], object]) -> None:
    while True:
        try:
            message = messages.get_nowait()
        except queue.Empty:
            return
        patiently(lambda: work(message))  # noqa: B023 -- called before the loop goes on


def test_fifty_wake_ups_run_each_step_once(world: World, cores: list[Core]) -> None:
    promotion_id = world.ask("1", "staging")
    messages: queue.Queue[int] = queue.Queue()
    for _ in range(COPIES):
        messages.put(promotion_id)
    ended = threading.Event()
    runners = [Runner(core, world.plant, PATIENT, f"worker-{n}") for n, core in enumerate(cores)]

    def sweep(core: Core, runner: Runner) -> None:
        while not ended.is_set():
            with core.db.read() as session:
                due = rows.due(session)
            for found in due:
                patiently(lambda: runner.advance(found))  # noqa: B023 -- called before the loop goes on
            patiently(lambda: outbox.deliver(core, "the-same-name"))
            ended.wait(0.01)

    with ThreadPoolExecutor(WORKERS + SWEEPERS) as pool:
        sweepers = [pool.submit(sweep, cores[n], runners[n]) for n in range(WORKERS, WORKERS + SWEEPERS)]
        takers = [pool.submit(take, messages, runners[n].advance) for n in range(WORKERS)]
        try:
            for taker in takers:
                taker.result(120)
        finally:
            ended.set()
        for sweeper in sweepers:
            sweeper.result(120)
    shown = world.run(promotion_id)
    name = shown["evidence"]["build"]["name"]
    assert shown["state"] == "LIVE"
    # Once to be proved and once to serve; each move of traffic once; each untrusted job once.
    assert Counter(world.server.starts) == {name: 2}
    assert [route.weight for route in world.router.history] == [100, 0]
    assert sorted(world.sandbox.jobs) == sorted(set(world.sandbox.jobs))
    with world.database.read() as session:
        steps = Counter(session.scalars(select(StepRun.state)))
        leaves = Counter(
            leaf.body.get("to") for leaf in session.scalars(select(AuditLeaf)) if leaf.kind == "promotion.transition"
        )
        told = [row.arguments["value"] for row in session.scalars(select(OutboxRow)) if is_status(row)]
        row = session.get_one(Promotion, promotion_id)
        assert (row.crashes, row.lease_owner) == (0, None)
    assert steps == {state.value: 1 for state in FLOW}
    assert leaves == {state.value: 1 for state in FLOW[1:]}
    assert told == [state.label for state in FLOW]
    assert world.tags("1")["headgate.status"] == "live"
    assert trail.verify(world.database).verified


def is_status(row: OutboxRow) -> bool:
    return bool(row.arguments.get("key") == "headgate.status")


def test_fifty_webhooks_of_one_change_open_one_promotion(world: World, cores: list[Core]) -> None:
    world.registry.change(MODEL, aliases={"to-staging": "1"})
    messages: queue.Queue[int] = queue.Queue()
    for number in range(COPIES):
        messages.put(number)

    def observe(core: Core) -> None:
        take(messages, lambda _: intake.observe(core, MODEL, intake.WEBHOOK))

    with ThreadPoolExecutor(WORKERS + SWEEPERS) as pool:
        workers = [pool.submit(observe, core) for core in cores[:WORKERS]]
        sweepers = [pool.submit(patiently, partial(intake.poll, core)) for core in cores[WORKERS:]]
        for future in [*workers, *sweepers]:
            future.result(120)
    with world.database.read() as session:
        asked = [row.version for row in session.scalars(select(Promotion))]
        leaves = [leaf.kind for leaf in session.scalars(select(AuditLeaf))]
    assert (asked, leaves.count("promotion.requested")) == (["1"], 1)
    assert [row["field"] for row in history.changes(world.database, MODEL, None)["items"]] == ["alias:to-staging"]
