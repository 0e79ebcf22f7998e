"""Upgrades that are killed, that meet, and that find no database: in the end the schema is there, whole, once."""

import itertools
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import inspect, text

from app.db.migrate import ROOT, is_current, upgrade
from app.db.models import Base
from app.db.session import Database
from app.domain.errors import Transient


class Upgrades:
    """Runs upgrades in processes of their own; `killed_at` names the failpoint at which the first one dies."""

    def __init__(self, folder: Path, process: subprocess.Popen[str]) -> None:
        self._folder, self._process = folder, process

    def run(self, *urls: str, killed_at: str = "") -> list[int]:
        """How the processes ended: 0, or minus the signal that ended them."""
        if killed_at:
            (self._folder / "armed" / f"other:{killed_at}").write_text("kill")
        assert self._process.stdin is not None and self._process.stdout is not None
        print(json.dumps(urls), file=self._process.stdin, flush=True)
        ended: list[int] = json.loads(self._process.stdout.readline())
        return ended


@pytest.fixture(scope="module")
def upgrades(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Upgrades]:
    folder = tmp_path_factory.mktemp("failpoints")
    for name in ("armed", "hit", "reached"):
        (folder / name).mkdir()
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.upgrades"],
        cwd=ROOT,
        env={"HEADGATE_FAILPOINTS": str(folder), "HEADGATE_HOME": str(folder)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        yield Upgrades(folder, process)
        process.kill()


def tables(url: str) -> set[str]:
    database = Database(url)
    try:
        return set(inspect(database.engine).get_table_names())
    finally:
        database.close()


def whole(url: str) -> bool:
    """Whether the schema of a database is the present one, to the last column."""
    database = Database(url)
    try:
        with database.engine.connect() as connection:
            differs = compare_metadata(MigrationContext.configure(connection), Base.metadata)
        return is_current(database, url) and not differs
    finally:
        database.close()


def test_an_upgrade_that_is_killed_after_any_statement_leaves_nothing_and_the_next_one_does_all(
    empty_database: Callable[[], str], upgrades: Upgrades
) -> None:
    for number in itertools.count(1):
        url = empty_database()
        if upgrades.run(url, killed_at=f"migration.statement-{number}") == [0]:
            break  # there are fewer statements than that
        assert tables(url) == set()
        assert upgrades.run(url) == [0]
        assert tables(url) > set(Base.metadata.tables)
    assert number > len(Base.metadata.tables)


@pytest.mark.parametrize(("point", "done"), [("migration.commit.before", False), ("migration.commit.after", True)])
def test_an_upgrade_that_is_killed_around_its_commit(
    empty_database: Callable[[], str], upgrades: Upgrades, point: str, done: bool
) -> None:
    url = empty_database()
    assert upgrades.run(url, killed_at=point) == [-signal.SIGKILL]
    assert whole(url) is done
    assert upgrades.run(url) == [0]
    assert whole(url)


def test_upgrades_that_meet_all_succeed(empty_database: Callable[[], str], upgrades: Upgrades) -> None:
    for _ in range(5):
        url = empty_database()
        assert upgrades.run(*[url] * 4) == [0] * 4
        assert whole(url)


def test_upgrades_that_meet_while_the_first_is_killed(empty_database: Callable[[], str], upgrades: Upgrades) -> None:
    for number in (3, 9, 27):
        url = empty_database()
        ended = upgrades.run(*[url] * 3, killed_at=f"migration.statement-{number}")
        assert sorted(ended) == [-signal.SIGKILL, 0, 0]
        assert whole(url)


def test_an_upgrade_keeps_what_is_there(database_url: str, upgrades: Upgrades) -> None:
    database = Database(database_url)
    with database.begin() as session:
        session.execute(text("INSERT INTO facts (name, value) VALUES ('a', 'b')"))
    assert upgrades.run(database_url, database_url) == [0, 0]
    with database.read() as session:
        assert session.execute(text("SELECT value FROM facts WHERE name = 'a'")).scalar_one() == "b"
    database.close()


def test_a_database_that_is_away_is_told_in_words_and_waited_for(tmp_path: Path) -> None:
    folder = tmp_path / "later"
    url = f"sqlite:///{folder / 'headgate.db'}"
    with pytest.raises(Transient, match="did not answer"):
        upgrade(url)
    come = threading.Timer(1.0, folder.mkdir)
    come.start()
    upgrade(url, timedelta(seconds=60))
    come.join()
    assert whole(url)
