"""The step GATES in the flow: what each verdict does to a promotion, and what reviewers see."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from app.db.session import Database
from app.domain.permissions import Caller
from app.domain.policy import (
    Approvals,
    ChampionGate,
    Data,
    Gate,
    LatencyGate,
    MetricGate,
    OwnGate,
    RobustnessGate,
    Rollout,
    SchemaGate,
    SlicesGate,
    default_policy,
)
from app.ports import SandboxJob
from app.services import approvals
from tests.fakes import SCORED, quick
from tests.plant import MODEL, World

NOBODY = Approvals(required=0)
NOISE = {"nudge": 0.01, "columns": 1, "classes": False, "change": 0.01, "asked": 10, "not_finite": 0}


@pytest.fixture
def world(database: Database, tmp_path: Path) -> World:
    return World(database, tmp_path)


def ask(world: World, version: str, *gates: Gate, data: Data | None = None) -> dict[str, Any]:
    """Promote a version to staging, where nobody has to approve, under these gates."""
    policy = quick(
        default_policy(MODEL),
        "staging",
        gates=gates,
        approvals=NOBODY,
        data=data,
        rollout=Rollout(soak=timedelta(0)),
    )
    world.policies.known[MODEL] = policy
    return world.run(world.ask(version, "staging"))


def test_what_was_measured_is_kept_and_passes(world: World) -> None:
    world.sandbox.results["score"]["noise"] = [NOISE]
    shown = ask(world, "1", RobustnessGate(0.05), SchemaGate())
    assert shown["state"] == "LIVE"
    gates = shown["evidence"]["gates"]
    assert [result["verdict"] for result in gates["results"]] == ["pass", "pass", "pass"]
    assert gates["measurements"]["noise"] == [NOISE]


def test_an_inconclusive_gate_asks_a_person_where_the_policy_asks_nobody(world: World) -> None:
    # Given a model that has no number to nudge, in an environment without approvals,
    world.sandbox.results["score"]["noise"] = [{**NOISE, "columns": 0, "change": None}]
    shown = ask(world, "1", RobustnessGate(0.05))
    # then it waits, and the reviewer sees for what.
    assert shown["state"] == "APPROVAL"
    assert shown["progress"]["missing"] == 1
    assert shown["progress"]["inconclusive"] == ["the model takes no floating-point input that could be nudged"]
    assert shown["evidence"]["gates"]["verdict"] == "inconclusive"

    approvals.decide(world.core, shown["id"], Caller("rita", "reviewer"), "approve", shown["digest"], "it has none")
    assert world.run(shown["id"])["state"] == "LIVE"


def test_a_gate_that_could_not_measure_fails_the_promotion_at_once_with_what_was_measured(world: World) -> None:
    shown = ask(world, "1", MetricGate("rmse", max=0.5))
    assert shown["state"] == "FAILED"
    assert "rmse could not be measured: set data.label" in shown["reason"]
    assert "headgate retry" in shown["reason"]
    assert shown["evidence"]["gates"]["results"][1]["verdict"] == "error"


def test_an_own_gate_that_is_not_there_fails_the_promotion(world: World) -> None:
    shown = ask(world, "1", OwnGate("fairness"))
    assert shown["state"] == "FAILED"
    assert "install the package" in shown["reason"]


def test_a_release_that_would_break_callers_is_rejected(world: World) -> None:
    assert ask(world, "1", SchemaGate())["state"] == "LIVE"
    world.sandbox.results["score"]["inputs"] = [{"name": "z", "datatype": "FP32", "shape": [-1, 1]}]
    shown = ask(world, "2", SchemaGate())
    assert shown["state"] == "REJECTED"
    assert "the input x is gone" in shown["reason"]


def test_groups_are_asked_for_with_their_columns(world: World) -> None:
    (world.folder / "rows.csv").write_text("x,city,price\n1,Ulm,1\n")
    requests: list[Any] = []
    world.sandbox.before = lambda job: requests.append(job.request) if job.program == "score" else None
    groups = [{"key": ["Ulm"], "rows": 60, "metrics": {"rmse": 0.9}}]
    world.sandbox.results["score"].update(
        metrics={"rmse": 0.5}, slices=[{"by": ["city"], "groups": groups, "left_out": 0}]
    )
    data = Data(str(world.folder / "rows.csv"), "price")
    shown = ask(world, "1", SlicesGate(("city",), "rmse", 1.6), data=data)
    assert shown["state"] == "REJECTED"
    assert "Ulm, 60 rows" in shown["reason"]
    assert (requests[0]["slices"], requests[0]["rows"]["texts"]) == ([("city",)], ["city"])
    assert requests[0]["rows"]["complete"] == ["x"]


def test_both_versions_are_judged_on_rows_that_both_can_answer(world: World) -> None:
    (world.folder / "rows.csv").write_text("x,price\n1,1\n")
    world.sandbox.results["score"]["metrics"] = {"rmse": 0.5}
    data, gate = Data(str(world.folder / "rows.csv"), "price"), ChampionGate("rmse", 0.1)
    assert ask(world, "1", gate, data=data)["state"] == "LIVE"
    requests: list[SandboxJob] = []
    world.sandbox.before = lambda job: requests.append(job) if job.program == "score" else None
    world.sandbox.results["convert"]["inputs"] = [{"name": "area", "datatype": "FP32", "shape": [-1, 1]}]
    ask(world, "2", gate, data=data)
    assert [job.request["rows"]["complete"] for job in requests] == [["area", "x"], ["area", "x"]]


@pytest.mark.parametrize(
    ("answer", "state", "words"),
    [
        ({"refused": {"code": "missing-columns", "reason": "The rows lack city.", "remedy": ""}}, "FAILED", ".data:"),
        (
            {"refused": {"code": "not-finite", "reason": "Infinite.", "remedy": "Train."}},
            "REJECTED",
            "Infinite. Train.",
        ),
        ({**SCORED, "noise": "much"}, "REJECTED", "makes no sense at noise"),
        ({}, "REJECTED", "makes no sense"),
    ],
)
def test_refusals_and_nonsense(world: World, answer: dict[str, Any], state: str, words: str) -> None:
    world.sandbox.results["score"] = answer
    shown = ask(world, "1")
    assert shown["state"] == state
    assert words in shown["reason"]


def test_a_release_that_is_too_slow_as_served_is_rejected_before_anybody_is_asked(world: World) -> None:
    # Given a model that takes no time at all in ONNX Runtime by itself,
    world.sandbox.results["score"]["latency_ms"] = {"1": 0.0, "4": 0.0}
    # when the calls to its release cannot be as fast as the policy asks,
    shown = ask(world, "1", LatencyGate(p99_ms=1e-9, batch=4), LatencyGate(p99_ms=1e9, batch=1))
    # then it is rejected by what was measured of the release, and none of it runs.
    assert shown["state"] == "REJECTED"
    assert "as served, p99" in shown["reason"]
    verdicts = {result["gate"]: result["verdict"] for result in shown["evidence"]["prove"]["results"]}
    assert verdicts == {"served latency batch 1": "pass", "served latency batch 4": "fail"}
    assert list(world.server.running) == []
