"""Failures of different kinds on fakes and a real database: counted apart, quarantined with evidence, tried anew."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from app.db import promotions as rows
from app.db.models import Promotion
from app.db.session import Database
from app.domain.errors import Fault, Rejected, Transient
from app.domain.policy import Approvals, Rollout, default_policy
from app.domain.retry import LIMITS, Kind
from app.ports import SandboxJob
from app.services import history, promotions, trail
from tests.fakes import quick
from tests.plant import MODEL, World

OTHER = "other-model"
NO_SOAK = Rollout(soak=timedelta(0))


class Killed(BaseException):
    """Stands for kill -9: nothing after it runs."""


@pytest.fixture
def world(database: Database, tmp_path: Path) -> World:
    made = World(database, tmp_path)
    for model in (MODEL, OTHER):
        made.policies.known[model] = quick(default_policy(model), approvals=Approvals(required=0), rollout=NO_SOAK)
    made.registry.register(OTHER, "1", tmp_path / "model-1")
    return made


def ask(world: World, model: str) -> int:
    return promotions.request(world.core, model, "1", "production", "", "somebody").id


def try_again(world: World, promotion_id: int) -> None:
    """Let the promotion run now, by a worker that may die, and let whatever lease is left behind run out."""
    with world.database.begin() as session:
        rows.wake(session, promotion_id)
    try:
        world.runner.advance(promotion_id)
    except Killed:
        with world.database.begin() as session:
            row = session.get_one(Promotion, promotion_id)
            row.lease_until = row.created_at - timedelta(hours=1)


def break_scan(world: World, error: BaseException | None) -> None:
    def before(job: SandboxJob) -> None:
        if error is not None and job.program == "scan":
            raise error

    world.sandbox.before = before


def transitions(world: World, promotion_id: int) -> list[dict[str, str]]:
    leaves = trail.page(world.database, 0, 1000)
    found = [leaf["body"] for leaf in leaves if leaf["kind"] == "promotion.transition"]
    return [body for body in found if body["promotion"] == promotion_id]


def test_an_outside_part_that_was_away_often_leaves_a_step_all_its_tries(world: World) -> None:
    promotion_id = ask(world, MODEL)
    break_scan(world, Transient("MLflow is away."))
    for _ in range(40):
        try_again(world, promotion_id)
    break_scan(world, Fault("The disk is full.", "Make room."))
    for _ in range(LIMITS[Kind.FAULT] - 1):
        try_again(world, promotion_id)
    shown = world.show(promotion_id)
    assert (shown["state"], shown["attempt"]) == ("SCAN", 42)
    assert {kind: found["times"] for kind, found in shown["failures"].items()} == {"transient": 40, "fault": 2}
    assert shown["failures"]["fault"]["workers"] == ["worker-1"]
    break_scan(world, None)
    try_again(world, promotion_id)
    assert world.show(promotion_id)["failures"] == {}


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (Transient("MLflow is away."), Kind.TRANSIENT, "MLflow is away. (SCAN was given up after 66 tries"),
        (Fault("No disk."), Kind.FAULT, "No disk. (SCAN was given up after 3 tries"),
        (ZeroDivisionError("0/0"), Kind.FAULT, "SCAN broke: ZeroDivisionError: 0/0"),
        (Killed(), Kind.CRASH, "SCAN ended its worker 4 times without a word and was quarantined"),
    ],
)
def test_each_kind_gives_up_with_evidence_and_is_tried_anew_with_clean_counts(
    world: World, error: BaseException, kind: Kind, words: str
) -> None:
    promotion_id = ask(world, MODEL)
    break_scan(world, error)
    for _ in range(LIMITS[kind] - 1):
        try_again(world, promotion_id)
    assert world.show(promotion_id)["state"] == "SCAN"
    try_again(world, promotion_id)
    shown = world.run(promotion_id)
    assert shown["state"] == "FAILED"
    assert words in shown["reason"]
    assert words in world.tags("1")["headgate.reason"]
    evidence = shown["evidence"]["scan"]["failures"][kind.value]
    assert evidence["times"] == LIMITS[kind]
    assert evidence["workers"] == ["worker-1"]
    assert evidence["first_at"] <= evidence["last_at"]
    assert transitions(world, promotion_id)[-1]["reason"] == shown["reason"]

    break_scan(world, None)
    promotions.retry(world.core, promotion_id, "ada")
    shown = world.show(promotion_id)
    assert (shown["attempt"], shown["failures"], shown["last_error"]) == (0, {}, "")
    break_scan(world, error)
    for _ in range(LIMITS[kind] - 1):
        try_again(world, promotion_id)
    assert world.show(promotion_id)["state"] == "SCAN"
    break_scan(world, None)
    try_again(world, promotion_id)
    assert world.run(promotion_id)["state"] == "LIVE"


def test_whoever_dies_with_a_poisonous_step_again_and_again_is_not_blamed_for_it(world: World) -> None:
    # Given two promotions in SCAN in the hands of one worker, and one of them kills it whenever it runs,
    poison, innocent = ask(world, MODEL), ask(world, OTHER)
    break_scan(world, Transient("Not yet."))
    for promotion_id in (poison, innocent):
        try_again(world, promotion_id)

    def die(job: SandboxJob) -> None:
        if f"promotion-{poison}-" in str(job.output):
            with world.database.begin() as session:
                rows.wake(session, innocent)
                rows.claim(session, innocent, "worker-1", timedelta(seconds=5))
            raise Killed

    world.sandbox.before = die
    for _ in range(2):
        try_again(world, poison)
        lapse(world, innocent)
    # when both were there at two deaths and a worker runs one of them, then it leaves the other one to other workers,
    ran: list[str] = []

    def look(job: SandboxJob) -> None:
        ran.append(job.output.name)
        if job.program == "scan":
            world.worker("worker-1").advance(poison)

    world.sandbox.before = look
    try_again(world, innocent)
    assert not any(f"promotion-{poison}-" in name for name in ran)
    # and the innocent one gets on, while the poisonous one ends.
    assert world.run(innocent)["state"] == "LIVE"
    world.sandbox.before = die
    for _ in range(3):
        try_again(world, poison)
    assert "quarantined" in world.show(poison)["reason"]


def lapse(world: World, promotion_id: int) -> None:
    with world.database.begin() as session:
        row = session.get_one(Promotion, promotion_id)
        row.lease_until = row.created_at - timedelta(hours=1)


def test_an_undoing_that_ends_its_worker_does_not_go_on_for_ever(world: World) -> None:
    def die(*_: Any) -> Any:
        raise Killed

    promotion_id = ask(world, MODEL)
    apply = world.router.apply
    world.router.apply = die  # type: ignore[method-assign,assignment]
    for _ in range(2 * LIMITS[Kind.CRASH] + 1):
        try_again(world, promotion_id)
    shown = world.show(promotion_id)
    assert shown["state"] == "FAILED" and "ROLLOUT ended its worker" in shown["reason"]
    assert history.serving(world.database, MODEL, "production", None) == []
    world.router.apply = apply  # type: ignore[method-assign]
    promotions.retry(world.core, promotion_id, "ada")
    assert world.run(promotion_id)["state"] == "LIVE"


def test_a_clean_up_that_ends_its_worker_does_not_go_on_for_ever(world: World) -> None:
    def die(*_: Any) -> Any:
        raise Killed

    first = ask(world, MODEL)
    assert world.run(first)["state"] == "LIVE"
    second = promotions.request(world.core, MODEL, "2", "production", "", "somebody").id
    world.runner.advance(second)
    stop = world.server.stop
    world.server.stop = die  # type: ignore[method-assign,assignment]
    for _ in range(LIMITS[Kind.CRASH] + 1):
        try_again(world, second)
    shown = world.show(second)
    assert shown["state"] == "LIVE" and "cannot clean up" in shown["last_error"]
    world.server.stop = stop  # type: ignore[method-assign]
    assert world.run(promotions.request(world.core, MODEL, "3", "production", "", "me").id)["state"] == "LIVE"
    assert len(world.server.names()) == 1


@pytest.mark.parametrize(
    ("refused", "state", "words"),
    [
        ({"code": "missing-columns", "reason": "The judging rows lack the columns 'beds'."}, "FAILED", "'beds'"),
        ({"code": "bad-rows", "reason": "A label is not a number."}, "FAILED", "environments.production.data"),
        ({"code": "no-judging-rows", "reason": "No judging row has all values."}, "FAILED", "headgate retry"),
        ({"code": "no-rows", "reason": "The input example has no rows.", "remedy": "Log one."}, "REJECTED", "Log one."),
    ],
)
def test_rows_that_nothing_can_be_judged_on_are_the_policys_fault(
    world: World, refused: dict[str, str], state: str, words: str
) -> None:
    world.sandbox.results["convert"] = {"refused": refused}
    promotion_id = ask(world, MODEL)
    shown = world.run(promotion_id)
    assert shown["state"] == state
    assert refused["reason"] in shown["reason"] and words in shown["reason"]
    assert words in world.tags("1")["headgate.reason"]


@pytest.mark.parametrize(
    "said", ["ended with signal 11", "used up its CPU time", "ran out of memory", "took longer than 120 s"]
)
def test_what_a_model_does_to_its_sandbox_is_its_own_fault_and_never_counted_as_ours(world: World, said: str) -> None:
    break_scan(world, Rejected(f"The sandboxed scan {said}."))
    promotion_id = ask(world, MODEL)
    shown = world.run(promotion_id)
    assert shown["state"] == "REJECTED" and said in shown["reason"]
    assert (shown["attempt"], shown["failures"]) == (0, {})


def test_a_step_that_gets_on_forgets_its_failures(world: World) -> None:
    calls: list[str] = []

    def sometimes(job: SandboxJob) -> None:
        calls.append(job.program)
        if len(calls) % 3:
            raise Fault("Not now.")

    world.sandbox.before = sometimes
    promotion_id = ask(world, MODEL)
    for _ in range(9):
        try_again(world, promotion_id)
    assert world.run(promotion_id)["state"] == "LIVE"
