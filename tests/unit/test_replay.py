"""The time machine: what served at any moment of a story, as the audit trail alone tells it."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from app.db.session import Database
from app.domain.canary import Sample
from app.domain.permissions import Caller
from app.domain.policy import Approvals, Rollout, default_policy
from app.services import approvals, history, trail
from tests.fakes import quick
from tests.plant import MODEL, World


@pytest.fixture
def world(database: Database, tmp_path: Path) -> World:
    return World(database, tmp_path)


def moments(world: World) -> list[tuple[str, list[tuple[str, str, int]]]]:
    """After each leaf: its kind, and who served with which weight then."""
    found = []
    for leaf in trail.page(world.database, 0, 1000):
        rows = history.at_a_time(world.database, MODEL, "production", datetime.fromisoformat(leaf["at"]))
        found.append((leaf["kind"], [(row["version"], row["role"], row["weight"]) for row in rows]))
    return found


def promote(world: World, version: str) -> dict[str, Any]:
    number = world.ask(version)
    shown = world.run(number)
    if shown["state"] == "APPROVAL":
        approvals.decide(world.core, number, Caller("rita", "reviewer"), "approve", shown["digest"], "fine")
    for _ in range(20):
        shown = world.run(number)
        if shown["state"] in ("LIVE", "ROLLED_BACK", "FAILED", "REJECTED"):
            return shown
    raise AssertionError(shown)


def in_steps(world: World, approvals_required: int = 1) -> None:
    rollout = Rollout(steps=(10, 50, 100), soak=timedelta(0))
    world.policies.known[MODEL] = quick(
        default_policy(MODEL), "production", approvals=Approvals(required=approvals_required), rollout=rollout
    )


def test_every_weight_of_a_canary_is_known_later(world: World) -> None:
    in_steps(world)
    assert promote(world, "1")["state"] == "LIVE"
    assert promote(world, "2")["state"] == "LIVE"
    served = [rows for _, rows in moments(world) if rows]
    seen = [rows for at, rows in enumerate(served) if at == 0 or rows != served[at - 1]]
    first, second = ("1", "stable", 100), ("2", "stable", 100)
    assert [first] in seen and seen[-1] == [second]
    for weight in (10, 50):
        assert [("1", "stable", 100 - weight), ("2", "canary", weight)] in seen


def test_each_claim_names_its_leaf_and_who_approved(world: World) -> None:
    in_steps(world)
    shown = promote(world, "1")
    (row,) = history.at_a_time(world.database, MODEL, None, datetime.now(UTC))
    assert (row["version"], row["environment"], row["weight"], row["digest"]) == (
        "1",
        "production",
        100,
        shown["digest"],
    )
    (said,) = row["decisions"]
    assert (said["by"], said["decision"], said["digest"], said["reason"]) == (
        "rita",
        "approve",
        shown["digest"],
        "fine",
    )
    leaves = {leaf["seq"]: leaf for leaf in trail.page(world.database, 0, 1000)}
    assert leaves[said["leaf"]]["kind"] == "approval"
    assert leaves[row["leaf"]]["body"]["to"] == "LIVE"
    gates = row["evidence"]["GATES"]
    assert leaves[gates["leaf"]]["body"]["evidence"] == gates["digest"]


def test_a_canary_that_was_rolled_back_leaves_the_stable_release_as_it_was(world: World) -> None:
    in_steps(world)
    promote(world, "1")
    world.metrics.seen = Sample(100, 50, 2.0)  # every second answer of the canary is an error
    assert promote(world, "2")["state"] == "ROLLED_BACK"
    (row,) = history.at_a_time(world.database, MODEL, None, datetime.now(UTC))
    assert (row["version"], row["role"], row["weight"]) == ("1", "stable", 100)
    assert any(("2", "canary", 10) in rows for _, rows in moments(world))


def test_before_anything_was_asked_nothing_served(world: World) -> None:
    in_steps(world)
    promote(world, "1")
    assert history.at_a_time(world.database, MODEL, None, datetime(2020, 1, 1, tzinfo=UTC)) == []
    assert history.at_a_time(world.database, "another", None, datetime.now(UTC)) == []
    assert history.at_a_time(world.database, MODEL, "staging", datetime.now(UTC)) == []
