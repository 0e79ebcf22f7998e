"""Two people, or a person and a worker, want different things of one promotion at the same moment: there is one
outcome, all places tell of the same one, and what each was told is true."""

import functools
import itertools
import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from app.db import promotions as rows
from app.db.models import Promotion, StepRun
from app.db.session import Database
from app.domain.canary import Sample
from app.domain.errors import Conflict, Fault, HeadgateError
from app.domain.permissions import Caller
from app.domain.policy import Approvals, Rollout, default_policy
from app.domain.promotion import ENDED
from app.ports import SandboxJob
from app.services import approvals, history, outbox, promotions, trail
from tests.fakes import quick
from tests.plant import FAST, MODEL, World

ROUNDS = 8
PLACE = (MODEL, "production")
ADA, RITA, ROB = Caller("ada", "admin"), Caller("rita", "reviewer"), Caller("rob", "reviewer")
SLOW = replace(FAST, tick=timedelta(hours=1))


class Ring:
    """One model with a stable release; each round has a version of its own and everything comes to rest after it."""

    def __init__(self, world: World, pool: ThreadPoolExecutor) -> None:
        self.world, self._pool = world, pool
        self.random = random.Random(7)
        self._versions, self._seen = itertools.count(101), 0
        self._ends: dict[int, list[str]] = {}
        self.rules()
        self.stable = self.ask()
        self.rest()
        assert self.state(self.stable) == "LIVE"

    def rules(self, **changes: Any) -> None:
        """The policy for what is asked from now on: no approval and no soak, but for the changes."""
        base = {"approvals": Approvals(required=0), "rollout": Rollout(soak=timedelta(0))}
        self.world.policies.known[MODEL] = quick(default_policy(MODEL), **{**base, **changes})

    def ask(self) -> int:
        version = str(next(self._versions))
        self.world.registry.register(MODEL, version, self.world.folder / "model-1")
        return promotions.request(self.world.core, MODEL, version, "production", "", "somebody").id

    def run(self, promotion_id: int) -> None:
        """What a worker does that is woken for it."""
        with self.world.database.begin() as session:
            rows.wake(session, promotion_id)
        self.world.worker("worker-2").advance(promotion_id)

    def into_canary(self) -> int:
        """A promotion whose canary has traffic; its next look is an hour away."""
        promotion_id = self.ask()
        slow = self.world.worker("worker-1")
        slow._timing = SLOW
        slow.advance(promotion_id)
        assert self.state(promotion_id) == "ROLLOUT"
        assert self.world.router.routes[PLACE].weight > 0
        return promotion_id

    def state(self, promotion_id: int) -> str:
        return str(self.world.show(promotion_id)["state"])

    def meet(self, *acts: Callable[[], object]) -> list[object]:
        """Carry out the acts at the same moment; returns what each answered, or the error that it was told."""
        start = threading.Barrier(len(acts))
        pauses = [self.random.choice((0, 0.001, 0.003, 0.008)) for _ in acts]

        def carry_out(act: Callable[[], object], pause: float) -> object:
            start.wait()
            time.sleep(pause)
            try:
                return act()
            except HeadgateError as error:
                return error

        return list(self._pool.map(carry_out, acts, pauses))

    def rest(self) -> None:
        """Let workers run until nobody has anything to do but those who decide, and tell MLflow."""
        query = select(Promotion.id).where(Promotion.next_run_at.is_not(None), Promotion.state != "APPROVAL")
        for _ in range(60):
            with self.world.database.read() as session:
                due = session.scalars(query.order_by(Promotion.id)).all()
            if not due:
                outbox.deliver(self.world.core, "worker-1")
                return
            for promotion_id in due:
                self.run(promotion_id)
        raise AssertionError([self.world.show(promotion_id) for promotion_id in due])

    def check(self, *ids: int) -> list[str]:
        """Come to rest; everything must tell of one end for each of the promotions. Returns their states."""
        self.rest()
        self._read_on()
        states = [self.state(promotion_id) for promotion_id in ids]
        for promotion_id, state in zip(ids, states, strict=True):
            assert self._ends[promotion_id] == [state]
            tags = self.world.tags(self.world.show(promotion_id)["version"])
            assert tags["headgate.status"] == state.lower().replace("_", "-")
        self.check_serving()
        return states

    def check_serving(self) -> None:
        """One release serves, the router sends everything to it, MLflow names it, and no other server runs."""
        (serving,) = history.serving(self.world.database, MODEL, "production", None)
        route = self.world.router.routes[PLACE]
        assert route.canary is None
        assert route.stable is not None and route.stable.release.startswith(f"{serving['version']}@")
        assert self.world.server.names() == [serving["name"]]
        assert self.world.registry.models[MODEL].aliases == {"production": serving["version"]}

    def _read_on(self) -> None:
        while page := trail.page(self.world.database, self._seen, 1000):
            self._seen = page[-1]["seq"]
            for leaf in page:
                if leaf["kind"] == "promotion.transition" and leaf["body"]["to"] in ENDED:
                    self._ends.setdefault(leaf["body"]["promotion"], []).append(leaf["body"]["to"])


