"""A step that ends its worker whenever it runs, in a real installation: it is quarantined, the others go on."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from examples.airbnb.stage import Stage, wait
from tests.e2e.models import register

pytestmark = pytest.mark.on("sqlite")

POISON, OTHER = "poison", "other"
POINT = "worker:registry.download.before"  # in SNAPSHOT alone
POLICY = """\
model: {model}
environments:
  staging:
    approvals: {{required: {approvals}, roles: [admin]}}
    rollout: {{steps: [100], soak: 1s, guardrails: {{min_requests: 1, p99_ms: 10000}}, max_wait: 1s}}
"""


@pytest.fixture
def failpoints(tmp_path: Path) -> Path:
    for name in ("armed", "hit", "reached"):
        (tmp_path / "failpoints" / name).mkdir(parents=True)
    return tmp_path / "failpoints"


@pytest.fixture
def stage(backing: Callable[[], dict[str, str]], tmp_path: Path, failpoints: Path) -> Iterator[Stage]:
    (tmp_path / "policies").mkdir()
    for model, approvals in ((POISON, 0), (OTHER, 1)):
        policy = POLICY.format(model=model, approvals=approvals)
        (tmp_path / "policies" / f"{model}.yaml").write_text(policy)
    settings = {**backing(), "HEADGATE_FAILPOINTS": str(failpoints)}
    with Stage(tmp_path / "up", tmp_path / "policies", settings) as running:
        yield running


def shown(stage: Stage, model: str) -> dict[str, Any]:
    items = stage.admin.get("/api/v1/promotions", model=model)["items"]
    found: dict[str, Any] = stage.admin.get(f"/api/v1/promotions/{items[0]['id']}") if items else {"state": ""}
    return found


def reached(stage: Stage, model: str, state: str) -> dict[str, Any]:
    """Wait for a state, while a client asks the release and a person lets a canary go on that too few have asked."""

    def found() -> dict[str, Any] | None:
        body = {"inputs": [{"name": "input", "shape": [1, 2], "datatype": "FP32", "data": [3.0, 4.0]}]}
        url = f"{stage.found['router']['staging']}/v2/models/{model}/infer"
        httpx.post(url, json=body, timeout=10, trust_env=False)
        row = shown(stage, model)
        if row.get("progress", {}).get("question"):
            stage.admin.post(f"/api/v1/promotions/{row['id']}/decide", {"decision": "continue", "reason": "a test"})
        return row if row["state"] == state else None

    row: dict[str, Any] = wait(found, 240, f"{state} of {model}")
    return row


def test_a_poisonous_step_is_quarantined_while_others_go_on_and_is_tried_anew(stage: Stage, failpoints: Path) -> None:
    # Given a promotion that waits for its approval, and a step that ends every worker,
    stage.mlflow.set_registered_model_alias(OTHER, "to-staging", register(stage.mlflow_uri, OTHER))
    waiting = reached(stage, OTHER, "APPROVAL")
    (failpoints / "armed" / POINT).write_text("kill always")
    version = register(stage.mlflow_uri, POISON)
    stage.mlflow.set_registered_model_alias(POISON, "to-staging", version)
    wait((failpoints / "hit" / POINT).exists, 60, "the first death")
    # when the waiting one is approved, then it goes live, whatever happens to the workers,
    approval = {"decision": "approve", "digest": waiting["digest"], "reason": "a test"}
    stage.admin.post(f"/api/v1/promotions/{waiting['id']}/approvals", approval)
    reached(stage, OTHER, "LIVE")
    # and the other one is quarantined, with what happened in the API, in MLflow and in the trail.
    failed = reached(stage, POISON, "FAILED")
    assert "SNAPSHOT ended its worker 4 times without a word and was quarantined" in failed["reason"]
    crash = failed["evidence"]["snapshot"]["failures"]["crash"]
    assert crash["times"] == 4
    assert crash["first_at"] < crash["last_at"]
    assert crash["workers"] and crash["workers"][-1] in failed["reason"] and crash["last_at"] in failed["reason"]
    wait(lambda: stage.tags(POISON, version).get("headgate.status") == "failed", 60, "MLflow to be told")
    assert stage.tags(POISON, version)["headgate.reason"] == failed["reason"]
    leaves = stage.admin.get("/api/v1/audit", limit=1000)
    ends = [leaf["body"] for leaf in leaves if leaf["body"].get("to") == "FAILED"]
    assert [leaf["reason"] for leaf in ends] == [failed["reason"]]
    assert stage.admin.get("/api/v1/audit/verify")["verified"]
    # When the step is harmless again, then a second try starts with clean counts and goes live.
    (failpoints / "armed" / POINT).unlink()
    assert stage.run("retry", str(failed["id"])).returncode == 0
    live = reached(stage, POISON, "LIVE")
    assert (live["attempt"], live["failures"]) == (0, {})
