"""The API over fakes and a real database: permissions, problem documents, webhooks, approvals, the trail."""

import io
import json
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.adapters.mlflow_webhook import Delivery, verify
from app.api.app import create_app
from app.db import releases
from app.db.session import Database, now
from app.domain.permissions import PERMISSIONS, Role
from app.domain.policy import Rollout, default_policy
from app.services import history, principals
from app.verifier.headgate_verify import check_export, parse_key
from tests.fakes import quick
from tests.plant import MODEL, World
from tests.serving import served

SECRET = "a-secret-of-tests"
ASK = {"model": MODEL, "version": "1", "environment": "production", "reason": "why not"}


def check(headers: Mapping[str, str], body: bytes, now: float) -> Delivery:
    return verify([SECRET], headers, body, now, 300)


class Api:
    """A client for each role over one world."""

    def __init__(self, world: World, http: httpx.Client) -> None:
        self.world, self.http = world, http
        self.tokens: dict[str, str] = {
            role: principals.create(world.database, f"the-{role}", role, "test") for role in Role
        }

    def call(self, role: str | None, method: str, path: str, **rest: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self.tokens[role]}"} if role else {}
        return self.http.request(method, path, headers={**headers, **rest.pop("headers", {})}, **rest)


@pytest.fixture
def api(database: Database, tmp_path: Path) -> Iterator[Api]:
    world = World(database, tmp_path)
    world.policies.known[MODEL] = quick(default_policy(MODEL), rollout=Rollout(soak=timedelta(0)))
    with served(create_app(world.core, check, world.store)) as url, httpx.Client(base_url=url, trust_env=False) as http:
        yield Api(world, http)


def test_a_promotion_from_request_to_live_over_rest(api: Api) -> None:
    made = api.call("requester", "POST", "/api/v1/promotions", json=ASK)
    assert made.status_code == 201
    number = made.json()["id"]
    assert made.headers["Location"] == f"/api/v1/promotions/{number}"
    api.world.run(number)
    shown = api.call("reviewer", "GET", f"/api/v1/promotions/{number}").json()
    assert shown["state"] == "APPROVAL"
    assert shown["evidence"]["convert"]["chosen"] == "div"
    decision = {"decision": "approve", "digest": shown["digest"], "reason": "good"}
    assert api.call("reviewer", "POST", f"/api/v1/promotions/{number}/approvals", json=decision).status_code == 201
    api.world.run(number)
    assert api.call("auditor", "GET", f"/api/v1/promotions/{number}").json()["state"] == "LIVE"
    (serving,) = api.call("auditor", "GET", "/api/v1/releases", params={"model": MODEL}).json()
    assert (serving["version"], serving["role"], serving["weight"]) == ("1", "stable", 100)


def test_a_stale_digest_is_a_conflict_with_a_remedy(api: Api) -> None:
    number = api.call("requester", "POST", "/api/v1/promotions", json=ASK).json()["id"]
    api.world.run(number)
    decision = {"decision": "approve", "digest": "sha256:" + "0" * 64, "reason": "good"}
    answer = api.call("reviewer", "POST", f"/api/v1/promotions/{number}/approvals", json=decision)
    assert answer.status_code == 409
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["type"] == "urn:headgate:problem:conflict"
    assert "headgate show" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("method", "path", "body", "allowed"),
    [
        ("POST", "/api/v1/promotions", ASK, {"requester", "ci", "admin"}),
        ("GET", "/api/v1/promotions", None, set(PERMISSIONS)),
        ("GET", "/api/v1/changes", None, set(PERMISSIONS)),
        ("GET", "/api/v1/releases", None, set(PERMISSIONS)),
        ("POST", "/api/v1/promotions/1/approvals", {}, {"reviewer", "admin"}),
        ("POST", "/api/v1/promotions/1/decide", {}, {"reviewer", "admin"}),
        ("POST", "/api/v1/promotions/999/cancel", {}, {"requester", "reviewer", "ci", "admin"}),
        ("POST", "/api/v1/promotions/999/retry", {}, {"admin"}),
        ("GET", "/api/v1/audit", None, {"auditor", "admin"}),
        ("GET", "/api/v1/audit/verify", None, {"auditor", "admin"}),
        ("GET", "/api/v1/audit/export", None, {"auditor", "admin"}),
        ("GET", "/api/v1/audit/checkpoint", None, {"auditor", "admin"}),
        ("GET", "/api/v1/audit/proof/1", None, {"auditor", "admin"}),
        ("GET", "/api/v1/audit/consistency/1", None, {"auditor", "admin"}),
        ("POST", "/api/v1/tokens", {}, {"admin"}),
    ],
)
def test_who_may_do_what(api: Api, method: str, path: str, body: Any, allowed: set[str]) -> None:
    assert api.call(None, method, path, json=body).status_code == 401
    for role in PERMISSIONS:
        refused = api.call(role, method, path, json=body).status_code == 403
        assert refused == (role not in allowed), role