@pytest.fixture
def ring(database: Database, tmp_path: Path) -> Iterator[Ring]:
    with ThreadPoolExecutor(4) as pool:
        yield Ring(World(database, tmp_path), pool)
    assert trail.verify(database).verified


def told(answer: object) -> bool:
    """Whether somebody was told that it will be as they asked; all else must be a conflict, with words."""
    if isinstance(answer, HeadgateError):
        assert isinstance(answer, Conflict) and answer.reason
        return False
    return True


def rounds(test: Callable[[Ring], None]) -> Callable[[Ring], None]:
    """Do all of it again and again with the same ring: which of them is first differs from round to round."""

    @functools.wraps(test)
    def repeated(ring: Ring) -> None:
        for _ in range(ROUNDS):
            test(ring)

    return repeated


@rounds
def test_cancel_against_completion(ring: Ring) -> None:
    one = ring.into_canary()
    answer, _ = ring.meet(lambda: promotions.cancel(ring.world.core, one, "", "ada"), lambda: ring.run(one))
    assert ring.check(one) == ["CANCELLED" if told(answer) else "LIVE"]


@rounds
def test_a_newer_request_against_completion(ring: Ring) -> None:
    one = ring.into_canary()
    two, _ = ring.meet(ring.ask, lambda: ring.run(one))
    assert isinstance(two, int)
    assert ring.check(one, two) in (["SUPERSEDED", "LIVE"], ["LIVE", "LIVE"])


@rounds
def test_an_older_canary_is_back_at_stable_before_the_newer_one_gets_traffic(ring: Ring) -> None:
    one = ring.into_canary()
    before = len(ring.world.router.history)
    two = ring.ask()
    ring.meet(lambda: ring.run(one), lambda: ring.run(two), lambda: ring.run(two))
    assert ring.check(one, two) == ["SUPERSEDED", "LIVE"]
    version = ring.world.show(two)["version"]
    moves = ring.world.router.history[before:]
    first = next(at for at, route in enumerate(moves) if route.canary and route.canary.release.startswith(version))
    assert any(route.canary is None for route in moves[:first])


@rounds
def test_two_newer_requests_at_once(ring: Ring) -> None:
    one = ring.into_canary()
    two, three = ring.meet(ring.ask, ring.ask)
    made = [number for number in (two, three) if told(number)]
    states = ring.check(one, *made)  # type: ignore[arg-type]  # the ids
    assert states in (
        ["SUPERSEDED", "LIVE"],
        ["SUPERSEDED", "SUPERSEDED", "LIVE"],
        ["SUPERSEDED", "LIVE", "SUPERSEDED"],
    )


@rounds
def test_cancel_against_a_newer_request(ring: Ring) -> None:
    one = ring.into_canary()
    cancelled, two = ring.meet(lambda: promotions.cancel(ring.world.core, one, "", "ada"), ring.ask)
    assert isinstance(two, int)
    assert ring.check(one, two) == ["CANCELLED" if told(cancelled) else "SUPERSEDED", "LIVE"]


@rounds
def test_approve_against_expire(ring: Ring) -> None:
    one = waiting(ring)
    with ring.world.database.begin() as session:
        for step in session.scalars(select(StepRun).where(StepRun.promotion_id == one, StepRun.state == "APPROVAL")):
            step.entered_at -= timedelta(days=7)
    answer, _ = ring.meet(lambda: decide(ring, one, RITA, "approve"), lambda: ring.run(one))
    settle(ring, one)
    assert ring.check(one) == ["LIVE" if told(answer) else "EXPIRED"]


