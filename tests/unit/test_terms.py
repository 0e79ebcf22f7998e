"""Idempotency-Key and If-Match on everything that changes a promotion: once only, and only as it was seen."""

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.api.app import create_app
from app.db import promotions as rows
from app.db.session import Database
from app.domain.errors import Stale
from app.domain.policy import Rollout, default_policy
from app.services import approvals, principals, promotions, trail
from app.services.terms import Terms, tag
from tests.fakes import quick
from tests.plant import MODEL, World
from tests.serving import served

ASK = {"model": MODEL, "version": "1", "environment": "production", "reason": "why not"}


class Desk:
    """A world, a client with an admin's token, and promotions in the state that a route wants."""

    def __init__(self, world: World, http: httpx.Client) -> None:
        self.world, self.http = world, http
        self.reviewer = principals.create(world.database, "rita", "reviewer", "test")

    def post(self, path: str, body: Any, headers: Mapping[str, str] | None = None) -> httpx.Response:
        """Decisions are a reviewer's, all else is an admin's."""
        whose = {"Authorization": f"Bearer {self.reviewer}"} if path.endswith("/approvals") else {}
        return self.http.post(path, json=body, headers={**whose, **(headers or {})})

    def waiting(self) -> int:
        """One that waits for approval."""
        number = self.world.ask("1")
        assert self.world.run(number)["state"] == "APPROVAL"
        return number

    def failed(self) -> int:
        """One that failed."""
        self.world.server.broken = RuntimeError("no room")
        number = self.world.ask("1")
        for _ in range(20):
            if self.world.run(number)["state"] == "FAILED":
                break
            with self.world.database.begin() as session:
                rows.wake(session, number)
        assert self.world.show(number)["state"] == "FAILED"
        self.world.server.broken = None
        return number

    def shown(self, number: int) -> httpx.Response:
        return self.http.get(f"/api/v1/promotions/{number}")

    def leaves(self) -> int:
        return trail.verify(self.world.database).leaves


@pytest.fixture
def desk(database: Database, tmp_path: Path) -> Iterator[Desk]:
    world = World(database, tmp_path)
    world.policies.known[MODEL] = quick(default_policy(MODEL), rollout=Rollout(soak=timedelta(0)))
    token = principals.create(database, "ada", "admin", "test")
    app = create_app(world.core, lambda headers, body, now: None, world.store)
    headers = {"Authorization": f"Bearer {token}"}
    with served(app) as url, httpx.Client(base_url=url, headers=headers, trust_env=False) as http:
        yield Desk(world, http)


Deed = Callable[[Desk], tuple[int, str, Any, Any]]


def ask(desk: Desk) -> tuple[int, str, Any, Any]:
    return 201, "/api/v1/promotions", ASK, {**ASK, "version": "2"}


def approve(desk: Desk) -> tuple[int, str, Any, Any]:
    number = desk.waiting()
    body = {"decision": "approve", "digest": desk.world.show(number)["digest"], "reason": "good"}
    return 201, f"/api/v1/promotions/{number}/approvals", body, {**body, "decision": "reject"}


def cancel(desk: Desk) -> tuple[int, str, Any, Any]:
    return 202, f"/api/v1/promotions/{desk.waiting()}/cancel", {"reason": "no"}, {"reason": "yes"}


def retry(desk: Desk) -> tuple[int, str, Any, Any]:
    return 202, f"/api/v1/promotions/{desk.failed()}/retry", None, None


@pytest.mark.parametrize("deed", [ask, approve, cancel, retry])
def test_the_same_call_twice_is_done_once_and_answered_alike(desk: Desk, deed: Deed) -> None:
    status, path, body, other = deed(desk)
    key = {"Idempotency-Key": "k1"}
    first = desk.post(path, body, key)
    leaves = desk.leaves()
    desk.world.run(first.json()["id"])  # meanwhile it goes on
    went_on = desk.leaves()
    again = desk.post(path, body, key)
    assert (first.status_code, again.status_code) == (status, status), first.text + again.text
    one, two = first.json(), again.json()
    proofs = one.pop("proof", None), two.pop("proof", None)
    assert one == two and first.headers["ETag"] == again.headers["ETag"]
    if proofs[0] is not None:
        assert proofs[0]["seq"] == proofs[1]["seq"] <= leaves
        assert proofs[0]["leaf"] == proofs[1]["leaf"]
    assert desk.leaves() == went_on
    if other is not None:
        refused = desk.post(path, other, key)
        assert (refused.status_code, refused.json()["detail"]) == (409, "Send a fresh key.")


@pytest.mark.parametrize("deed", [ask, approve, cancel, retry])
def test_calls_with_one_key_at_the_same_moment_are_one(desk: Desk, deed: Deed) -> None:
    status, path, body, _ = deed(desk)
    before = desk.leaves()
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: desk.post(path, body, {"Idempotency-Key": "k"}), range(8)))
    assert {answer.status_code for answer in answers} == {status}, [answer.text for answer in answers]
    assert len({answer.headers["ETag"] for answer in answers}) == 1
    alone = {"ask": 1, "approve": 1, "cancel": 1, "retry": 2}[deed.__name__]
    assert desk.leaves() - before == alone


