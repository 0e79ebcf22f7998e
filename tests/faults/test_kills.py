"""kill -9 for real processes while a promotion is under way: it ends as it would have, once."""

from collections.abc import Callable, Iterator
from typing import Any

import httpx
import psutil
import pytest

from examples.airbnb.stage import Stage, wait
from tests.e2e.models import register

pytestmark = pytest.mark.on("sqlite")

MODEL = "mortal"
POLICY = f"""\
model: {MODEL}
environments:
  staging:
    approvals: {{required: 0}}
    rollout: {{steps: [50, 100], soak: 2s, guardrails: {{min_requests: 1, p99_ms: 10000}}, max_wait: 1s}}
"""


@pytest.fixture(scope="module")
def stage(backing: Callable[[], dict[str, str]], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    home = tmp_path_factory.mktemp("faults")
    (home / "policies").mkdir()
    (home / "policies" / f"{MODEL}.yaml").write_text(POLICY)
    with Stage(home / "up", home / "policies", backing()) as running:
        first = register(running.mlflow_uri, MODEL)
        running.mlflow.set_registered_model_alias(MODEL, "to-staging", first)
        reached(running, first, "LIVE")
        yield running


def shown(stage: Stage, version: str) -> dict[str, Any]:
    items = stage.admin.get("/api/v1/promotions", model=MODEL)["items"]
    number = next((row["id"] for row in items if row["version"] == version), None)
    found: dict[str, Any] = stage.admin.get(f"/api/v1/promotions/{number}") if number else {"state": ""}
    return found


def reached(stage: Stage, version: str, *states: str) -> dict[str, Any]:
    """Wait for a state while a client keeps asking; the API may be the one that was killed."""

    def found() -> dict[str, Any] | None:
        try:
            infer(stage)
            row = shown(stage, version)
        except httpx.TransportError:
            return None
        if row.get("progress", {}).get("question"):
            # Only the test's own few requests come, so the canary may ask a person: that person is here.
            body = {"decision": "continue", "reason": "a test"}
            stage.admin.post(f"/api/v1/promotions/{row['id']}/decide", body)
        return row if row["state"] in states else None

    row: dict[str, Any] = wait(found, 120, f"{states} of version {version}")
    return row


def infer(stage: Stage) -> httpx.Response:
    body = {"inputs": [{"name": "input", "shape": [1, 2], "datatype": "FP32", "data": [3.0, 4.0]}]}
    url = f"{stage.found['router']['staging']}/v2/models/{MODEL}/infer"
    return httpx.post(url, json=body, timeout=10, trust_env=False)


def servers(stage: Stage) -> list[psutil.Process]:
    """The tritonserver processes of this installation. A process that ends while we look has no command line."""
    return [
        process
        for process in psutil.process_iter(["name", "cmdline"])
        if process.info["name"] == "tritonserver" and str(stage.home) in " ".join(process.info["cmdline"] or [])
    ]


@pytest.mark.parametrize(
    ("state", "victims"),
    [
        ("SNAPSHOT", ["worker-1", "worker-2"]),
        ("CONVERT", ["worker-1", "worker-2"]),
        ("PROVE", ["worker-1", "worker-2"]),
        ("ROLLOUT", ["worker-1", "worker-2"]),
        ("ROLLOUT", ["api"]),
        ("PROVE", ["clock"]),
        ("ROLLOUT", ["router"]),
    ],
)
def test_a_promotion_survives_the_death_of_its_processes(stage: Stage, state: str, victims: list[str]) -> None:
    # Given a promotion on its way, when the processes are killed in the middle of it,
    version = register(stage.mlflow_uri, MODEL)
    stage.mlflow.set_registered_model_alias(MODEL, "to-staging", version)
    later = ["SNAPSHOT", "SCAN", "CONVERT", "GATES", "BUILD", "PROVE", "APPROVAL", "ROLLOUT"]
    reached(stage, version, *later[later.index(state) :])
    for victim in victims:
        stage.kill(victim)
    # then it still goes live, each step was done once, and one server is left.
    found = reached(stage, version, "LIVE", "FAILED", "ROLLED_BACK", "REJECTED")
    assert found["state"] == "LIVE", found["reason"]
    states = [step["state"] for step in found["steps"]]
    assert len(states) == len(set(states))
    wait(lambda: len(servers(stage)) == 1, 60, "one server to be left")
    wait(lambda: stage.aliases(MODEL).get("staging") == version, 60, "the alias staging")
    wait(lambda: infer(stage).headers.get("X-Headgate-Release", "").startswith(f"{version}@"), 30, "answers")
    assert stage.admin.get("/api/v1/audit/verify")["verified"]


def test_a_server_that_dies_is_started_again(stage: Stage) -> None:
    # Given a live release, when its server is killed,
    for process in servers(stage):
        process.kill()
    # then it is there again, and answers as before.
    wait(lambda: infer(stage).status_code != 200, 30, "the router to notice")
    answer = wait(lambda: (found := infer(stage)).status_code == 200 and found, 60, "answers")
    assert answer.json()["outputs"][0]["data"] == pytest.approx([11.0], abs=1e-3)
