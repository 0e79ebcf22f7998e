"""Tests of the real services that other tests run on."""

import sys
from pathlib import Path

import pytest
import redis as redis_client
import sqlalchemy

from tests import services


def test_postgres_gives_empty_databases(tmp_path: Path) -> None:
    with services.postgres(tmp_path) as server:
        first, second = (sqlalchemy.create_engine(server.fresh()) for _ in range(2))
        with first.begin() as connection:
            connection.execute(sqlalchemy.text("CREATE TABLE kept (n int)"))
            connection.execute(sqlalchemy.text("INSERT INTO kept VALUES (7)"))
        with first.connect() as connection:
            assert connection.execute(sqlalchemy.text("SELECT n FROM kept")).scalar_one() == 7
        assert sqlalchemy.inspect(second).get_table_names() == []
        first.dispose()
        second.dispose()
    with pytest.raises(sqlalchemy.exc.OperationalError):
        first.connect()


def test_redis_answers_and_is_gone_afterwards(tmp_path: Path) -> None:
    with services.redis(tmp_path) as url, redis_client.Redis.from_url(url) as client:
        assert client.ping()
        client.set("key", "value")
        assert client.get("key") == b"value"
    with redis_client.Redis.from_url(url) as client, pytest.raises(redis_client.ConnectionError):
        client.ping()


def test_a_missing_program_is_named_with_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RuntimeError, match=r"redis-server.*ci/install-system\.sh"), services.redis(tmp_path):
        pass


def test_a_server_that_ends_at_once_is_reported_with_its_words(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "raise SystemExit('the words of a server')"]
    with (
        pytest.raises(RuntimeError, match=r"(?s)exit status 1.*the words of a server"),
        services._running(command, tmp_path / "log", lambda: False, OSError),
    ):
        pass
