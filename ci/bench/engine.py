"""The engine on SQLite and on PostgreSQL: durable transitions a second, each claimed and committed on its own."""

import contextlib
import functools
import itertools
import multiprocessing
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

from app.adapters.audit_keys import KeyFiles
from app.db import promotions
from app.db.session import Database
from app.domain.permissions import Caller
from app.domain.policy import Rollout, default_policy
from app.domain.promotion import FLOW, State, next_state
from app.parts import Core
from app.services import approvals
from app.services.promotions import open_promotion, transition
from ci.bench.databases import POSTGRES, SQLITE, Fresh, fsync_ms, missing
from ci.bench.figures import Group, in_turns, number, ratio, spread
from tests.fakes import CONVERTED, FakePolicies, FakeQueue, FakeRegistry, quick
from tests.plant import MODEL, World


@dataclass(frozen=True)
class Workers:
    """Threads that move promotions, each one at a time, in so many processes."""

    processes: int
    threads: int

    def __str__(self) -> str:
        named = {1: "one process", 2: "two processes"}[self.processes]
        return f"{self.processes * self.threads} at once, {named}"


STEPS = len(FLOW) - 1
WORKERS = (Workers(1, 1), Workers(1, 4), Workers(2, 2))
FLOWS = 3
_LEASE = timedelta(minutes=1)
_DIGEST = "sha256:" + "0" * 64
# What real steps leave behind, in kind and about in size: it is stored and hashed with each transition.
_EVIDENCE: Mapping[State, Mapping[str, Any]] = {
    State.SNAPSHOT: {"tree": _DIGEST, "run_id": "run", "trained_by": "trainer"},
    State.SCAN: {"findings": [], "errors": [], "scanned": 6},
    State.CONVERT: {**CONVERTED, "onnx": _DIGEST, "served_rows": _DIGEST, "parity_pairs": _DIGEST},
    State.GATES: {"results": [{"gate": "parity", "verdict": "pass", "measured": 0, "limit": 0, "reason": "good"}]},
    State.BUILD: {"name": "bench", "repository": _DIGEST, "config": _DIGEST, "image": None},
}


@dataclass
class Engine:
    """One database with promotions to move; each is of a model of its own. `pool` holds the worker processes."""

    url: str
    database: Database
    pool: ProcessPoolExecutor
    numbers: Iterator[int] = field(default_factory=itertools.count)

    def __post_init__(self) -> None:
        self.core = Core(self.database, FakeRegistry(), FakePolicies(), FakeQueue(), "http://headgate", KeyFiles([]))

    def rate(self, workers: Workers, count: int) -> float:
        """Transitions a second while those workers move `count` promotions from REQUESTED to LIVE."""
        waiting = [self._open() for _ in range(count)]
        begun = time.perf_counter()
        if workers.processes == 1:
            _drive_all(self.database, waiting, workers.threads)
        else:
            shares = [waiting[number :: workers.processes] for number in range(workers.processes)]
            working = [self.pool.submit(_work, self.url, share, workers.threads) for share in shares]
            for one in working:
                one.result()
        return count * STEPS / (time.perf_counter() - begun)

    def _open(self) -> int:
        policy = default_policy(f"model-{next(self.numbers)}")
        with self.database.begin() as session:
            row = open_promotion(session, self.core, policy, ("1", "staging"), {"field": "request"}, "bench")
            assert row is not None, "nobody else opens promotions here"
            return row.id


@functools.cache
def _connected(url: str) -> Database:
    """A worker process keeps its connections, as one of Headgate's does."""
    return Database(url)


def _work(url: str, waiting: Sequence[int], threads: int) -> None:
    _drive_all(_connected(url), waiting, threads)


def _drive_all(database: Database, waiting: Sequence[int], threads: int) -> None:
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(partial(_drive, database), waiting))


def _drive(database: Database, promotion_id: int) -> None:
    """The two transactions a step that the runner makes, and no work between them."""
    for _ in range(STEPS):
        with database.begin() as session:
            claimed = promotions.claim(session, promotion_id, "bench", _LEASE)
        assert claimed is not None, "nobody else claims promotions here"
        held = claimed[1]
        with database.begin() as session:
            row = promotions.get_locked(session, promotion_id)
            assert row is not None
            transition(session, row, held, next_state(held.state), "", _EVIDENCE.get(held.state, {}))


