"""Databases for tests: each test gets a fresh, migrated one; `--database` says of which kind."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from app.db.migrate import upgrade
from app.db.session import Database
from tests.services import postgres

# How long an example takes says more about the machine than about what is tested.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--database", choices=["sqlite", "postgresql"], default="sqlite", help="what tests store in")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Whatever touches the database is run on both: `-m database` finds it by its fixtures, so none is forgotten. What
    says by itself that it runs `on` one of them is left to that run."""
    for item in items:
        if isinstance(item, pytest.Function) and {"empty_database", "new_database", "backing"} & set(item.fixturenames):
            item.add_marker("database")
    wanted = config.getoption("--database")
    items[:] = [item for item in items if (only := item.get_closest_marker("on")) is None or only.args == (wanted,)]


@pytest.fixture(scope="session")
def empty_database(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[], str]]:
    """Makes URLs of fresh databases without any table."""
    if request.config.getoption("--database") == "sqlite":
        yield lambda: f"sqlite:///{tmp_path_factory.mktemp('db') / 'headgate.db'}"
        return
    with postgres(tmp_path_factory.mktemp("database")) as server:
        yield server.fresh


@pytest.fixture(scope="session")
def new_database(
    request: pytest.FixtureRequest, empty_database: Callable[[], str], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[], str]:
    """Makes URLs of fresh, migrated databases."""
    if request.config.getoption("--database") != "sqlite":
        return lambda: _migrated(empty_database())
    template = tmp_path_factory.mktemp("database") / "template.db"
    upgrade(f"sqlite:///{template}")
    return lambda: _copy(template, tmp_path_factory.mktemp("db") / "headgate.db")


def _copy(template: Path, to: Path) -> str:
    shutil.copyfile(template, to)
    return f"sqlite:///{to}"


def _migrated(url: str) -> str:
    upgrade(url)
    return url


@pytest.fixture
def database_url(new_database: Callable[[], str]) -> str:
    return new_database()


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    opened = Database(database_url)
    yield opened
    opened.close()