def test_every_route_but_the_open_ones_asks_for_a_token(api: Api) -> None:
    open_paths = {"/healthz", "/readyz", "/webhooks/mlflow"}
    for path, methods in api.http.get("/openapi.json").json()["paths"].items():
        for method in methods:
            status = api.http.request(method, path.replace("{promotion_id}", "1")).status_code
            assert (status == 401) or path in open_paths, (method, path)


def test_a_wrong_token_is_told_apart_from_none_but_never_echoed(api: Api) -> None:
    answer = api.http.get("/api/v1/promotions", headers={"Authorization": "Bearer hg_not-a-token"})
    assert answer.status_code == 401
    assert "hg_not-a-token" not in answer.text
    assert answer.headers["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize(
    ("change", "status", "words"),
    [
        ({"version": "99"}, 404, "no version 99"),
        ({"model": "nobody"}, 404, "nobody"),
        ({"environment": "moon"}, 422, "no environment 'moon'"),
        ({"version": "latest"}, 422, "version"),
        ({"verison": "1"}, 422, "verison"),
    ],
)
def test_bad_requests_name_the_field(api: Api, change: dict[str, str], status: int, words: str) -> None:
    answer = api.call("requester", "POST", "/api/v1/promotions", json={**ASK, **change})
    assert answer.status_code == status
    assert words in json.dumps(answer.json())
    assert answer.json()["status"] == status


def test_mlflow_away_is_503_and_nothing_is_opened(api: Api) -> None:
    api.world.registry.away = True
    answer = api.call("requester", "POST", "/api/v1/promotions", json=ASK)
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "2")
    assert history.search(api.world.database, None, None, None, None)["items"] == []


def test_the_same_request_twice_is_a_conflict_and_with_a_key_the_same_answer(api: Api) -> None:
    key = {"Idempotency-Key": "k1"}
    first = api.call("requester", "POST", "/api/v1/promotions", json=ASK, headers=key)
    again = api.call("requester", "POST", "/api/v1/promotions", json=ASK, headers=key)
    assert (first.status_code, again.json()) == (201, first.json())
    other = api.call("requester", "POST", "/api/v1/promotions", json={**ASK, "version": "2"}, headers=key)
    assert other.status_code == 409
    assert api.call("requester", "POST", "/api/v1/promotions", json=ASK).status_code == 409


def signed(body: bytes, delivery: str, secret: str = SECRET) -> dict[str, str]:
    import base64
    import hashlib
    import hmac
    import time

    stamp = str(int(time.time()))
    mac = hmac.new(secret.encode(), f"{delivery}.{stamp}.".encode() + body, hashlib.sha256).digest()
    return {
        "X-MLflow-Delivery-Id": delivery,
        "X-MLflow-Timestamp": stamp,
        "X-MLflow-Signature": "v1," + base64.b64encode(mac).decode(),
    }


DELIVERY = "0c3f6f6e-7a54-4bb2-8a6e-3d2f0a5f1c11"
ALIAS = json.dumps(
    {
        "entity": "model_version_alias",
        "action": "created",
        "timestamp": "2026-01-01T00:00:00Z",
        "data": {"name": MODEL, "alias": "to-production", "version": "1"},
    }
).encode()


def test_a_webhook_wakes_a_reading_once(api: Api) -> None:
    headers = signed(ALIAS, DELIVERY)
    first = api.http.post("/webhooks/mlflow", content=ALIAS, headers=headers)
    again = api.http.post("/webhooks/mlflow", content=ALIAS, headers=headers)
    assert (first.status_code, again.status_code) == (202, 202)
    assert (first.json()["duplicate"], again.json()["duplicate"]) == (False, True)
    assert api.world.queue.observed == [MODEL]


