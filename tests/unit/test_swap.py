"""A version whose artifacts are changed in the registry after intake: it is told, and nothing else is judged."""

from collections.abc import Callable
from pathlib import Path

import pytest

from app.db.session import Database
from tests.plant import MODEL, World
from workers.steps import swap

Deed = Callable[[World], None]


@pytest.fixture
def world(database: Database, tmp_path: Path) -> World:
    return World(database, tmp_path)


def _after_intake(world: World, deed: Deed) -> None:
    """Do it when the model is converted: it has been copied and scanned by then."""

    def act(job: object) -> None:
        if world.sandbox.jobs == ["scan"]:
            deed(world)

    world.sandbox.before = act


def _replace(world: World) -> None:
    file = world.folder / "model-1" / "MLmodel"
    file.write_text("v" * file.stat().st_size)  # of the same length, as whoever hides it would


def _add(world: World) -> None:
    (world.folder / "model-1" / "more.pkl").write_bytes(b"more")


def _empty(world: World) -> None:
    world.registry.versions[(MODEL, "1")] = None


def _gone(world: World) -> None:
    del world.registry.versions[(MODEL, "1")]


def _move(world: World) -> None:
    world.registry.sources[(MODEL, "1")] = "somewhere else"


@pytest.mark.parametrize(
    ("deed", "words"),
    [
        (_replace, "have been replaced"),
        (_add, "have been replaced"),
        (_empty, "cannot be read from MLflow any more"),
        (_gone, "no longer has this version"),
        (_move, "moved this version to other artifacts"),
    ],
)
def test_a_swap_is_told_and_changes_nothing(world: World, deed: Deed, words: str) -> None:
    promotion = world.ask("1")
    _after_intake(world, deed)

    shown = world.run(promotion)

    assert shown["state"] == "APPROVAL"
    assert words in shown["reason"] and "taken in before" in shown["reason"]
    evidence = shown["evidence"]
    assert evidence["prove"]["registry"] == shown["reason"]
    assert world.tags("1")["headgate.reason"] == shown["reason"]
    kept = world.store.tree(evidence["snapshot"]["tree"])
    assert [file.name for file in kept.iterdir()] == ["MLmodel"]
    assert (kept / "MLmodel").read_text() == "version: 1"


def test_nothing_is_said_where_nothing_changed(world: World) -> None:
    shown = world.run(world.ask("1"))

    assert (shown["state"], shown["reason"]) == ("APPROVAL", "")
    assert shown["evidence"]["prove"]["registry"] == swap.SAME


def test_a_registry_that_is_away_delays_nothing(world: World) -> None:
    promotion = world.ask("1")
    _after_intake(world, lambda world: setattr(world.registry, "away", True))

    shown = world.run(promotion)

    assert (shown["state"], shown["reason"]) == ("APPROVAL", "")
    assert shown["evidence"]["prove"]["registry"] == "not compared: MLflow does not answer."


def test_of_a_large_model_only_the_source_is_compared(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(swap, "MAX_BYTES", 3)
    promotion = world.ask("1")
    _after_intake(world, _replace)

    shown = world.run(promotion)

    assert shown["reason"] == ""
    assert "by its source only" in shown["evidence"]["prove"]["registry"]
