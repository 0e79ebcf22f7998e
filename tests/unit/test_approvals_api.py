"""Approvals over REST and in the command line: proofs in the answers, problems with remedies, and what `show` says."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.adapters.mlflow_webhook import Delivery
from app.api.app import create_app
from app.cli import render
from app.db.session import Database
from app.domain.errors import Unauthorized
from app.domain.freeze import DAYS, Freeze
from app.domain.permissions import Role
from app.domain.policy import Approvals, default_policy
from app.services import principals
from tests.fakes import quick
from tests.plant import MODEL, World
from tests.serving import served

ZEROS = "sha256:" + "0" * 64


def nobody_calls(headers: Mapping[str, str], body: bytes, now: float) -> Delivery:
    """These tests send no webhooks."""
    raise Unauthorized("This is not MLflow.")


class Desk:
    """A promotion that waits for approval while everything is frozen, and people who call."""

    def __init__(self, world: World, http: httpx.Client) -> None:
        self.world, self.http = world, http
        people = {"rita": Role.REVIEWER, "rob": Role.REVIEWER, "anna": Role.ADMIN, "carl": Role.AUDITOR}
        self.tokens = {name: principals.create(world.database, name, role, "test") for name, role in people.items()}
        self.number = world.ask("1")
        self.digest = str(world.run(self.number)["digest"])

    def post(self, who: str, path: str, **body: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self.tokens[who]}"}
        return self.http.post(f"/api/v1/promotions/{self.number}/{path}", json=body, headers=headers)

    def approve(self, who: str) -> httpx.Response:
        return self.post(who, "approvals", decision="approve", digest=self.digest, reason="good")


@pytest.fixture
def desk(database: Database, tmp_path: Path) -> Iterator[Desk]:
    world = World(database, tmp_path)
    frozen = (Freeze("the holidays", "Europe/Berlin", DAYS),)
    world.policies.known[MODEL] = quick(default_policy(MODEL), approvals=Approvals(required=2), freeze=frozen)
    with (
        served(create_app(world.core, nobody_calls, world.store)) as url,
        httpx.Client(base_url=url, trust_env=False) as http,
    ):
        yield Desk(world, http)


def test_what_is_taken_back_is_proved_and_shown(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    assert desk.approve("rita").json()["approval"]["missing"] == 1
    answer = desk.post("rita", "approvals/revoke", reason="I looked again")
    assert answer.status_code == 201
    assert '"approval.revoked"' in answer.json()["proof"]["leaf"]
    assert answer.json()["approval"]["missing"] == 2
    render.promotion(desk.world.show(desk.number))
    told = capsys.readouterr().out
    assert "what the digest is over" in told and "sha256:" in told
    for line in (
        "rita (reviewer): approve: good (taken back by rita)",
        "missing   2 of 2 approvals",
        "excluded  trainer: trained this version, as MLflow has it",
        "frozen    until further notice: the holidays",
    ):
        assert line in told


def test_an_admin_takes_back_for_somebody_and_a_reviewer_cannot(desk: Desk) -> None:
    desk.approve("rita")
    assert desk.post("rob", "approvals/revoke", reason="hm", person="rita").status_code == 403
    assert desk.post("rob", "approvals/revoke", reason="hm").status_code == 409
    assert desk.post("rita", "approvals/revoke").status_code == 422
    answer = desk.post("anna", "approvals/revoke", reason="she has left", person="rita")
    assert answer.json()["approvals"][0]["revoked_by"] == "anna"


def test_two_people_break_the_glass(desk: Desk) -> None:
    for who, open_now in (("rita", False), ("anna", True)):
        answer = desk.post(who, "break-glass", digest=desk.digest, reason="an emergency")
        assert answer.status_code == 201
        assert answer.json()["break_glass"]["open"] is open_now
        assert '"break-glass"' in answer.json()["proof"]["leaf"]
    assert desk.post("carl", "break-glass", digest=desk.digest, reason="me, too").status_code == 403
    assert desk.post("rob", "break-glass", digest=ZEROS, reason="blind").status_code == 409


def test_each_action_has_its_states(desk: Desk) -> None:
    desk.post("anna", "cancel")
    desk.world.run(desk.number)
    for path, body in [
        ("approvals", {"decision": "approve", "digest": desk.digest, "reason": "late"}),
        ("approvals/revoke", {"reason": "late"}),
        ("break-glass", {"digest": desk.digest, "reason": "late"}),
        ("decide", {"decision": "continue", "reason": "late"}),
        ("decide", {"decision": "rollback", "reason": "late"}),
        ("cancel", {}),
        ("retry", {}),
    ]:
        answer = desk.post("anna", path, **body)
        assert (answer.status_code, "is CANCELLED" in answer.json()["title"]) == (409, True), path


def test_what_waits_is_in_the_plan(desk: Desk) -> None:
    headers = {"Authorization": f"Bearer {desk.tokens['rita']}"}
    asked = {"model": MODEL, "version": "2", "environment": "production"}
    found = desk.http.get("/api/v1/plan", params=asked, headers=headers).json()
    assert found["frozen"] == {"reason": "the holidays", "until": None}
    assert found["break_glass"] == {"within": "PT30M"}
