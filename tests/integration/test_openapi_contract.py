"""The OpenAPI document is a contract: schemathesis plays examples, edge cases, noise and whole conversations.

It calls the API on loopback, while a worker moves the promotions that it asks for."""

import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import update

from app.adapters.mlflow_webhook import Delivery, verify
from app.api.app import Edge, create_app
from app.api.rates import Shares
from app.db import promotions as rows
from app.db.models import Token
from app.db.session import Database
from app.domain.errors import HeadgateError
from app.services import outbox, principals, trail
from tests.plant import World
from tests.populated import populate
from tests.serving import served

CONFIG = Path(__file__).with_name("schemathesis.toml")
SEED = os.environ.get("SCHEMATHESIS_SEED", "20261123")
SECONDS = os.environ.get("SCHEMATHESIS_SECONDS", "75")


def check(headers: Mapping[str, str], body: bytes, now: float) -> Delivery:
    return verify(["a-secret-of-tests"], headers, body, now, 300)


@contextmanager
def working(world: World) -> Iterator[None]:
    """A worker that runs whatever is due, until the block ends; what goes wrong in it is raised there."""
    over, trouble = threading.Event(), list[BaseException]()

    def work() -> None:
        while not over.wait(0.05):
            try:
                with world.database.read() as session:
                    due = list(rows.due(session))
                for number in due:
                    world.runner.advance(number)
                outbox.deliver(world.core, "worker-1")
            except HeadgateError:
                continue  # as the clock's next tick would
            except BaseException as error:  # noqa: BLE001 -- raised below
                trouble.append(error)
                return

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
    if trouble:
        raise trouble[0]


def caller(world: World) -> str:
    """An admin's token, whose number nobody guesses: it would be revoked, and then all that follows is a 401."""
    token = principals.create(world.database, "the-caller", "admin", "test")
    with world.database.begin() as session:
        session.execute(update(Token).where(Token.principal == "the-caller").values(id=1_234_567_891))
    return token


def test_the_api_keeps_what_its_document_promises(database: Database, tmp_path: Path) -> None:
    world = World(database, tmp_path)
    populate(world)
    token = caller(world)
    shares = Shares(per_second=100_000, burst=100_000, failures=1_000_000)  # what these do is tested elsewhere
    app = create_app(world.core, check, world.store, edge=Edge(shares=shares))
    with served(app) as url, working(world):
        command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(CONFIG), "run", f"{url}/openapi.json"]
        command += ["--seed", SEED, "--max-time", SECONDS, "--header", f"Authorization: Bearer {token}"]
        command += ["--report", "junit", "--report-dir", str(tmp_path / "report"), "--no-color"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-2000:]
    told = re.search(r"Selected: (\d+)/(\d+)\s+Tested: (\d+)", done.stdout)
    assert told is not None and len(set(told.groups())) == 1, done.stdout[-5000:]
    assert trail.verify(world.database).verified
