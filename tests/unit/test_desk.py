"""What a worker's clock makes it do: poll, sweep, and keep alive what serves."""

from pathlib import Path

import pytest

from app.db.session import Database
from app.domain.errors import Fault
from tests.plant import MODEL, World
from workers.tasks import Desk


@pytest.fixture
def world(database: Database, tmp_path: Path) -> World:
    return World(database, tmp_path)


def desk(world: World, name: str = "worker-1") -> Desk:
    return Desk(world.core, world.plant, world.worker(name), name, ("http://headgate/webhooks/mlflow", "secret"))


def test_an_mlflow_that_takes_no_webhook_is_polled_all_the_same(world: World) -> None:
    def refuse(url: str, secret: str) -> bool:
        raise Fault("MLflow answered 400: only https.", "Without the webhook Headgate sees changes at its next poll.")

    world.registry.ensure_webhook = refuse  # type: ignore[method-assign]
    world.registry.change(MODEL, aliases={"to-production": "1"})
    desk(world).poll()
    assert world.queue.advanced == [1]