def test_a_key_belongs_to_one_principal_and_one_route(desk: Desk) -> None:
    key = {"Idempotency-Key": "k1"}
    made = desk.http.post("/api/v1/promotions", json=ASK, headers=key).json()
    cancelled = desk.http.post(f"/api/v1/promotions/{made['id']}/cancel", json={"reason": "x"}, headers=key)
    assert (cancelled.status_code, cancelled.json()["state"]) == (202, "CANCELLED")
    other = principals.create(desk.world.database, "eve", "requester", "test")
    hers = desk.http.post("/api/v1/promotions", json=ASK, headers={**key, "Authorization": f"Bearer {other}"})
    assert hers.json()["id"] != made["id"]


def test_an_error_is_not_kept(desk: Desk) -> None:
    key = {"Idempotency-Key": "k1"}
    desk.world.registry.away = True
    assert desk.http.post("/api/v1/promotions", json=ASK, headers=key).status_code == 503
    desk.world.registry.away = False
    assert desk.http.post("/api/v1/promotions", json=ASK, headers=key).status_code == 201


def test_an_answer_with_a_token_is_never_kept(desk: Desk) -> None:
    body = {"name": "bob", "role": "ci"}
    refused = desk.http.post("/api/v1/tokens", json=body, headers={"Idempotency-Key": "k1"})
    assert (refused.status_code, refused.json()["field"]) == (422, "Idempotency-Key")
    assert desk.http.post("/api/v1/tokens", json=body).status_code == 201
    assert desk.http.post("/api/v1/tokens", json=body).status_code == 409


def test_every_call_that_changes_something_takes_a_key_or_says_why_not(desk: Desk) -> None:
    """Webhooks have delivery ids, a backtest writes nothing, tokens are shown once, and two who are one person, or a
    token that is revoked, are no more so for being told twice."""
    without = {"/webhooks/mlflow", "/api/v1/policies/backtest", "/api/v1/tokens"}
    without |= {"/api/v1/principals/{name}/link", "/api/v1/principals/{name}/erase", "/api/v1/tokens/{number}/revoke"}
    for path, operations in desk.http.get("/openapi.json").json()["paths"].items():
        for method in operations.keys() - {"get"}:
            names = {parameter["name"] for parameter in operations[method].get("parameters", [])}
            assert ("idempotency-key" in names) != (path in without), (method, path)
            assert ("if-match" in names) == ("{promotion_id}" in path), (method, path)


@pytest.mark.parametrize("deed", [approve, cancel, retry])
def test_a_decision_on_what_was_not_seen_is_refused(desk: Desk, deed: Deed) -> None:
    status, path, body, _ = deed(desk)
    number = int(path.split("/")[4])
    before = desk.leaves()
    old = desk.post(path, body, {"If-Match": '"of-yesterday"'})
    assert (old.status_code, old.json()["type"]) == (412, "urn:headgate:problem:stale")
    assert f"headgate show {number}" in old.json()["detail"]
    weak = desk.post(path, body, {"If-Match": f"W/{desk.shown(number).headers['ETag']}"})
    assert weak.status_code == 412
    assert desk.leaves() == before
    seen = f'"of-yesterday", {desk.shown(number).headers["ETag"]}'
    assert desk.post(path, body, {"If-Match": seen}).status_code == status
    assert desk.post(path, body, {"If-Match": seen}).status_code == 412


def test_the_tag_stays_while_nothing_new_is_seen_and_changes_with_it(desk: Desk) -> None:
    number = desk.waiting()
    first = desk.shown(number).headers["ETag"]
    with desk.world.database.begin() as session:
        rows.wake(session, number)
    desk.world.run(number)  # a look that finds nobody's decision
    assert desk.shown(number).headers["ETag"] == first
    body = {"decision": "approve", "digest": desk.world.show(number)["digest"], "reason": "good"}
    answer = desk.post(f"/api/v1/promotions/{number}/approvals", body)
    assert answer.headers["ETag"] == desk.shown(number).headers["ETag"] != first
    desk.world.run(number)
    assert desk.shown(number).headers["ETag"] not in (first, answer.headers["ETag"])


def test_the_comparison_holds_until_the_deed(desk: Desk) -> None:
    """Of two who have seen the same and both say so, one comes too late, however they interleave."""
    number = desk.waiting()
    seen = Terms(frozenset({tag(desk.world.show(number))}))
    digest = desk.world.show(number)["digest"]
    reviewer = principals.authenticate(desk.world.database, desk.reviewer)
    deeds: list[Callable[[], object]] = [
        lambda: approvals.decide(desk.world.core, number, reviewer, "approve", digest, "good", seen),
        lambda: promotions.cancel(desk.world.core, number, "no", "ada", seen),
    ]
    with ThreadPoolExecutor(2) as pool:
        errors = [future.exception() for future in [pool.submit(deed) for deed in deeds]]
    assert [type(error) for error in errors if error] == [Stale]
