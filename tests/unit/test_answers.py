"""Every answer has its headers and its id and gives nothing away; looking changes nothing."""

import hashlib
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import select

from app import logs
from app.api.answers import HEADERS
from app.api.app import Edge, create_app
from app.db.models import Base
from app.db.session import Database
from app.domain.promotion import State
from app.services import principals
from tests.plant import MODEL, World
from tests.populated import populate
from tests.serving import served

ASK = {"model": MODEL, "version": "1", "environment": "production", "reason": "why not"}
SECRETS = ("Traceback", "sqlalchemy", "SELECT", "sqlite", "psycopg", "hg_", str(Path.cwd()), "site-packages", ".py")


@pytest.fixture
def world(database: Database, tmp_path: Path) -> World:
    return World(database, tmp_path)


@pytest.fixture
def app(world: World) -> FastAPI:
    def verify(headers: Mapping[str, str], body: bytes, now: float) -> Any:
        raise RuntimeError(f"SELECT secret FROM {Path.cwd()}")

    return create_app(world.core, verify, world.store)


@pytest.fixture
def http(app: FastAPI, world: World) -> Iterator[httpx.Client]:
    headers = {"Authorization": f"Bearer {principals.create(world.database, 'ada', 'admin', 'test')}"}
    with served(app) as url, httpx.Client(base_url=url, headers=headers, trust_env=False) as client:
        yield client


def everything(http: httpx.Client) -> Iterator[httpx.Response]:
    """Answers of every kind: good ones, refusals of each layer, and a defect."""
    yield http.get("/healthz")
    yield http.get("/openapi.json")
    yield http.get("/api/v1/promotions")
    yield http.get("/api/v1/promotions", headers={"Authorization": "Bearer hg_not-a-token"})
    yield http.get("/api/v1/promotions", headers={"Authorization": "Basic aGdfeDp5"})
    yield http.get("/api/v1/promotions/99999")
    yield http.get("/api/v1/promotions/hg_abc")
    yield http.get("/nowhere/../../etc/passwd")
    yield http.get("/docs")
    yield http.delete("/api/v1/promotions")
    yield http.request("TRACE", "/api/v1/promotions")
    yield http.post("/api/v1/promotions", content=b"{")
    yield http.post("/api/v1/promotions", content=b"\xff")
    yield http.post("/api/v1/promotions", content=b"x" * 300_000)
    yield http.post("/api/v1/promotions", json={**ASK, "environment": "moon"})
    yield http.post("/api/v1/promotions", content=b'{"\\ud800": 1}', headers={"Content-Type": "application/json"})
    yield http.post("/webhooks/mlflow", content=b"{}")


def test_every_answer_has_the_headers_and_an_id_of_its_own(http: httpx.Client) -> None:
    seen = set()
    for answer in everything(http):
        assert {name: answer.headers.get(name) for name in HEADERS} == HEADERS, answer.request.url
        assert "Strict-Transport-Security" not in answer.headers
        seen.add(answer.headers["X-Request-Id"])
    assert len(seen) == 17


def test_what_goes_wrong_is_told_in_a_problem_document_that_leaks_nothing(http: httpx.Client) -> None:
    kinds = set()
    for answer in everything(http):
        if answer.is_success:
            continue
        document = answer.json()
        assert answer.headers["Content-Type"] == "application/problem+json", answer.request.url
        assert document["status"] == answer.status_code
        assert not [word for word in SECRETS if word in answer.text.replace("/api/v1/promotions/hg_", "")], answer.text
        kinds.add(answer.status_code)
    assert kinds == {400, 401, 404, 405, 413, 422, 500}


def test_a_method_that_is_not_allowed_names_those_that_are(http: httpx.Client) -> None:
    answer = http.delete("/api/v1/promotions/1/cancel")
    assert (answer.status_code, answer.headers["Allow"]) == (405, "POST")


def test_the_log_says_more_under_the_answers_id(http: httpx.Client, caplog: pytest.LogCaptureFixture) -> None:
    lines = []
    write = logs._JsonLines()

    class Kept(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(write.format(record))

    kept = Kept()
    logging.getLogger("app.api.errors").addHandler(kept)
    try:
        answer = http.post("/webhooks/mlflow", content=b"{}")
    finally:
        logging.getLogger("app.api.errors").removeHandler(kept)
    assert answer.status_code == 500
    (line,) = lines
    assert f'"request": "{answer.headers["X-Request-Id"]}"' in line
    assert "RuntimeError" in line and "/webhooks/mlflow" in line


def test_what_is_away_is_told_without_where_it_lies(http: httpx.Client, world: World) -> None:
    world.registry.away = True
    answer = http.post("/api/v1/promotions", json=ASK)
    assert answer.status_code == 503
    assert not [word for word in SECRETS if word in answer.text]


def test_where_people_come_by_https_browsers_are_told_to_keep_to_it(world: World) -> None:
    app = create_app(world.core, lambda headers, body, now: None, world.store, edge=Edge(https=True))
    with served(app) as url, httpx.Client(base_url=url, trust_env=False) as http:
        assert http.get("/healthz").headers["Strict-Transport-Security"] == "max-age=31536000"


def digest(database: Database) -> dict[str, str]:
    """Each table's content."""
    with database.read() as session:
        return {
            table.name: hashlib.sha256(
                "\n".join(sorted(repr(tuple(row)) for row in session.execute(select(table)))).encode()
            ).hexdigest()
            for table in Base.metadata.sorted_tables
        }


def test_looking_changes_nothing(app: FastAPI, http: httpx.Client, world: World) -> None:
    """Every GET route there is, with a token that may do everything."""
    number = populate(world)[State.ROLLOUT]
    values = {"promotion_id": number, "name": "parity", "seq": "2", "old": "2", "environment": "production"}
    query = {"model": "rolls", "version": "2", "environment": "production", "at": "2100-01-01T00:00:00Z"}
    before, asked = digest(world.database), 0
    for path, operations in [
        *http.get("/openapi.json").json()["paths"].items(),
        ("/lease/production/rolls", ["get"]),
    ]:
        if "get" not in operations:
            continue
        for method in ("GET", "HEAD"):
            with http.stream(method, path.format(**values), params=query, timeout=30) as answer:
                said = next(answer.iter_text(), "")  # of events no more: they go on until the promotion has ended
            assert answer.status_code in ((200, 404, 503) if method == "GET" else (405,)), (path, said)
            asked += answer.status_code == 200
            assert digest(world.database) == before, (method, path)
    assert asked >= 15
    assert world.queue.observed == []
