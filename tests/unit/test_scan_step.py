"""The step SCAN: what it says of findings and errors, and that it believes nothing of what the program answers."""

from pathlib import Path
from typing import Any

import pytest

from app.db.session import Database
from tests.plant import World

FOUND = {"file": "model.pkl", "severity": "HIGH", "reason": "an import of os.system", "scanner": "picklescan"}
CLEAN: dict[str, Any] = {"findings": [], "errors": [], "scanned": 1, "alone": {}}


@pytest.fixture
def world(database: Database, tmp_path: Path) -> World:
    return World(database, tmp_path)


def _ended(world: World, answer: dict[str, Any]) -> dict[str, Any]:
    world.sandbox.results["scan"] = answer
    shown = world.run(world.ask("1"))
    assert shown["state"] == "REJECTED"
    return shown


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {**CLEAN, "findings": 1},
        {**CLEAN, "findings": ["x"]},
        {**CLEAN, "findings": [{"file": "x"}]},
        {**CLEAN, "errors": [7]},
        {**CLEAN, "scanned": "many"},
        {**CLEAN, "alone": []},
    ],
)
def test_an_answer_of_another_form_is_the_models_fault(world: World, answer: dict[str, Any]) -> None:
    """The program that scans has read what the model's author wrote, and may be the author's by now."""
    assert "odd form" in _ended(world, answer)["reason"]


def test_a_finding_is_told_and_kept_with_file_reason_and_scanner(world: World) -> None:
    shown = _ended(world, {**CLEAN, "findings": [FOUND], "alone": {"modelscan": 0, "picklescan": 1}})

    assert shown["reason"].startswith("picklescan found an import of os.system in model.pkl")
    assert shown["evidence"]["scan"]["findings"] == [FOUND]
    assert shown["evidence"]["scan"]["alone"] == {"modelscan": 0, "picklescan": 1}
    assert "model.pkl" in world.tags("1")["headgate.reason"]


def test_an_error_blocks(world: World) -> None:
    assert "could not be scanned as a whole: it is odd" in _ended(world, {**CLEAN, "errors": ["it is odd"]})["reason"]


def test_what_is_shown_of_an_answer_is_plain_and_short(world: World) -> None:
    nasty = {**FOUND, "reason": "\x1b[31m\u202e" + "x" * 9999}

    reason = _ended(world, {**CLEAN, "findings": [nasty]})["reason"]

    assert reason.isprintable() and reason.isascii() and len(reason) < 1000
