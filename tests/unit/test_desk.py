"""What a worker's clock makes it do: poll, sweep, and keep alive what serves."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from app.db.session import Database
from app.domain.errors import Fault
from app.domain.policy import Rollout, default_policy
from app.ports import Endpoint, ReleaseSpec, Server
from app.services import history, promotions
from tests.fakes import quick
from tests.plant import MODEL, World
from workers.tasks import Desk

NO_SOAK = Rollout(soak=timedelta(0))
KEY = (MODEL, "staging")


@pytest.fixture
def world(database: Database, tmp_path: Path) -> World:
    return World(database, tmp_path)


def desk(world: World, name: str = "worker-1") -> Desk:
    return Desk(world.core, world.plant, world.worker(name), name, ("http://headgate/webhooks/mlflow", "secret"), 10)


def test_an_mlflow_that_takes_no_webhook_is_polled_all_the_same(world: World) -> None:
    def refuse(url: str, secret: str) -> bool:
        raise Fault("MLflow answered 400: only https.", "Without the webhook Headgate sees changes at its next poll.")

    world.registry.ensure_webhook = refuse  # type: ignore[method-assign]
    world.registry.change(MODEL, aliases={"to-production": "1"})
    desk(world).poll()
    assert world.queue.advanced == [1]


def go_live(world: World, version: str) -> str:
    """Version goes live in staging; returns the name of its release."""
    world.policies.known[MODEL] = quick(default_policy(MODEL), "staging", rollout=NO_SOAK)
    row = promotions.request(world.core, MODEL, version, "staging", "", "ada")
    assert world.run(row.id)["state"] == "LIVE"
    return str(history.serving(world.database, MODEL, "staging", None)[0]["name"])


def stable(world: World) -> Endpoint:
    """Where the router sends the traffic of the stable release."""
    server = world.router.routes[KEY].stable
    assert server is not None
    return server.endpoint


def recorded(world: World) -> dict[str, object]:
    found: dict[str, object] = history.serving(world.database, MODEL, "staging", None)[0]["endpoint"]
    return found


def tend(world: World) -> None:
    fresh = desk(world)
    fresh.tended_at = -1e9
    fresh.sweep()


def test_a_server_that_died_is_started_again_and_routed(world: World) -> None:
    name = go_live(world, "1")
    world.server.stop(name, None)
    tend(world)
    assert stable(world) == world.server.running[name]
    assert recorded(world) == vars(stable(world))


def test_a_server_that_was_started_by_somebody_who_died_before_saying_so_gets_its_traffic(world: World) -> None:
    name = go_live(world, "1")
    world.server.running[name] = Endpoint("127.0.0.1", 31000, 32000)
    tend(world)
    assert stable(world) == world.server.running[name]
    assert recorded(world) == vars(stable(world))


def test_a_router_that_was_not_told_is_told(world: World) -> None:
    # Given a new server that is recorded, by somebody who died before telling the router,
    name = go_live(world, "1")
    world.server.running[name] = Endpoint("127.0.0.1", 31000, 32000)
    works, world.router.away = world.router.routes.copy(), True
    tend(world)
    world.router.away = False
    assert world.router.routes == works
    world.router.answers = lambda endpoint: endpoint in world.server.running.values()
    # when it is looked at again, then the router follows.
    tend(world)
    assert stable(world) == world.server.running[name]


def test_a_release_that_is_replaced_while_it_is_started_again_does_not_stay(world: World) -> None:
    first = go_live(world, "1")
    world.server.stop(first, None)
    start = world.server.start

    def slow(spec: ReleaseSpec, fence: int) -> Endpoint:
        if spec.name == first:
            world.server.start = start  # type: ignore[method-assign]
            go_live(world, "2")
        return start(spec, fence)

    world.server.start = slow  # type: ignore[method-assign]
    tend(world)
    assert first not in world.server.names()
    (serves,) = world.server.names()
    assert stable(world) == world.server.running[serves]


def test_one_release_that_cannot_be_started_keeps_no_other_from_it(world: World) -> None:
    world.registry.register("aaa", "1", world.folder / "model-1")
    world.policies.known["aaa"] = quick(default_policy("aaa"), "staging", rollout=NO_SOAK)
    other = promotions.request(world.core, "aaa", "1", "staging", "", "ada")
    assert world.run(other.id)["state"] == "LIVE"
    name = go_live(world, "1")
    start = world.server.start

    def refuse(spec: ReleaseSpec, fence: int) -> Endpoint:
        if spec.model == "aaa":
            raise OSError("no such file")
        return start(spec, fence)

    world.server.start = refuse  # type: ignore[method-assign]
    world.server.running.clear()
    tend(world)
    assert world.server.names() == [name]


def test_traffic_on_a_canary_that_nobody_has_recorded_is_taken_away(world: World) -> None:
    go_live(world, "1")
    route = world.router.routes[KEY]
    world.router.routes[KEY] = replace(route, canary=Server("9@dead", Endpoint("127.0.0.1", 1, 2)), weight=50)
    tend(world)
    assert world.router.routes[KEY] == route


def test_what_is_as_it_should_be_is_left_alone(world: World) -> None:
    go_live(world, "1")
    moves = len(world.router.history)
    tend(world)
    assert len(world.router.history) == moves