class Flow:
    """Whole promotions by the real runner and the real steps, with fakes for everything outside."""

    def __init__(self, database: Database, folder: Path) -> None:
        folder.mkdir()
        self._world = World(database, folder)
        self._world.policies.known[MODEL] = quick(default_policy(MODEL), rollout=Rollout(soak=timedelta(0)))
        self._versions = itertools.cycle(("1", "2", "3"))

    def rate(self, count: int) -> float:
        """Promotions a second, one after the other, from the alias in MLflow to what is written back there."""
        begun = time.perf_counter()
        for _ in range(count):
            self.promote()
        return count / (time.perf_counter() - begun)

    def promote(self) -> None:
        """Bring the next version into production."""
        world, reviewer = self._world, Caller("rita", "reviewer")
        promotion_id = world.ask(next(self._versions))
        digest = world.run(promotion_id)["digest"]
        approvals.decide(world.core, promotion_id, reviewer, "approve", digest, "good")
        shown = world.run(promotion_id)
        if shown["state"] != State.LIVE.value:
            raise RuntimeError(f"a promotion ended {shown['state']}: {shown['reason']}")


def run(folder: Path, kinds: Mapping[str, Fresh], rounds: int, count: int) -> Group:
    """`count` promotions are moved in each window."""
    with contextlib.ExitStack() as stack:

        def opened(url: str) -> Database:
            database = Database(url)
            stack.callback(database.close)
            return database

        # Not forked: a worker of Headgate begins anew, too, and shares neither locks nor connections with anybody.
        most = max(workers.processes for workers in WORKERS)
        pool = stack.enter_context(ProcessPoolExecutor(most, multiprocessing.get_context("spawn")))
        urls = {kind: fresh("engine") for kind, fresh in kinds.items()}
        engines = {kind: Engine(url, opened(url), pool) for kind, url in urls.items()}
        flows = {kind: Flow(opened(fresh("flow")), folder / f"flow-{kind}") for kind, fresh in kinds.items()}
        windows: dict[str, Mapping[str, Callable[[], float]]] = {
            f"transitions/s, {workers}": {
                kind: partial(engine.rate, workers, count) for kind, engine in engines.items()
            }
            for workers in WORKERS
        }
        windows["whole promotions/s, on fakes"] = {kind: partial(flow.rate, FLOWS) for kind, flow in flows.items()}
        for sides in windows.values():
            in_turns(sides, 1)  # the first time fills caches and opens connections
        measured = {name: in_turns(sides, rounds) for name, sides in windows.items()}
    return _group(measured, [*missing(kinds), *_notes(folder, rounds, count)])


def _group(measured: Mapping[str, Mapping[str, Sequence[float]]], notes: list[str]) -> Group:
    columns = ["what", SQLITE, POSTGRES, f"{POSTGRES} / {SQLITE}"]
    rows, figures = [], {}
    for name, found in measured.items():
        both = POSTGRES in found
        compared = ratio(found[POSTGRES], found[SQLITE]) if both else None
        cells = [spread(found[SQLITE]), spread(found[POSTGRES]) if both else "-"]
        rows.append([name, *cells, number(compared) if compared else "-"])
        figures[name] = {**found, "ratio": compared}
    return Group("engine", "The engine, durable transitions", columns, rows, notes, figures)


def _notes(folder: Path, rounds: int, count: int) -> list[str]:
    return [
        f"Rounds: {rounds}; median and, in brackets, least and greatest. {count} promotions x {STEPS} transitions a "
        f"window, REQUESTED to LIVE; {FLOWS} whole promotions a window.",
        "SQLite runs as Headgate runs it (WAL, `synchronous=FULL`), PostgreSQL with its own defaults (`fsync=on`); "
        f"4 KiB and an fsync take {number(fsync_ms(folder))} ms on this disk.",
    ]
