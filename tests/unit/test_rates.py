"""Everybody's share: calls of a principal, failures of an address behind proxies that are trusted or not, streams."""

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.api.app import Edge, create_app
from app.api.rates import REMEMBERED, Buckets, Shares
from app.db.session import Database
from app.services import principals
from tests.plant import MODEL, World
from tests.serving import served


class Clock:
    """Stands still until it is moved."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_bucket_empties_and_fills_again() -> None:
    clock = Clock()
    buckets = Buckets(2, 3, clock)
    assert [buckets.take("a") for _ in range(4)] == [0, 0, 0, 0.5]
    assert buckets.take("b") == 0
    clock.now += 0.5
    assert [buckets.take("a"), buckets.take("a")] == [0, 0.5]
    clock.now += 1000
    assert [buckets.take("a") for _ in range(4)] == [0, 0, 0, 0.5]


def test_who_goes_on_asking_gets_on_no_later() -> None:
    clock = Clock()
    buckets = Buckets(1, 1, clock)
    waits = [buckets.take("a")]
    for _ in range(10):
        clock.now += 0.25
        waits.append(buckets.take("a"))
    assert waits.count(0) == 3


def test_names_without_end_take_no_memory_without_end() -> None:
    buckets = Buckets(1, 1, Clock())
    for number in range(REMEMBERED + 10):
        assert buckets.take(str(number)) == 0
    assert buckets.take(str(REMEMBERED)) > 0
    assert buckets.take("0") == 0


class Site:
    """The API with small shares, called from loopback."""

    def __init__(self, world: World, http: httpx.Client) -> None:
        self.world, self.http = world, http

    def token(self, name: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {principals.create(self.world.database, name, 'admin', 'test')}"}

    def look(self, headers: dict[str, str]) -> httpx.Response:
        return self.http.get("/api/v1/promotions", headers=headers)

    def use_up(self, headers: dict[str, str], status: int) -> httpx.Response:
        """Call until the answer is another one than `status`."""
        for _ in range(200):
            answer = self.look(headers)
            if answer.status_code != status:
                return answer
        raise AssertionError("there is no end")


@contextlib.contextmanager
def site(world: World, *proxies: str, **shares: Any) -> Iterator[Site]:
    # So slow to fill that nothing comes back while a test runs.
    found = replace(Shares(per_second=0.01, burst=5, failures=5, streams=2), **shares)
    app = create_app(world.core, lambda headers, body, now: None, world.store, edge=Edge(shares=found, proxies=proxies))
    with served(app) as url, httpx.Client(base_url=url, trust_env=False) as http:
        yield Site(world, http)


@pytest.fixture
def world(database: Database, tmp_path: Path) -> World:
    return World(database, tmp_path)


WRONG = {"Authorization": "Bearer hg_wrong"}


def test_a_principal_that_calls_too_often_waits_and_others_do_not(world: World) -> None:
    with site(world, failures=60) as found:
        ada, eve = found.token("ada"), found.token("eve")
        refused = found.use_up(ada, 200)
        assert (refused.status_code, refused.json()["type"]) == (429, "urn:headgate:problem:too-many")
        assert 1 <= int(refused.headers["Retry-After"]) <= 100
        assert "share" in refused.json()["detail"]
        assert found.look(eve).status_code == 200
        assert found.http.get("/healthz").status_code == 200


def test_whoever_guesses_waits_and_shuts_out_nobody_who_was_let_in_before(world: World) -> None:
    with site(world, burst=1000, failures=1) as found:
        ada = found.token("ada")
        assert found.look(ada).status_code == 200
        assert found.use_up(WRONG, 401).status_code == 429
        assert found.look({"Authorization": "Bearer hg_another-guess"}).status_code == 429
        assert found.look({}).status_code == 429
        assert found.look(ada).status_code == 200
        for path in ("/healthz", "/readyz", f"/lease/production/{MODEL}"):
            assert found.http.get(path).status_code != 429


def test_a_token_that_was_only_shown_is_no_pass(world: World) -> None:
    with site(world, burst=1000, failures=1) as found:
        assert found.http.get("/openapi.json", headers=WRONG).status_code == 200
        assert found.http.get("/healthz", headers=WRONG).status_code == 200
        found.use_up({}, 401)
        assert found.look(WRONG).status_code == 429


@pytest.mark.parametrize(
    ("proxies", "told_apart"),
    [((), False), (("10.0.0.0/8",), False), (("127.0.0.1",), True), (("127.0.0.0/8", "192.0.2.1"), True)],
)
def test_a_callers_address_is_what_a_trusted_proxy_says_and_nobody_else(
    world: World, proxies: tuple[str, ...], told_apart: bool
) -> None:
    with site(world, *proxies, failures=1) as found:
        one = {**WRONG, "X-Forwarded-For": "198.51.100.1"}
        assert found.use_up(one, 401).status_code == 429
        other = {**WRONG, "X-Forwarded-For": "198.51.100.2"}
        assert found.look(other).status_code == (401 if told_apart else 429)
        # What the caller itself wrote stands before what the proxy has added, and counts for nothing.
        forged = {**WRONG, "X-Forwarded-For": "198.51.100.3, 198.51.100.1"}
        assert found.look(forged).status_code == 429


def test_event_streams_are_counted_and_given_back(world: World) -> None:
    with site(world, burst=1000, per_second=100) as found:
        ada, eve, number = found.token("ada"), found.token("eve"), world.ask("1")
        path = f"/api/v1/promotions/{number}/events"
        with contextlib.ExitStack() as open_streams:
            hers = [open_streams.enter_context(found.http.stream("GET", path, headers=ada)) for _ in range(2)]
            lines = [answer.iter_lines() for answer in hers]  # kept: whoever drops one hangs up
            assert [next(line) for line in lines] == ["event: promotion"] * 2
            refused = found.http.get(path, headers=ada)
            assert (refused.status_code, refused.json()["type"]) == (429, "urn:headgate:problem:too-many")
            with found.http.stream("GET", path, headers=eve) as other:
                assert other.status_code == 200
        for _ in range(200):
            with found.http.stream("GET", path, headers=ada) as again:
                if again.status_code == 200:
                    break
        else:
            raise AssertionError("what was given up was never given back")
        missing = [found.http.get("/api/v1/promotions/999/events", headers=eve).status_code for _ in range(10)]
        assert missing == [404] * 10


def test_watchers_keep_nobody_waiting(world: World) -> None:
    """More of them than the process has threads."""
    with site(world, burst=1000, per_second=100, streams=100) as found, contextlib.ExitStack() as open_streams:
        ada, number = found.token("ada"), world.ask("1")
        wide = httpx.Limits(max_connections=100)
        http = open_streams.enter_context(httpx.Client(base_url=found.http.base_url, limits=wide, trust_env=False))
        for _ in range(60):
            path = f"/api/v1/promotions/{number}/events"
            answer = open_streams.enter_context(http.stream("GET", path, headers=ada, timeout=30))
            assert answer.status_code == 200
        assert found.http.get("/api/v1/promotions", headers=ada, timeout=30).status_code == 200