@pytest.mark.parametrize(
    ("signs", "sends", "secret", "status"),
    [
        (ALIAS, ALIAS, "another secret", 401),
        (ALIAS, ALIAS.replace(b'"1"', b'"2"'), SECRET, 401),
        (None, ALIAS, SECRET, 401),
        (None, b"x" * 300_000, SECRET, 422),
        (b"not json", b"not json", SECRET, 422),
    ],
)
def test_a_webhook_that_is_not_mlflows_changes_nothing(
    api: Api, signs: bytes | None, sends: bytes, secret: str, status: int
) -> None:
    headers = {} if signs is None else signed(signs, DELIVERY, secret)
    assert api.http.post("/webhooks/mlflow", content=sends, headers=headers).status_code == status
    assert api.world.queue.observed == []


def test_the_trail_is_exported_and_verified(api: Api) -> None:
    api.call("requester", "POST", "/api/v1/promotions", json=ASK)
    verified = api.call("auditor", "GET", "/api/v1/audit/verify").json()
    assert verified["verified"] and verified["leaves"] > 5
    keys = [parse_key(key) for key in api.call("auditor", "GET", "/api/v1/audit/checkpoint").json()["keys"]]
    exported = api.call("auditor", "GET", "/api/v1/audit/export").content
    tree, _ = check_export(io.BytesIO(exported), keys)
    assert (tree.size, tree.root().hex()) == (verified["leaves"], verified["root"])
    assert api.call("auditor", "GET", "/api/v1/audit", params={"limit": 1}).json()[0]["seq"] == 1


def test_a_new_principal_can_call_and_a_taken_name_cannot_be_made_again(api: Api) -> None:
    body = {"name": "ada", "role": "requester"}
    token = api.call("admin", "POST", "/api/v1/tokens", json=body).json()["token"]
    answer = api.http.get("/api/v1/promotions", headers={"Authorization": f"Bearer {token}"})
    assert answer.status_code == 200
    assert api.call("admin", "POST", "/api/v1/tokens", json=body).status_code == 409
    exported = api.call("auditor", "GET", "/api/v1/audit/export").text
    assert '"ada"' not in exported and token not in exported


def test_events_tell_each_change_until_the_end(api: Api) -> None:
    number = api.call("requester", "POST", "/api/v1/promotions", json=ASK).json()["id"]
    api.call("requester", "POST", f"/api/v1/promotions/{number}/cancel", json={"reason": "changed my mind"})
    text = api.call("requester", "GET", f"/api/v1/promotions/{number}/events").text
    events = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: ")]
    assert events[-1]["state"] == "CANCELLED"
    assert events[-1]["reason"] == "changed my mind"


def test_the_lease_is_held_only_while_somebody_vouches(api: Api) -> None:
    path = f"/lease/production/{MODEL}"
    assert api.http.get(path).status_code == 503
    api.world.policies.known[MODEL] = quick(default_policy(MODEL), rollout=Rollout(soak=timedelta(hours=1)))
    number = api.world.ask("1")
    digest = api.world.run(number)["digest"]
    decision = {"decision": "approve", "digest": digest, "reason": "good"}
    api.call("reviewer", "POST", f"/api/v1/promotions/{number}/approvals", json=decision)
    from dataclasses import replace

    api.world.runner._timing = replace(api.world.runner._timing, tick=timedelta(hours=1))
    api.world.run(number)
    assert api.http.get(path).status_code == 200
    with api.world.database.begin() as session:
        releases.renew_lease(session, number, now(session) - timedelta(seconds=1))
    assert api.http.get(path).status_code == 503


def test_pages_follow_each_other(api: Api) -> None:
    for _ in range(60):
        number = api.call("requester", "POST", "/api/v1/promotions", json=ASK).json()["id"]
        api.call("requester", "POST", f"/api/v1/promotions/{number}/cancel", json={})
    first = api.call("auditor", "GET", "/api/v1/promotions").json()
    rest = api.call("auditor", "GET", "/api/v1/promotions", params={"cursor": first["cursor"]}).json()
    assert (len(first["items"]), len(rest["items"]), rest["cursor"]) == (50, 10, None)


def test_the_description_says_what_each_call_does(api: Api) -> None:
    document = api.http.get("/openapi.json").json()
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            assert operation.get("summary") and operation.get("description"), (method, path)
