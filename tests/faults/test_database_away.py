"""PostgreSQL ends every backend, becomes read-only, or stops and starts while requests and workers run: clients get an
answer or a 503, nothing is lost or doubled, and all goes on without a restart."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial
from pathlib import Path

import httpx
import pytest
from sqlalchemy import text

from app.api.app import create_app
from app.db import promotions as rows
from app.db.migrate import upgrade
from app.db.session import Database
from app.domain.errors import Transient
from app.domain.policy import Approvals, Rollout, default_policy
from app.parts import Timing
from app.services import principals, trail
from tests.fakes import quick
from tests.plant import World
from tests.services import Postgres, stopped_postgres
from tests.serving import served

TERMINATE = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
    "WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
)
READ_ONLY = "ALTER SYSTEM SET default_transaction_read_only = on"
WRITABLE = "ALTER SYSTEM RESET default_transaction_read_only"
RELOAD = "SELECT pg_reload_conf()"
CLIENTS, EACH = 3, 12
PATIENCE = 120.0


class Site:
    """An API, two workers that look for what is due, and clients that ask until they are answered."""

    def __init__(self, server: Postgres, running: contextlib.ExitStack, world: World, url: str) -> None:
        self.server, self.running, self.world, self.url = server, running, world, url
        token = principals.create(world.database, "ada", "admin", "test")
        self.headers = {"Authorization": f"Bearer {token}"}
        self.refusals: list[httpx.Response] = []
        self.done = threading.Event()

    def promote(self, client: int) -> list[int]:
        """Ask for one promotion after the other, each until it is taken; returns their ids."""
        made = []
        with httpx.Client(base_url=self.url, headers=self.headers, trust_env=False, timeout=60) as http:
            for number in range(EACH):
                answer = self.until_answered(partial(_ask, http, f"model-{client}-{number}"))
                assert answer.status_code == 201, answer.text
                made.append(answer.json()["id"])
        return made

    def until_answered(self, send: Callable[[], httpx.Response]) -> httpx.Response:
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            answer = send()
            if answer.status_code != 503:
                return answer
            self.refusals.append(answer)
            time.sleep(0.05)
        raise TimeoutError(answer.text)

    def work(self, name: str) -> None:
        """What a worker's sweep does, over and over."""
        runner = self.world.worker(name)
        runner._timing = Timing(timedelta(seconds=1), timedelta(seconds=1), timedelta(0), timedelta(0))
        while not self.done.is_set():
            try:
                with self.world.database.read() as session:
                    due = rows.due(session)
                for promotion_id in due:
                    runner.advance(promotion_id)
            except Transient:
                time.sleep(0.05)
            self.done.wait(0.02)

    def play(self, trouble: Callable[[], None]) -> None:
        """Let clients and workers run while `trouble` is made; afterwards everything must be there, once."""
        with ThreadPoolExecutor() as pool:
            workers = [pool.submit(self.work, f"worker-{number}") for number in range(2)]
            clients = [pool.submit(self.promote, number) for number in range(CLIENTS)]
            try:
                trouble()
                made = [number for client in clients for number in client.result(PATIENCE)]
                self.come_to_rest(made)
            finally:
                self.done.set()
            for worker in workers:
                worker.result(PATIENCE)
        self.check(made)

    def come_to_rest(self, made: list[int]) -> None:
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            if all(self.world.show(number)["state"] in ("LIVE", "FAILED") for number in made):
                return
            time.sleep(0.2)
        raise TimeoutError([self.world.show(number) for number in made])

    def check(self, made: list[int]) -> None:
        assert len(set(made)) == CLIENTS * EACH
        leaves, after = [], 0
        while page := trail.page(self.world.database, after, 1000):
            leaves += page
            after = page[-1]["seq"]
        moved = [leaf["body"] for leaf in leaves if leaf["kind"] == "promotion.transition"]
        moves = [(body["promotion"], body["to"]) for body in moved]
        assert len(moves) == len(set(moves))
        assert {number for number, to in moves if to == "LIVE"} == set(made)
        assert sum(leaf["kind"] == "promotion.requested" for leaf in leaves) == len(made)
        assert trail.verify(self.world.database).verified
        for refusal in self.refusals:
            assert refusal.headers["content-type"] == "application/problem+json"
            assert refusal.json()["type"] == "urn:headgate:problem:unavailable"
            assert "psycopg" not in refusal.text and "127.0.0.1" not in refusal.text


def _ask(http: httpx.Client, model: str) -> httpx.Response:
    body = {"model": model, "version": "1", "environment": "production", "reason": ""}
    return http.post("/api/v1/promotions", json=body, headers={"Idempotency-Key": model})


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    (tmp_path / "world").mkdir()
    with stopped_postgres(tmp_path) as server, contextlib.ExitStack() as running:
        running.enter_context(server.run())
        url = server.fresh()
        upgrade(url)
        database = Database(url)
        world = World(database, tmp_path / "world")
        for model in (f"model-{client}-{number}" for client in range(CLIENTS) for number in range(EACH)):
            world.registry.register(model, "1", world.folder / "model-1")
            rules = quick(default_policy(model), approvals=Approvals(required=0))
            world.policies.known[model] = quick(rules, rollout=Rollout(soak=timedelta(0)))
        with served(create_app(world.core, lambda *_: None, world.store)) as address:
            yield Site(server, running, world, address)
        database.close()


def test_every_backend_is_ended_again_and_again(site: Site) -> None:
    def trouble() -> None:
        for _ in range(25):
            site.server.admin(TERMINATE)
            time.sleep(0.1)

    site.play(trouble)
    assert site.refusals


def test_the_database_stops_and_starts(site: Site) -> None:
    def trouble() -> None:
        for _ in range(3):
            time.sleep(0.5)
            site.running.close()
            time.sleep(0.5)
            site.running.enter_context(site.server.run())

    site.play(trouble)
    assert site.refusals


def test_the_database_becomes_read_only_for_a_while(site: Site) -> None:
    def trouble() -> None:
        for _ in range(3):
            time.sleep(0.3)
            site.server.admin(READ_ONLY, RELOAD)
            time.sleep(0.5)
            # What is there can be read all the time.
            answer = httpx.get(f"{site.url}/api/v1/promotions", headers=site.headers, trust_env=False)
            assert answer.status_code == 200
            site.server.admin(WRITABLE, RELOAD)

    site.play(trouble)
    assert [refusal for refusal in site.refusals if "can only be read" in refusal.text]


def test_a_client_that_stops_in_the_middle_of_a_transaction_does_not_hold_its_locks_for_ever(site: Site) -> None:
    """Its session says how long it may be idle there, and how long others wait for a lock."""
    with site.world.database.begin() as session:
        idle = session.execute(text("SHOW idle_in_transaction_session_timeout")).scalar_one()
        wait = session.execute(text("SHOW lock_timeout")).scalar_one()
    assert (idle, wait) == ("30s", "15s")
