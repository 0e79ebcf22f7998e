"""How often the registry is read as a whole: the rule, and what several workers make of it."""

import json
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from app.db import registry
from app.db.session import Database
from app.domain.errors import Transient
from app.domain.pace import pause
from app.services import intake
from app.services.intake import Call
from app.services.pace import LAST_POLL
from tests.plant import MODEL, World
from workers.tasks import Desk


@pytest.mark.parametrize(
    ("took", "worked", "healthy", "expected"),
    [
        (0.1, True, False, 10),
        (0.1, True, True, 30),
        (2.0, True, False, 18),
        (2.0, True, True, 30),
        (20.0, True, True, 180),
        (20.0, True, False, 180),
        (0.1, False, True, 10),
        (60.0, False, True, 60),
    ],
)
def test_the_pause_after_a_poll(took: float, worked: bool, healthy: bool, expected: float) -> None:
    assert pause(10, took, worked=worked, healthy=healthy) == expected


@pytest.fixture
def world(database: Database, tmp_path: Path) -> World:
    return World(database, tmp_path)


def desk(world: World, name: str = "worker-1") -> Desk:
    return Desk(world.core, world.plant, world.worker(name), name, ("http://headgate/webhooks/mlflow", "secret"), 10)


def polled(world: World, worker: str = "worker-1") -> bool:
    """Whether a worker that is asked to poll now does so: it then sees what has changed."""
    aliases = {"seen": str(len(world.registry.models[MODEL].aliases)), **world.registry.models[MODEL].aliases}
    world.registry.change(MODEL, aliases={**aliases, f"mark-{len(aliases)}": "1"})
    desk(world, worker).poll()
    with world.database.read() as session:
        return registry.seen(session, MODEL) == world.registry.models[MODEL]


def seconds_pass(world: World, seconds: float) -> None:
    with world.database.begin() as session:
        last = json.loads(registry.fact(session, LAST_POLL) or "{}")
        last["ended"] = (datetime.fromisoformat(last["ended"]) - timedelta(seconds=seconds)).isoformat()
        registry.set_fact(session, LAST_POLL, json.dumps(last))


def test_the_first_poll_is_at_once_and_the_next_one_after_the_pause_whoever_is_asked(world: World) -> None:
    assert polled(world)
    assert not polled(world)
    assert not polled(world, "worker-2")
    seconds_pass(world, 11)
    assert polled(world, "worker-2")
    assert not polled(world)


def test_a_webhook_makes_polls_rarer(world: World) -> None:
    assert polled(world)
    seconds_pass(world, 11)
    intake.receive(world.core, Call("mlflow", "an-id", "registered_model.created", MODEL))
    assert not polled(world)
    seconds_pass(world, 20)
    assert polled(world)


def test_a_poll_that_failed_is_tried_again_soon(world: World) -> None:
    intake.receive(world.core, Call("mlflow", "an-id", "registered_model.created", MODEL))
    world.registry.away = True
    with pytest.raises(Transient):
        desk(world).poll()
    world.registry.away = False
    assert not polled(world)
    seconds_pass(world, 11)
    assert polled(world)
