"""A policy tried on past promotions: what it would have decided, and of which it cannot be said."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.api.app import create_app
from app.db.session import Database
from app.domain.errors import Invalid
from app.domain.policy import Approvals, Data, MetricGate, Rollout, default_policy
from app.services import principals
from app.services.backtest import backtest
from tests.fakes import quick
from tests.plant import MODEL, World
from tests.serving import headgate, served

ROWS = "data: {uri: 's3://rows/holdout.csv', label: price}"


@pytest.fixture
def world(database: Database, tmp_path: Path) -> World:
    """Version 1 went live with an rmse of 0.5, version 2 with 0.4, version 3 was rejected with 0.9."""
    world = World(database, tmp_path)
    world.buckets.objects["s3://rows/holdout.csv"] = b"x,price\n1,1\n"
    world.policies.known[MODEL] = quick(
        default_policy(MODEL),
        "staging",
        gates=(MetricGate("rmse", max=0.6),),
        data=Data("s3://rows/holdout.csv", "price"),
        approvals=Approvals(required=0),
        rollout=Rollout(soak=timedelta(0)),
    )
    for version, rmse in (("1", 0.5), ("2", 0.4), ("3", 0.9)):
        world.sandbox.results["score"]["metrics"] = {"rmse": rmse}
        world.run(world.ask(version, "staging"))
    return world


def tried(world: World, rules: str, last: int = 20) -> dict[str, dict[str, Any]]:
    """What these rules for staging would have decided, by version."""
    text = f"model: {MODEL}\nenvironments:\n  staging:\n    {ROWS}\n    {rules}\n"
    return {item["version"]: item for item in backtest(world.core, text, last)["promotions"]}


def verdicts(found: dict[str, dict[str, Any]]) -> list[str]:
    return [found[version]["verdict"] for version in ("1", "2", "3")]


def test_the_policy_of_then_decides_as_it_did(world: World) -> None:
    found = tried(world, "gates: [{kind: metric, name: rmse, max: 0.6}]")
    assert verdicts(found) == ["pass", "pass", "fail"]
    assert [found[version]["state"] for version in ("1", "2", "3")] == ["LIVE", "LIVE", "REJECTED"]
    assert not any(item["differs"] for item in found.values())


def test_a_stricter_one_and_a_laxer_one(world: World) -> None:
    strict = tried(world, "gates: [{kind: metric, name: rmse, max: 0.45}]")
    assert verdicts(strict) == ["fail", "pass", "fail"]
    assert strict["1"]["differs"]
    assert strict["1"]["reasons"] == ["metric rmse: rmse 0.5 is above 0.45"]
    lax = tried(world, "gates: [{kind: metric, name: rmse, max: 1}]")
    assert verdicts(lax) == ["pass", "pass", "pass"]
    assert lax["3"]["differs"]


def test_what_was_not_measured_cannot_be_said(world: World) -> None:
    slices = "{kind: slices, by: [city], name: rmse, max_ratio: 2}"
    found = tried(world, f"gates: [{slices}]")
    assert verdicts(found) == ["unknown"] * 3
    assert "rmse by city was not measured" in found["1"]["reasons"][0]
    # What fails by what was measured fails, whatever else was not.
    assert verdicts(tried(world, f"gates: [{slices}, {{kind: metric, name: rmse, max: 0.45}}]")) == [
        "fail",
        "unknown",
        "fail",
    ]
    champion = tried(world, "gates: [{kind: champion, name: rmse, max_regression: 0.1}]")
    assert verdicts(champion) == ["pass", "unknown", "unknown"]
    own = tried(world, "gates: [{kind: own, name: fairness}]")
    assert "cannot be run here" in own["1"]["reasons"][0]


def test_other_rows_and_another_tolerance_are_other_measurements(world: World) -> None:
    text = f"model: {MODEL}\nenvironments:\n  staging:\n    {ROWS.replace('holdout', 'other')}\n"
    (found, *_) = backtest(world.core, text, 1)["promotions"]
    assert (found["verdict"], found["reasons"]) == (
        "unknown",
        ["it was measured on other rows: s3://rows/holdout.csv"],
    )
    assert "rtol 0.0001" in tried(world, "parity: {rtol: 0.01}")["1"]["reasons"][0]


def test_the_schema_gate_can_be_tried_on_what_is_kept(world: World) -> None:
    assert verdicts(tried(world, "gates: [{kind: schema}]")) == ["pass", "pass", "pass"]


def test_one_that_ended_before_its_gates_cannot_be_judged(world: World) -> None:
    world.sandbox.results["scan"] = {
        "findings": [{"file": "a", "severity": "HIGH", "reason": "os.system"}],
        "errors": [],
        "scanned": 1,
    }
    world.run(world.ask("1", "staging"))
    text = f"model: {MODEL}\nenvironments:\n  staging:\n    {ROWS}\n"
    found = backtest(world.core, text, 1)
    assert found["counts"] == {"pass": 0, "inconclusive": 0, "fail": 0, "unknown": 1}
    assert "ended before its gates" in found["promotions"][0]["reasons"][0]


def test_approvals_are_counted_by_the_new_rules(world: World) -> None:
    assert tried(world, "approvals: {required: 2}")["1"]["approvals"] == {"required": 2, "given": 0}


def test_only_its_own_environments_and_so_many(world: World) -> None:
    world.run(world.ask("1", "production"))
    assert set(tried(world, "approvals: {required: 0}", last=2)) == {"3", "2"}


@pytest.fixture
def http(world: World) -> Iterator[httpx.Client]:
    headers = {"Authorization": f"Bearer {principals.create(world.database, 'ada', 'auditor', 'test')}"}
    app = create_app(world.core, lambda headers, body, now: None, world.store)
    with served(app) as url, httpx.Client(base_url=url, headers=headers, trust_env=False) as client:
        yield client


def test_over_rest_and_on_the_command_line(world: World, http: httpx.Client, tmp_path: Path) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text(
        f"model: {MODEL}\nenvironments:\n  staging:\n    {ROWS}\n    gates:\n"
        "      - {kind: metric, name: rmse, max: 0.45}\n"
    )
    answer = http.post("/api/v1/policies/backtest", json={"policy": file.read_text(), "last": 2})
    assert answer.status_code == 200
    assert answer.json()["counts"] == {"pass": 1, "inconclusive": 0, "fail": 1, "unknown": 0}

    told = headgate(http, "policy", "backtest", str(file))
    assert told.returncode == 0, told.stderr
    assert "rmse 0.5 is above 0.45" in told.stdout
    assert "1 would have come out otherwise" in told.stdout

    wrong = http.post("/api/v1/policies/backtest", json={"policy": file.read_text().replace("max:", "most:")})
    assert wrong.status_code == 422
    assert "line 6" in wrong.json()["title"]
    assert http.post("/api/v1/policies/backtest", json={"policy": "x" * 100_001}).status_code == 422


def test_a_malformed_policy_names_its_line(world: World) -> None:
    with pytest.raises(Invalid, match="line 2"):
        backtest(world.core, f"model: {MODEL}\nenviroments: {{}}\n", 20)
