"""Whole installations for stories: `headgate up` on the database and the broker that the run asks for."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.services import redis


@pytest.fixture(scope="session")
def backing(
    request: pytest.FixtureRequest, new_database: Callable[[], str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[], dict[str, str]]]:
    """Settings for one fresh installation: the embedded default, or PostgreSQL with Redis."""
    if request.config.getoption("--database") == "sqlite":
        yield dict
        return
    with redis(tmp_path_factory.mktemp("redis")) as broker:
        yield lambda: {"HEADGATE_DATABASE_URL": new_database(), "HEADGATE_BROKER_URL": broker}


@pytest.fixture(scope="session")
def airbnb() -> Path | None:
    """The real listings where they lie beside the checkout; otherwise stories make rows of the same schema."""
    file = Path(__file__).resolve().parents[3] / "shared" / "data" / "AB_NYC_2019.csv.gz"
    return file if file.is_file() else None
