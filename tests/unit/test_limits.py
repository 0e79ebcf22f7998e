"""What a request may bring: each limit is met by a raw client, and each refusal is a problem document."""

import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from app.api.app import Edge, create_app
from app.api.limits import Limits
from app.db.session import Database
from app.services import history, principals
from tests.plant import MODEL, World
from tests.serving import served

LIMITS = Limits(body_bytes=250_000, body_seconds=0.5, depth=20, hosts=frozenset({"127.0.0.1", "headgate.example"}))
ASK = {"model": MODEL, "version": "1", "environment": "production", "reason": "why not"}


@pytest.fixture
def world(database: Database, tmp_path: Path) -> World:
    return World(database, tmp_path)


@pytest.fixture
def token(world: World) -> str:
    return principals.create(world.database, "ada", "admin", "test")


@pytest.fixture
def http(world: World, token: str) -> Iterator[httpx.Client]:
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    app = create_app(world.core, lambda headers, body, now: None, world.store, edge=Edge(LIMITS))
    with served(app) as url, httpx.Client(base_url=url, headers=headers, trust_env=False) as client:
        yield client


def is_problem(answer: httpx.Response, status: int, kind: str) -> bool:
    document = answer.json()
    return (
        answer.status_code == document["status"] == status
        and document["type"] == f"urn:headgate:problem:{kind}"
        and answer.headers["Content-Type"] == "application/problem+json"
        and bool(document["title"] and document["detail"])
    )


def nested(depth: int) -> bytes:
    return json.dumps({**ASK, "reason": "MARK"}).encode().replace(b'"MARK"', b"[" * depth + b"]" * depth)


@pytest.mark.parametrize("path", ["/api/v1/promotions", "/webhooks/mlflow", "/api/v1/nowhere", "/healthz"])
def test_a_body_that_is_too_large_is_refused_wherever_it_goes(http: httpx.Client, world: World, path: str) -> None:
    assert is_problem(http.post(path, content=b"x" * 250_001), 413, "too-large")
    assert history.search(world.database, None, None, None, None)["items"] == []


def test_a_body_is_counted_as_it_comes(http: httpx.Client) -> None:
    pieces = (b" " * 10_000 for _ in range(100))  # chunked: no Content-Length says how much it will be
    assert is_problem(http.post("/api/v1/promotions", content=pieces), 413, "too-large")
    padded = json.dumps(ASK).encode().ljust(250_000)
    assert http.post("/api/v1/promotions", content=padded).status_code == 201


def test_a_flood_is_cut_off(http: httpx.Client) -> None:
    with socket.create_connection(_address(http), timeout=30) as raw:
        raw.sendall(b"POST /webhooks/mlflow HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000000000\r\n\r\n")
        sent = 0
        with pytest.raises(OSError, match=r"reset|pipe"):
            while True:
                raw.sendall(b"x" * 10_000)
                sent += 10_000
    assert sent < 100_000_000


def test_a_body_that_drips_is_given_up(http: httpx.Client) -> None:
    with socket.create_connection(_address(http), timeout=30) as raw:
        raw.sendall(b"POST /webhooks/mlflow HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000\r\n\r\n")
        said, end = b"", time.monotonic() + 30
        raw.settimeout(0.05)
        while time.monotonic() < end:
            try:
                raw.sendall(b" ")
                piece = raw.recv(65536)
            except TimeoutError:
                continue
            except OSError:
                break  # we went on writing to a connection that was closed
            said += piece
            if not piece:
                break
    assert time.monotonic() < end, "the connection was never closed"
    assert said.startswith(b"HTTP/1.1 408 ") and b"urn:headgate:problem:too-slow" in said


@pytest.mark.parametrize("depth", [20, 900, 9_000])
def test_json_that_is_nested_too_deep_is_refused(http: httpx.Client, depth: int) -> None:
    assert is_problem(http.post("/api/v1/promotions", content=nested(depth)), 422, "too-deep")


def test_brackets_in_strings_are_no_depth(http: httpx.Client) -> None:
    body = {**ASK, "reason": '[{"' * 500 + "\\"}
    assert http.post("/api/v1/promotions", json=body).status_code == 201


@pytest.mark.parametrize("piece", [b'"\\', b'"\\"', b'\\"', b"[", b"[]", b'[""', b'[""]', b'"', b"\\"])
def test_no_body_takes_long_to_look_through(http: httpx.Client, piece: bytes) -> None:
    body = (b'"' + piece * 250_000)[:250_000]
    assert http.post("/api/v1/promotions", content=body, timeout=20).status_code == 422


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "latin-1"])
def test_other_encodings_than_utf8_are_refused(http: httpx.Client, encoding: str) -> None:
    body = json.dumps({**ASK, "reason": "é"}, ensure_ascii=False).encode(encoding)
    assert is_problem(http.post("/api/v1/promotions", content=body), 400, "not-json")


@pytest.mark.parametrize("number", ["9" * 15_000, "1e999", "NaN", "-Infinity"])
def test_numbers_that_nobody_writes(http: httpx.Client, number: str) -> None:
    body = json.dumps(ASK).encode().replace(b'"1"', number.encode())
    assert http.post("/api/v1/promotions", content=body).status_code in (400, 422)


def test_addresses_and_headers_have_an_end(http: httpx.Client) -> None:
    assert is_problem(http.get("/api/v1/promotions", params={"model": "x" * 9_000}), 414, "too-long")
    assert is_problem(http.get("/api/v1/promotions", headers={"X-Long": "x" * 33_000}), 431, "too-long")


@pytest.mark.parametrize(
    ("host", "known"),
    [
        ("127.0.0.1:99", True),
        ("Headgate.Example", True),
        ("evil.example", False),
        ("headgate.example.evil", False),
        ("127.0.0.1:1@evil", False),
    ],
)
def test_only_our_own_names_are_answered(http: httpx.Client, host: str, known: bool) -> None:
    answer = http.get("/api/v1/promotions", headers={"Host": host})
    assert answer.status_code == 200 if known else is_problem(answer, 421, "host")
    # The router asks by whatever name it has, and must not take its canary down for that.
    assert http.get("/healthz", headers={"Host": host}).status_code == 200
    assert http.get(f"/lease/production/{MODEL}", headers={"Host": host}).json() == {"lease": False}


def test_no_address_is_made_of_what_a_caller_calls_us(world: World, token: str) -> None:
    app = create_app(world.core, lambda headers, body, now: None, world.store)
    headers = {"Authorization": f"Bearer {token}", "Host": "evil.example", "X-Forwarded-Host": "evil.example"}
    with served(app) as url, httpx.Client(base_url=url, headers=headers, trust_env=False) as client:
        made = client.post("/api/v1/promotions", json=ASK)
        assert made.headers["Location"] == "/api/v1/promotions/1"
        assert client.get("/api/v1/promotions/").status_code == 404
        for path in ("/api/v1/promotions/1", "/openapi.json", "/webhooks/mlflow/"):
            answer = client.get(path)
            assert "evil" not in answer.text + str(answer.headers)


def _address(http: httpx.Client) -> tuple[str, int]:
    found = urlsplit(str(http.base_url))
    assert found.hostname and found.port
    return found.hostname, found.port
