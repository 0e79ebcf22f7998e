"""Intake against a registry that holds whatever people put there: no request is lost, no model hides another one."""

from pathlib import Path
from typing import Any

import pytest

from app.db.models import Setting
from app.db.session import Database
from app.domain.errors import Transient
from app.domain.policy import Policy
from app.domain.registry import ModelView
from app.services import history, intake
from app.services.intake import Call
from tests.plant import MODEL, World

LAST = "zebra"  # a poll reads models in the order of their names


@pytest.fixture
def world(database: Database, tmp_path: Path) -> World:
    made = World(database, tmp_path)
    made.registry.register(LAST, "1")
    intake.poll(made.core)
    return made


def asked_for(world: World) -> list[tuple[str, str, str]]:
    """(model, version, environment) of all promotions, oldest first."""
    items: list[dict[str, Any]] = history.search(world.database, None, None, None, None)["items"]
    return [(row["model"], row["version"], row["environment"]) for row in reversed(items)]


def ask_for_the_last(world: World) -> None:
    world.registry.change(LAST, aliases={"to-production": "1"})


@pytest.mark.parametrize(
    "change",
    [
        {"aliases": {"a" * 255: "1"}},
        {"asks": {"1": "x" * 5000}},
        {"asks": {"1": "a\0b"}},
        {"asks": {"1": "\N{PILE OF POO}" * 300}},
    ],
)
def test_odd_values_are_seen_and_stop_nothing(world: World, change: dict[str, dict[str, str]]) -> None:
    world.registry.change(MODEL, **change)
    ask_for_the_last(world)
    assert intake.poll(world.core) == 2
    assert asked_for(world) == [(LAST, "1", "production")]
    assert len(history.changes(world.database, MODEL, None)["items"]) == 1
    assert intake.poll(world.core) == 0


@pytest.mark.parametrize("name", ["m" * 256, "m" * 1024, "\N{PILE OF POO}" * 1000, "a\0b"])
def test_a_model_whose_name_nobody_can_keep_stops_no_other(world: World, name: str) -> None:
    world.registry.register(name, "1")
    world.registry.change(name, aliases={"to-production": "1"})
    ask_for_the_last(world)
    intake.poll(world.core)
    assert (LAST, "1", "production") in asked_for(world)
    assert intake.receive(world.core, Call("mlflow", "an-id", "model_version_alias.created", name))
    intake.poll(world.core)


def test_a_defect_over_one_model_stops_no_other(world: World) -> None:
    class Odd:
        """Stands for anything that nobody has thought of."""

        def policy(self, model: str) -> Policy:
            if model == MODEL:
                raise RecursionError("too deep")
            return world.policies.policy(model)

    core = type(world.core)(world.database, world.registry, Odd(), world.queue, "http://headgate")
    world.registry.change(MODEL, aliases={"to-production": "1"})
    ask_for_the_last(world)
    intake.poll(core)
    assert asked_for(world) == [(LAST, "1", "production")]
    intake.poll(world.core)  # it was put off, not forgotten
    assert (MODEL, "1", "production") in asked_for(world)


def test_stages_are_history_until_every_model_has_been_seen_once(world: World) -> None:
    # Given a fresh installation whose first poll could not read one of the models,
    with world.database.begin() as session:
        session.query(Setting).delete()
    world.registry.register("old", "1")
    world.registry.change("old", stages={"1": "Production"})
    read = world.registry.read_model

    def broken(name: str) -> ModelView | None:
        if name == "old":
            raise Transient("MLflow's answer broke off.", "")
        return read(name)

    world.registry.read_model = broken  # type: ignore[method-assign]
    intake.poll(world.core)
    # when the next one can,
    world.registry.read_model = read  # type: ignore[method-assign]
    intake.poll(world.core)
    # then what was in production for years is still no request.
    assert asked_for(world) == []
    world.registry.change("old", stages={})
    intake.poll(world.core)
    world.registry.change("old", stages={"1": "Production"})
    intake.poll(world.core)
    assert asked_for(world) == [("old", "1", "production")]
