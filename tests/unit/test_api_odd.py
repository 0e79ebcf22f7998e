"""The API with values that nobody sends on purpose: each gets an answer in words, none a 500."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from app.api.app import create_app
from app.db.session import Database
from app.services import principals
from tests.plant import MODEL, World
from tests.serving import served

ASK = {"model": MODEL, "version": "1", "environment": "production", "reason": "why not"}


@pytest.fixture
def world(database: Database, tmp_path: Path) -> World:
    return World(database, tmp_path)


@pytest.fixture
def http(world: World) -> Iterator[httpx.Client]:
    token = principals.create(world.database, "ada", "admin", "test")
    headers = {"Authorization": f"Bearer {token}"}
    app = create_app(world.core, lambda headers, body, now: None, world.store)
    with served(app) as url, httpx.Client(base_url=url, headers=headers, trust_env=False) as client:
        yield client


NUMBERED: list[tuple[str, str, Any]] = [
    ("GET", "/api/v1/promotions/{}", None),
    ("GET", "/api/v1/promotions/{}/events", None),
    ("POST", "/api/v1/promotions/{}/cancel", {}),
    ("POST", "/api/v1/promotions/{}/retry", None),
    ("POST", "/api/v1/promotions/{}/decide", {"decision": "continue", "reason": "x"}),
    ("POST", "/api/v1/promotions/{}/approvals", {"decision": "approve", "digest": "sha256:" + "0" * 64, "reason": "x"}),
    ("GET", "/api/v1/promotions?cursor={}", None),
    ("GET", "/api/v1/changes?cursor={}", None),
    ("GET", "/api/v1/audit?after={}", None),
]


@pytest.mark.parametrize("number", [0, -1, 2**31, 2**63, 10**30])
def test_numbers_that_no_row_has(http: httpx.Client, number: int) -> None:
    for method, path, body in NUMBERED:
        answer = http.request(method, path.format(number), json=body)
        assert answer.status_code in (200, 404, 422), (path, answer.text)


@pytest.mark.parametrize(
    "at", ["2026-01-01", "2026-01-01T00:00:00", "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "1e400", "12"]
)
def test_times_without_a_zone_or_beyond_the_calendar(http: httpx.Client, at: str) -> None:
    answer = http.get("/api/v1/releases", params={"at": at})
    assert answer.status_code in (200, 422), answer.text
    if answer.status_code == 422:
        assert answer.json()["field"] == "at"


@pytest.mark.parametrize("word", ["a\0b", "\N{PILE OF POO}" * 400, "x" * 5000, "%", "'; --", "a/b", "../x"])
def test_words_that_no_column_holds(http: httpx.Client, word: str) -> None:
    for path in ("/api/v1/promotions", "/api/v1/changes", "/api/v1/releases"):
        assert http.get(path, params={"model": word}).status_code in (200, 422)
    assert http.get("/api/v1/releases", params={"environment": word}).status_code in (200, 422)
    assert http.get(f"/lease/x/{quote(word)}").status_code in (404, 503)
    assert http.post("/api/v1/promotions", json={**ASK, "model": word}).status_code in (404, 422)
    assert http.post("/api/v1/tokens", json={"name": word, "role": "ci"}).status_code == 422
    made = http.post("/api/v1/promotions", json={**ASK, "reason": word})
    assert made.status_code in (201, 422)
    if made.status_code == 201:
        cancelled = http.post(f"/api/v1/promotions/{made.json()['id']}/cancel", json={"reason": word})
        assert cancelled.json()["state"] == "CANCELLED"
        assert http.get("/api/v1/audit/verify").json()["verified"]


def test_half_a_surrogate_pair_is_no_text(http: httpx.Client) -> None:
    body = b'{"model": "m", "version": "1", "environment": "production", "reason": "\\ud800"}'
    answer = http.post("/api/v1/promotions", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 422
