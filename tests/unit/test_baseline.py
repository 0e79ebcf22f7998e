"""The first look at a large registry is a matter of a few statements, and loses nothing that matters."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from app.db.models import Setting
from app.db.session import Database
from app.domain.registry import ModelView
from app.services import history, intake
from tests.fakes import FakeRegistry
from tests.plant import MODEL, World

MANY = 1200


@dataclass
class CountingRegistry(FakeRegistry):
    """Counts the models that were read by themselves."""

    alone: int = 0

    def read_model(self, name: str) -> ModelView | None:
        self.alone += 1
        return super().read_model(name)


@pytest.fixture
def world(database: Database, tmp_path: Path) -> World:
    made = World(database, tmp_path, CountingRegistry())
    with database.begin() as session:  # nothing was ever polled
        session.query(Setting).delete()
    for number in range(MANY):
        view = ModelView(f"m-{number:04}", {"champion": "1"} if number % 10 == 0 else {}, stages(number), {})
        made.registry.models[view.name] = view
    return made


def stages(number: int) -> dict[str, str]:
    return {"1": "Production"} if number % 10 == 1 else {}


@contextmanager
def writes(world: World) -> Iterator[list[str]]:
    """The statements that change something."""
    seen: list[str] = []

    def note(*call: Any) -> None:
        if call[2].split()[0].upper() in ("INSERT", "UPDATE", "DELETE"):
            seen.append(call[2])

    event.listen(world.database.engine, "after_cursor_execute", note)
    yield seen
    event.remove(world.database.engine, "after_cursor_execute", note)


def alone(world: World) -> int:
    assert isinstance(world.registry, CountingRegistry)
    found, world.registry.alone = world.registry.alone, 0
    return found


def opened(world: World) -> list[tuple[str, str, str]]:
    items: list[dict[str, Any]] = history.search(world.database, None, None, None, None)["items"]
    return [(row["model"], row["version"], row["environment"]) for row in items]


def test_the_first_look_takes_few_statements_and_the_next_one_none(world: World) -> None:
    alone(world)
    with writes(world) as first:
        assert intake.poll(world.core) == MANY
    assert len(first) < 20 and alone(world) == 0
    with writes(world) as second:
        assert intake.poll(world.core) == 0
    assert second == [] and alone(world) == 0
    assert opened(world) == []
    ledger = history.changes(world.database, None, None)["items"]
    notes = {(row["model"], row["field"], row["note"]) for row in ledger}
    assert ("m-1190", "alias:champion", "") in notes
    assert ("m-1191", "stage", "first look at this registry: a stage set before is history, not a request") in notes


def test_only_what_changed_is_read_and_written_afterwards(world: World) -> None:
    intake.poll(world.core)
    alone(world)
    world.registry.change("m-0007", aliases={"champion": "1"})
    with writes(world) as few:
        assert intake.poll(world.core) == 1
    assert alone(world) == 1 and len(few) < 6


def test_whatever_asks_is_not_lost_among_many(world: World) -> None:
    world.registry.change("m-0003", aliases={"to-production": "1"})
    world.registry.change("m-0005", asks={"2": "staging"})
    world.registry.change("m-0007", asks={"2": "moon"})
    world.policies.known["m-0010"] = RuntimeError("nobody has thought of this")
    intake.poll(world.core)
    assert set(opened(world)) == {("m-0003", "1", "production"), ("m-0005", "2", "staging")}
    assert history.changes(world.database, "m-0007", None)["items"][0]["note"].startswith(
        "the policy has no environment"
    )
    assert history.changes(world.database, "m-0010", None)["items"] == []
    del world.policies.known["m-0010"]
    intake.poll(world.core)
    assert len(history.changes(world.database, "m-0010", None)["items"]) == 1


def test_a_stage_of_a_model_that_came_later_is_a_request(world: World) -> None:
    intake.poll(world.core)
    world.registry.models["new"] = ModelView("new", {}, {"1": "Production"}, {})
    world.registry.models["quiet"] = ModelView("quiet", {"champion": "1"}, {}, {})
    intake.poll(world.core)
    assert opened(world) == [("new", "1", "production")]
    assert len(history.changes(world.database, "quiet", None)["items"]) == 1


def test_models_that_another_worker_has_just_seen_are_left_to_it(world: World) -> None:
    snapshot = world.registry.snapshot

    def late() -> Iterator[ModelView]:
        views = list(snapshot())
        intake.observe(world.core, "m-0010", intake.WEBHOOK)
        return iter(views)

    world.registry.snapshot = late  # type: ignore[method-assign]
    intake.poll(world.core)
    assert len(history.changes(world.database, "m-0010", None)["items"]) == 1
    world.registry.snapshot = snapshot  # type: ignore[method-assign]
    assert intake.poll(world.core) == 0
    assert MODEL in {view.name for view in world.registry.snapshot()}
