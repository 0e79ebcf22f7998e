"""Writers of several processes on SQLite: who finds somebody writing waits for its turn, and gets it."""

import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.db import registry
from app.db.migrate import upgrade
from app.db.session import Database

WRITERS, EACH = 3, 20


@pytest.fixture
def url(tmp_path: Path) -> str:
    made = f"sqlite:///{tmp_path}/headgate.db"
    upgrade(made)
    return made


@pytest.fixture
def databases(url: str) -> Iterator[list[Database]]:
    """Each as in a process of its own: threads of one would queue before they come to SQLite."""
    made = [Database(url) for _ in range(WRITERS)]
    yield made
    for database in made:
        database.close()


def add(database: Database, delivery: str) -> bool:
    with database.begin() as session:
        return registry.add_delivery(session, {"source": "test", "delivery_id": delivery, "event": "e"})


def test_a_writer_waits_until_the_one_before_it_has_ended(databases: list[Database], tmp_path: Path) -> None:
    before = sqlite3.connect(tmp_path / "headgate.db", isolation_level=None, check_same_thread=False)
    before.execute("BEGIN IMMEDIATE")
    ending = threading.Timer(0.2, before.commit)
    ending.start()
    assert add(databases[0], "after")
    assert not before.in_transaction
    ending.join()
    before.close()


def test_every_writer_gets_its_turn(databases: list[Database]) -> None:
    added: list[bool] = []

    def write(number: int) -> None:
        added.extend(add(databases[number], f"{number}-{one}") for one in range(EACH))

    threads = [threading.Thread(target=write, args=(number,)) for number in range(WRITERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert added == [True] * WRITERS * EACH
