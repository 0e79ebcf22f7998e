"""Two reviewers, a change of mind in mid-canary, the emergency way through a freeze, and an auditor years later."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from examples.airbnb.stage import Person, Stage, wait
from tests.e2e.models import register

MODEL = "two-keys"
POLICY = """
model: two-keys
environments:
  production:
    approvals: {required: 2, roles: [reviewer, admin]}
    rollout: {steps: [10, 100], soak: 600s, guardrails: {min_requests: 1}}
"""
FROZEN = """
    freeze:
      - {days: [mon, tue, wed, thu, fri, sat, sun], zone: America/New_York, reason: the holidays}
"""
BODY = {"inputs": [{"name": "input", "shape": [1, 2], "datatype": "FP32", "data": [1.0, 2.0]}]}


@pytest.fixture(scope="module")
def stage(backing: Callable[[], dict[str, str]], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    home = tmp_path_factory.mktemp("keys")
    (home / "policies").mkdir()
    (home / "policies" / f"{MODEL}.yaml").write_text(POLICY.replace("600s", "1s"))
    with Stage(home / "up", home / "policies", backing()) as running:
        yield running


@pytest.fixture(scope="module")
def people(stage: Stage) -> tuple[Person, Person]:
    return stage.person("rita", "reviewer"), stage.person("rob", "reviewer")


def policy(stage: Stage, text: str) -> None:
    (Path(stage.home).parent / "policies" / f"{MODEL}.yaml").write_text(text)


def reached(person: Person, number: int, state: str, what: Callable[[Any], bool] = lambda _shown: True) -> Any:
    def look() -> Any:
        shown = person.get(f"/api/v1/promotions/{number}")
        return shown if shown["state"] == state and what(shown) else None

    return wait(look, 120, f"{state} of promotion {number}")


def ask(stage: Stage, person: Person, version: str) -> int:
    """Set the alias in MLflow, and wait until the promotion asks for approval."""
    stage.mlflow.set_registered_model_alias(MODEL, "to-production", version)

    def opened() -> Any:
        items = person.get("/api/v1/promotions", model=MODEL)["items"]
        return next((row["id"] for row in items if row["version"] == version), None)

    number: int = wait(opened, 60, f"a promotion of version {version}")
    reached(person, number, "APPROVAL")
    return number


def approve(person: Person, number: int) -> Any:
    shown = person.get(f"/api/v1/promotions/{number}")
    said = {"decision": "approve", "digest": shown["digest"], "reason": "the numbers hold"}
    return person.post(f"/api/v1/promotions/{number}/approvals", said)


def served(stage: Stage) -> str:
    """Which release answers whoever does not ask for one."""
    answer = httpx.post(f"{stage.router}/v2/models/{MODEL}/infer", json=BODY, trust_env=False)
    answer.raise_for_status()
    return answer.headers["X-Headgate-Release"].partition("@")[0]


def test_two_keys(stage: Stage, people: tuple[Person, Person], tmp_path: Path) -> None:
    rita, rob = people
    for _ in range(3):
        register(stage.mlflow_uri, MODEL)
    # Given a policy that asks for two people: one is not enough, and she cannot be both.
    first = ask(stage, rita, "1")
    kept = approve(rita, first)["proof"]
    assert reached(rita, first, "APPROVAL", lambda shown: shown["progress"].get("missing") == 1)
    with pytest.raises(httpx.HTTPStatusError, match="409"):
        approve(rita, first)
    approve(rob, first)
    reached(rita, first, "LIVE")
    assert served(stage) == "1"

    # When rob takes his word back in mid-canary, the traffic goes back to what was stable.
    policy(stage, POLICY)
    second = ask(stage, rita, "2")
    approve(rita, second)
    approve(rob, second)
    reached(rita, second, "ROLLOUT", lambda shown: shown["progress"].get("weight") == 10)
    rob.post(f"/api/v1/promotions/{second}/approvals/revoke", {"reason": "I looked at the wrong plot"})
    ended = reached(rita, second, "ROLLED_BACK")
    assert "took back" in ended["reason"]
    assert {served(stage) for _ in range(20)} == {"1"}
    assert stage.aliases(MODEL)["production"] == "1"

    # When everything is frozen, two people can break the glass, and nobody can overlook it.
    policy(stage, POLICY.replace("600s", "1s") + FROZEN)
    third = ask(stage, rita, "3")
    approve(rita, third)
    approve(rob, third)
    frozen = reached(rita, third, "APPROVAL", lambda shown: shown["progress"].get("frozen"))
    assert frozen["progress"]["frozen"]["reason"] == "the holidays"
    said = {"digest": frozen["digest"], "reason": "prices are wrong in production"}
    for person in people:
        person.post(f"/api/v1/promotions/{third}/break-glass", said)
    wait(lambda: served(stage) and rita.get(f"/api/v1/promotions/{third}")["state"] == "LIVE", 120, "LIVE")
    assert served(stage) == "3"
    wait(lambda: "rita" in stage.tags(MODEL, "3").get("headgate.break-glass", ""), 60, "the tag for break-glass")

    # Years later an auditor has the pack, the public key and one file of Python.
    key = stage.run("audit", "key").stdout.strip()
    pack, verifier = tmp_path / "pack.zip", tmp_path / "headgate_verify.pyz"
    assert stage.run("evidence", str(third), str(pack)).returncode == 0
    assert stage.run("audit", "verifier", str(verifier)).returncode == 0
    command = [sys.executable, "-I", str(verifier), "pack", str(pack), "--key", key]
    found = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert found.returncode == 0, found.stdout + found.stderr
    assert "break-glass" in found.stdout
    assert kept["checkpoint"]["origin"] in found.stdout
    history = stage.run("history", MODEL, "--at", rita.get(f"/api/v1/promotions/{second}")["updated_at"]).stdout
    assert "stable" in history and "100 %" in history
