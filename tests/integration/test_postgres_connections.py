"""Connections to PostgreSQL that broke while nobody used them are replaced before anybody notices."""

import time
from collections.abc import Iterator

import pytest
from sqlalchemy import text

from app.db import registry
from app.db.migrate import upgrade
from app.db.session import Database, now
from app.domain.errors import Transient
from tests.services import postgres

END_OTHERS = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = :name AND pid <> pg_backend_pid()"


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with postgres(tmp_path_factory.mktemp("postgres")) as server:
        fresh = server.fresh()
        upgrade(fresh)
        yield fresh


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    made = Database(url)
    yield made
    made.close()


def add(database: Database, delivery: str) -> bool:
    with database.begin() as session:
        call = {"source": "test", "delivery_id": delivery, "event": "model_version.created", "model": None}
        return registry.add_delivery(session, call)


def end_connections(url: str, database: Database) -> None:
    """As a restart of PostgreSQL, or a firewall between, does it to connections that lie in the pool."""
    other = Database(url)
    with other.begin() as session:
        session.execute(text(END_OTHERS), {"name": database.engine.url.database})
    other.close()


def test_a_connection_that_broke_while_it_lay_idle_is_replaced(url: str, database: Database) -> None:
    assert add(database, "idle-1")
    end_connections(url, database)
    time.sleep(1.1)
    assert add(database, "idle-2")


def test_a_connection_that_broke_a_moment_ago_costs_one_try_and_records_nothing(url: str, database: Database) -> None:
    assert add(database, "soon-1")
    end_connections(url, database)
    try:
        assert add(database, "soon-2")
    except Transient:
        assert add(database, "soon-2")
    assert not add(database, "soon-2")


def test_a_transaction_reads_the_time_once_and_another_one_reads_it_anew(database: Database) -> None:
    with database.begin() as session:
        first, again = now(session), now(session)
    with database.read() as session:
        read = now(session)
    with database.begin() as session:
        second = now(session)
    assert first == again < read < second
