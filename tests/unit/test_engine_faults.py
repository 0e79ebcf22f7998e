"""The engine when things go wrong at an unlucky moment: no promotion is stuck, none spins, none lies."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import select

from app.db import promotions as rows
from app.db.models import Approval, Promotion, StepRun
from app.db.session import Database, now
from app.domain.approvals import CONTINUE
from app.domain.canary import Sample
from app.domain.errors import Fault, Rejected, Transient
from app.domain.permissions import Caller
from app.domain.policy import ChampionGate, Data, Parity, Rollout, default_policy
from app.domain.promotion import Wait
from app.ports import Endpoint, Route, VersionInfo
from app.services import approvals, promotions, trail
from tests.fakes import quick
from tests.plant import MODEL, World

REVIEWER = Caller("rita", "reviewer")
NO_SOAK = Rollout(soak=timedelta(0))


@pytest.fixture
def world(database: Database, tmp_path: Path) -> World:
    made = World(database, tmp_path)
    made.policies.known[MODEL] = quick(default_policy(MODEL), rollout=NO_SOAK)
    return made


def approve(world: World, promotion_id: int) -> None:
    digest = world.show(promotion_id)["digest"]
    approvals.decide(world.core, promotion_id, REVIEWER, "approve", digest, "looks right")


def go_live(world: World, version: str) -> int:
    promotion_id = world.ask(version)
    world.run(promotion_id)
    approve(world, promotion_id)
    assert world.run(promotion_id)["state"] == "LIVE"
    return promotion_id


def into_rollout(world: World, version: str) -> int:
    """A promotion whose canary soaks for an hour."""
    world.policies.known[MODEL] = quick(default_policy(MODEL), rollout=Rollout(soak=timedelta(hours=1)))
    world.runner._timing = replace(world.runner._timing, tick=timedelta(hours=1))
    promotion_id = world.ask(version)
    world.run(promotion_id)
    approve(world, promotion_id)
    assert world.run(promotion_id)["state"] == "ROLLOUT"
    return promotion_id


def make_due(world: World, promotion_id: int) -> None:
    with world.database.begin() as session:
        rows.wake(session, promotion_id)


def run_until_ended(world: World, promotion_id: int, tries: int = 20) -> str:
    """The state after so many tries, each at its time."""
    for _ in range(tries):
        make_due(world, promotion_id)
        world.runner.advance(promotion_id)
    return str(world.show(promotion_id)["state"])


class Spins(BaseException):
    """Ends a loop that would not end."""


def break_router(world: World, error: Exception, limit: int = 30) -> tuple[list[Route], Callable[[], None]]:
    """Have the router's `apply` always raise, and end what calls it more than `limit` times. Returns the calls that
    came, and what mends it."""
    calls: list[Route] = []
    works = world.router.apply

    def apply(routes: list[Route], change: Route, fence: int) -> None:
        calls.append(change)
        if len(calls) > limit:
            raise Spins
        raise error

    def mend() -> None:
        world.router.apply = works  # type: ignore[method-assign]

    world.router.apply = apply  # type: ignore[method-assign]
    return calls, mend


def test_a_stop_that_cannot_be_undone_yet_is_tried_again_with_a_pause(world: World) -> None:
    promotion_id = into_rollout(world, "1")
    calls, mend = break_router(world, Transient("HAProxy does not answer.", "Start it."), limit=3)
    promotions.cancel(world.core, promotion_id, "", "ada")
    world.runner.advance(promotion_id)
    assert len(calls) == 1
    shown = world.show(promotion_id)
    assert shown["state"] == "ROLLOUT" and "cannot undo ROLLOUT yet: HAProxy does not answer." in shown["last_error"]
    mend()
    assert run_until_ended(world, promotion_id, 1) == "CANCELLED"


def test_a_defect_in_undoing_is_tried_again_like_any_other_trouble(world: World) -> None:
    promotion_id = into_rollout(world, "1")
    _, mend = break_router(world, ValueError("a defect"))
    promotions.cancel(world.core, promotion_id, "", "ada")
    assert run_until_ended(world, promotion_id, 6) == "ROLLOUT"
    assert "a defect" in world.show(promotion_id)["last_error"]
    mend()
    assert run_until_ended(world, promotion_id, 1) == "CANCELLED"


def test_a_rejection_in_a_state_that_cannot_reject_is_a_failure(world: World) -> None:
    promotion_id = into_rollout(world, "1")

    def find(name: str) -> None:
        raise Rejected("This cannot be served.", "Ask for another one.")

    world.server.find = find  # type: ignore[method-assign]
    assert run_until_ended(world, promotion_id, 1) == "FAILED"
    assert "This cannot be served." in world.show(promotion_id)["reason"]


def test_an_environment_that_the_router_does_not_have_fails_early_and_for_good(world: World) -> None:
    known = default_policy(MODEL)
    world.policies.known[MODEL] = replace(known, environments={"moon": known.environments["staging"]})

    def address(environment: str) -> str:
        raise Fault(f"There is no router port for {environment}.", "Set HEADGATE_ROUTER_PORTS.")

    break_router(world, Fault("unknown environment", ""))
    world.router.address = address  # type: ignore[method-assign]
    row = promotions.request(world.core, MODEL, "1", "moon", "", "ada")
    assert run_until_ended(world, row.id) == "FAILED"
    shown = world.show(row.id)
    assert "HEADGATE_ROUTER_PORTS" in shown["reason"]
    assert world.sandbox.jobs == []


def test_an_environment_that_was_taken_from_the_router_does_not_keep_a_rollout_from_ending(world: World) -> None:
    promotion_id = into_rollout(world, "1")

    def address(environment: str) -> str:
        raise Fault(f"There is no router port for {environment}.", "Set HEADGATE_ROUTER_PORTS.")

    break_router(world, Fault("unknown environment", ""))
    world.router.address = address  # type: ignore[method-assign]
    promotions.cancel(world.core, promotion_id, "", "ada")
    assert run_until_ended(world, promotion_id) == "CANCELLED"


def test_a_wake_up_that_comes_while_the_step_runs_is_not_lost(world: World) -> None:
    promotion_id = world.ask("1")
    world.run(promotion_id)
    make_due(world, promotion_id)
    with world.database.begin() as session:
        claimed = rows.claim(session, promotion_id, "worker-1", timedelta(seconds=5))
        assert claimed is not None
    approve(world, promotion_id)  # after the step's look at the decisions, before it records that there was none
    assert world.runner._record(claimed[1], Wait(timedelta(seconds=30)))
    assert world.run(promotion_id)["state"] == "LIVE"


def test_a_heartbeat_that_comes_late_does_not_take_the_lease_back(world: World) -> None:
    promotion_id = world.ask("1")
    with world.database.begin() as session:
        claimed = rows.claim(session, promotion_id, "worker-1", timedelta(seconds=5))
        assert claimed is not None
        held = claimed[1]
    with world.database.begin() as session:
        rows.reschedule(session, held, now(session))
    with world.database.begin() as session:
        assert not rows.renew(session, held, timedelta(seconds=5))
        assert rows.claim(session, promotion_id, "worker-2", timedelta(seconds=5)) is not None


def test_an_error_without_a_size_is_evidence_like_any_other(world: World) -> None:
    world.policies.known[MODEL] = quick(default_policy(MODEL), parity=Parity(max_wrong_rows=3))
    world.client.off = math.inf
    promotion_id = world.ask("1")
    shown = world.run(promotion_id)
    assert shown["state"] == "APPROVAL"
    assert shown["evidence"]["prove"]["served"]["wrong_rows"] == 3
    json.dumps(shown, allow_nan=False)


def test_evidence_that_json_cannot_carry_fails_with_words(world: World) -> None:
    world.sandbox.results["convert"]["note"] = math.nan
    promotion_id = world.ask("1")
    assert run_until_ended(world, promotion_id, 3) == "FAILED"
    assert "CONVERT broke" in world.show(promotion_id)["reason"]


def test_a_worker_that_was_held_up_moves_no_traffic_any_more(world: World) -> None:
    # Given a worker that is held up in the middle of a look at its canary, until its lease is over,
    go_live(world, "1")
    promotion_id = into_rollout(world, "2")
    stable = world.router.routes[(MODEL, "production")].stable
    other = world.worker("worker-2")
    find, held_up = world.server.find, list[str]()

    def slow(name: str) -> Endpoint | None:
        if not held_up:
            held_up.append(name)
            promotions.cancel(world.core, promotion_id, "", "ada")
            expire_lease(world, promotion_id)
            other.advance(promotion_id)
        return Endpoint("127.0.0.1", 1, 2)  # it was there when the worker looked

    world.server.find = slow  # type: ignore[method-assign]
    make_due(world, promotion_id)
    world.runner.advance(promotion_id)
    world.server.find = find  # type: ignore[method-assign]
    # then what the other worker has ended stays ended.
    assert world.show(promotion_id)["state"] == "CANCELLED"
    route = world.router.routes[(MODEL, "production")]
    assert (route.stable, route.canary) == (stable, None)


def expire_lease(world: World, promotion_id: int) -> None:
    with world.database.begin() as session:
        row = session.get_one(Promotion, promotion_id)
        row.lease_until = row.created_at - timedelta(hours=1)


def test_a_release_whose_content_was_changed_after_its_approval_gets_no_traffic(world: World) -> None:
    promotion_id = world.ask("1")
    shown = world.run(promotion_id)
    approve(world, promotion_id)
    (model,) = world.store.tree(shown["evidence"]["build"]["repository"]).rglob("model.onnx")
    model.chmod(0o644)
    model.write_bytes(bytes(reversed(model.read_bytes())))  # as many bytes, other ones
    assert run_until_ended(world, promotion_id, 3) == "FAILED"
    assert "was changed" in world.show(promotion_id)["reason"]
    assert [route for route in world.router.history if route.canary] == []
    assert world.server.starts == world.server.starts[:1]  # PROVE's


@pytest.mark.parametrize("ahead", [timedelta(hours=1), timedelta(hours=-1)])
def test_a_decision_counts_for_the_weight_that_was_asked_about_and_no_other(world: World, ahead: timedelta) -> None:
    # Given a canary that asks at each weight because nobody calls, and a database whose clock is not the worker's,
    go_live(world, "1")
    asking = Rollout(soak=timedelta(0), max_wait=timedelta(0))
    world.policies.known[MODEL] = quick(default_policy(MODEL), rollout=asking)
    world.runner._timing = replace(world.runner._timing, tick=timedelta(hours=1))
    world.metrics.seen = Sample(0, 0, None)
    promotion_id = world.ask("2")
    world.run(promotion_id)
    approve(world, promotion_id)

    def look() -> tuple[int, bool]:
        for _ in range(3):
            make_due(world, promotion_id)
            world.runner.advance(promotion_id)
        progress = world.show(promotion_id)["progress"]
        return progress.get("weight"), bool(progress.get("question"))

    for weight in (10, 50, 100):
        assert look() == (weight, True)
        # when a person lets it go on,
        approvals.decide_canary(world.core, promotion_id, REVIEWER, True, "it is night")
        with world.database.begin() as session:
            for row in session.scalars(select(Approval).where(Approval.decision == CONTINUE)):
                row.at += ahead
    # then it goes on by one step each time.
    look()
    assert world.show(promotion_id)["state"] == "LIVE"


def test_every_move_of_traffic_is_in_the_trail(world: World) -> None:
    go_live(world, "1")
    promotion_id = go_live(world, "2")
    leaves = trail.page(world.database, 0, 1000)
    moves = [leaf["body"] for leaf in leaves if leaf["kind"] == "canary.weight"]
    assert [move["weight"] for move in moves if move["promotion"] == promotion_id] == [10, 50, 100]
    assert {move["release"][:2] for move in moves if move["promotion"] == promotion_id} == {"2@"}


def test_a_version_that_is_still_being_uploaded_is_waited_for(world: World) -> None:
    known = world.registry.version

    def pending(model: str, version: str) -> VersionInfo | None:
        found = known(model, version)
        return replace(found, ready=False) if found else None

    promotion_id = world.ask("1")
    world.registry.version = pending  # type: ignore[method-assign]
    world.runner.advance(promotion_id)
    shown = world.show(promotion_id)
    assert shown["state"] == "SNAPSHOT" and "not ready" in shown["last_error"]
    world.registry.version = known  # type: ignore[method-assign]
    assert run_until_ended(world, promotion_id, 1) == "APPROVAL"


def test_the_steps_leave_nothing_in_the_scratch_folder(world: World) -> None:
    (world.folder / "rows.csv").write_text("x,price\n1,1\n")
    rows = Data(str(world.folder / "rows.csv"), "price")
    gates = (ChampionGate("rmse", 0.5),)
    world.policies.known[MODEL] = quick(default_policy(MODEL), data=rows, gates=gates, rollout=NO_SOAK)
    world.sandbox.results["score"]["metrics"] = {"rmse": 0.5}
    go_live(world, "1")
    go_live(world, "2")
    assert world.sandbox.jobs.count("score") == 3
    assert list((world.folder / "store" / "scratch").iterdir()) == []


def test_a_step_that_was_deleted_from_the_record_voids_the_approval(world: World) -> None:
    promotion_id = world.ask("1")
    world.run(promotion_id)
    approve(world, promotion_id)
    with world.database.begin() as session:
        session.query(StepRun).where(StepRun.promotion_id == promotion_id, StepRun.state == "SCAN").delete()
    assert run_until_ended(world, promotion_id, 3) == "FAILED"
    assert "no longer matches" in world.show(promotion_id)["reason"]
    assert [route for route in world.router.history if route.canary] == []


def test_a_clean_up_that_does_not_work_is_told(world: World) -> None:
    go_live(world, "1")

    def stop(name: str, fence: int | None) -> None:
        raise Transient("Docker does not answer.", "Start it.")

    promotion_id = world.ask("2")
    world.run(promotion_id)
    world.server.stop = stop  # type: ignore[method-assign]
    promotions.cancel(world.core, promotion_id, "", "ada")
    assert run_until_ended(world, promotion_id, 2) == "CANCELLED"
    assert "Docker does not answer." in world.show(promotion_id)["last_error"]


def test_a_promotion_whose_record_cannot_be_read_is_given_back_without_a_crash(world: World) -> None:
    promotion_id = world.ask("1")
    policy = write_policy(world, promotion_id, {"triggers": "no triggers at all"})
    with pytest.raises(ValueError, match="triggers"):
        world.runner.advance(promotion_id)
    write_policy(world, promotion_id, policy)
    world.worker("worker-2").advance(promotion_id)
    assert world.show(promotion_id)["state"] == "APPROVAL"
    with world.database.read() as session:
        assert session.get_one(Promotion, promotion_id).crashes == 0


def write_policy(world: World, promotion_id: int, policy: dict[str, object]) -> dict[str, object]:
    """Replace the policy that a promotion keeps; returns the one that was there."""
    with world.database.begin() as session:
        row = session.get_one(Promotion, promotion_id)
        before, row.policy = row.policy, policy
    return before