@rounds
def test_approve_against_reject(ring: Ring) -> None:
    one = waiting(ring)
    _, rejected, _ = ring.meet(
        lambda: decide(ring, one, RITA, "approve"),
        lambda: decide(ring, one, ROB, "reject"),
        lambda: ring.run(one),
    )
    settle(ring, one)
    assert ring.check(one) == ["DENIED" if told(rejected) else "LIVE"]


@rounds
def test_approve_against_cancel(ring: Ring) -> None:
    one = waiting(ring)
    _, cancelled, _ = ring.meet(
        lambda: decide(ring, one, RITA, "approve"),
        lambda: promotions.cancel(ring.world.core, one, "", "ada"),
        lambda: ring.run(one),
    )
    settle(ring, one)
    assert ring.check(one) == ["CANCELLED" if told(cancelled) else "LIVE"]


@rounds
def test_a_canarys_rollback_against_its_completion(ring: Ring) -> None:
    one = asking(ring)
    ring.world.metrics.seen = Sample(100, 0, 2.0)
    answer, _ = ring.meet(lambda: approvals.decide_canary(ring.world.core, one, ADA, False, ""), lambda: ring.run(one))
    assert ring.check(one) == ["ROLLED_BACK" if told(answer) else "LIVE"]


@rounds
def test_let_a_canary_go_on_against_cancel(ring: Ring) -> None:
    one = asking(ring)
    _, cancelled, _ = ring.meet(
        lambda: approvals.decide_canary(ring.world.core, one, ADA, True, ""),
        lambda: promotions.cancel(ring.world.core, one, "", "ada"),
        lambda: ring.run(one),
    )
    ring.world.metrics.seen = Sample(100, 0, 2.0)
    assert ring.check(one) == ["CANCELLED" if told(cancelled) else "LIVE"]


@rounds
def test_retry_against_a_new_request(ring: Ring) -> None:
    one = failed(ring)
    again, two = ring.meet(lambda: promotions.retry(ring.world.core, one, "ada"), ring.ask)
    ring.rest()
    if told(again) and told(two):
        assert [ring.state(one), ring.state(two)] == ["SUPERSEDED", "LIVE"]  # type: ignore[arg-type]  # an id
    elif told(two):
        assert [ring.state(one), ring.state(two)] == ["FAILED", "LIVE"]  # type: ignore[arg-type]  # an id
    else:
        assert told(again) and ring.state(one) == "LIVE"
    ring.check_serving()


@rounds
def test_two_retries_at_once(ring: Ring) -> None:
    one = failed(ring)
    answers = ring.meet(*[lambda: promotions.retry(ring.world.core, one, "ada")] * 2)
    assert sorted(map(told, answers)) == [False, True]
    ring.rest()
    assert ring.state(one) == "LIVE"
    ring.check_serving()


def waiting(ring: Ring) -> int:
    """A promotion that waits for approval."""
    ring.rules(approvals=Approvals())
    one = ring.ask()
    ring.run(one)
    assert ring.state(one) == "APPROVAL"
    return one


def decide(ring: Ring, promotion_id: int, who: Caller, what: str) -> object:
    digest = ring.world.show(promotion_id)["digest"]
    return approvals.decide(ring.world.core, promotion_id, who, what, digest, "")


def settle(ring: Ring, promotion_id: int) -> None:
    """Let the decisions that were recorded count, as a sweep does."""
    for _ in range(2):
        ring.run(promotion_id)


def asking(ring: Ring) -> int:
    """A canary that asks a person, because nobody calls it."""
    ring.rules(rollout=Rollout(steps=(100,), soak=timedelta(0), max_wait=timedelta(0)))
    ring.world.metrics.seen = Sample(0, 0, None)
    one = ring.into_canary()
    slow = ring.world.worker("worker-1")
    slow._timing = SLOW
    with ring.world.database.begin() as session:
        rows.wake(session, one)
    slow.advance(one)
    assert ring.world.show(one)["progress"]["question"]
    return one


def failed(ring: Ring) -> int:
    """A promotion that failed by our fault, which is mended now."""

    def broken(job: SandboxJob) -> None:
        raise Fault("No disk.", "Make room.")

    one = ring.ask()
    ring.world.sandbox.before = broken
    for _ in range(4):
        ring.run(one)
    ring.world.sandbox.before = lambda job: None
    ring.rest()
    assert ring.state(one) == "FAILED"
    return one
