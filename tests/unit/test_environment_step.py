"""CONVERT and the packages that a model was logged with: Headgate's own where they do, else an own environment."""

from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml
from sqlalchemy import select

from app.cli import render
from app.db import promotions
from app.db.models import StepRun
from app.db.session import Database
from app.domain.errors import Fault, Rejected, Transient
from app.ports import SandboxJob
from app.services import history
from tests.plant import FAST, MODEL, World
from workers.runner import Runner

OURS = version("scikit-learn")


@pytest.fixture
def world(database: Database, tmp_path: Path) -> World:
    return World(database, tmp_path)


@pytest.fixture
def jobs(world: World) -> list[SandboxJob]:
    seen: list[SandboxJob] = []
    world.sandbox.before = seen.append
    return seen


def log(world: World, requirements: str, flavor: str = "sklearn", **settings: str) -> None:
    """Log version 1 anew, as MLflow writes it."""
    folder = world.registry.versions[(MODEL, "1")]
    assert folder is not None
    (folder / "MLmodel").write_text(yaml.safe_dump({"flavors": {flavor: settings}}))
    (folder / "python_env.yaml").write_text("python: 3.9.2\n")
    (folder / "requirements.txt").write_text(requirements)


def environments_off(world: World) -> World:
    world.plant = replace(world.plant, environment_packages=None)
    world.runner = Runner(world.core, world.plant, FAST, "worker-1")
    return world


def environment(shown: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = shown["evidence"]["convert"]["environment"]
    return found


def test_what_is_alike_is_loaded_with_headgates_own_packages(world: World, jobs: list[SandboxJob]) -> None:
    log(world, f"mlflow==3.1\nscikit-learn=={OURS}\n")

    shown = world.run(world.ask("1"))

    assert shown["state"] == "APPROVAL"
    assert world.environments.asked == []
    assert {job.environment for job in jobs} == {None}
    found = environment(shown)
    assert (found["own"], found["packages"]["scikit-learn"]) == (False, OURS)
    assert (found["left_out"], found["python"]) == (["mlflow==3.1"], "3.9.2")


def test_another_version_is_loaded_in_an_environment_of_its_own(world: World, jobs: list[SandboxJob]) -> None:
    log(world, "scikit-learn==1.2.2\njoblib\n")

    shown = world.run(world.ask("1"))

    (built,) = world.environments.built.values()
    assert {job.program: job.environment for job in jobs} == {"scan": None, "convert": built.folder, "score": None}
    found = environment(shown)
    assert (found["own"], found["digest"], found["reused"]) == (True, built.digest, False)
    assert found["packages"]["scikit-learn"] == "1.2.2"
    assert found["note"] == f"The model was logged with scikit-learn==1.2.2, and Headgate's own is {OURS}."
    assert found["seconds"] >= 0
    (asked,) = world.environments.asked
    assert {"scikit-learn==1.2.2", "joblib", "onnxruntime>=1.23", "skl2onnx>=1.19"} <= set(asked.requirements)
    assert asked.preferred["onnxruntime"] == version("onnxruntime")


def test_the_same_set_is_built_once(world: World) -> None:
    log(world, "scikit-learn==1.2.2\n")
    world.run(world.ask("1", "staging"))

    shown = world.run(world.ask("1"))

    assert len(world.environments.asked) == 1
    assert environment(shown)["reused"] is True


def test_another_flavor_brings_its_converters(world: World) -> None:
    log(world, "numpy\n", "pytorch", pytorch_version="2.13.0+cpu")

    world.run(world.ask("1"))

    (asked,) = world.environments.asked
    assert {"torch==2.13.0", "onnxscript"} <= set(asked.requirements)


def test_while_it_is_built_people_are_told(world: World) -> None:
    log(world, "scikit-learn==1.2.2\n")
    notes: list[str] = []
    build = world.environments.build

    def look(wanted: Any) -> Any:
        notes.append(history.promotion(world.database, promotion)["progress"]["note"])
        return build(wanted)

    world.environments.build = look  # type: ignore[method-assign]  # the fake tells what is recorded while it builds
    promotion = world.ask("1")
    world.run(promotion)

    assert notes == ["the model's own environment is built: scikit-learn==1.2.2"]


def test_an_index_that_is_away_is_waited_for(world: World) -> None:
    log(world, "scikit-learn==1.2.2\n")
    world.environments.broken = Transient("The package index does not answer.", "Wait.")
    promotion = world.ask("1")

    shown = world.run(promotion)
    assert (shown["state"], shown["last_error"]) == ("CONVERT", "The package index does not answer. Wait.")

    world.environments.broken = None
    with world.database.begin() as session:
        promotions.wake(session, promotion)
    assert world.run(promotion)["state"] == "APPROVAL"


@pytest.mark.parametrize(
    ("broken", "state", "words"),
    [
        (Rejected("No wheel of scikit-learn 1.2.2.", "Train anew."), "REJECTED", "It was logged with Python 3.9.2."),
        (Fault("There is no room on the disk.", "Make room."), "CONVERT", "There is no room on the disk."),
    ],
)
def test_what_cannot_be_built_says_whose_fault_it_is(world: World, broken: Exception, state: str, words: str) -> None:
    log(world, "scikit-learn==1.2.2\n")
    world.environments.broken = broken

    shown = world.run(world.ask("1"))

    assert shown["state"] == state
    assert words in (shown["reason"] or shown["last_error"])


@pytest.mark.parametrize("line", ["--index-url https://evil.example", "evil-package==1.0"])
def test_what_is_not_allowed_is_rejected_before_anything_is_loaded(
    world: World, jobs: list[SandboxJob], line: str
) -> None:
    log(world, f"scikit-learn\n{line}\n")

    shown = world.run(world.ask("1"))

    assert shown["state"] == "REJECTED"
    assert "requirements.txt line 2" in shown["reason"]
    assert [job.program for job in jobs] == ["scan"]
    assert world.environments.asked == []


def test_where_environments_are_off_that_is_recorded(world: World, jobs: list[SandboxJob]) -> None:
    log(environments_off(world), "scikit-learn==1.2.2\nevil-package==1.0\n")

    shown = world.run(world.ask("1"))

    assert shown["state"] == "APPROVAL"
    assert {job.environment for job in jobs} == {None}
    assert "HEADGATE_ENVIRONMENTS is off" in environment(shown)["note"]


def test_the_sandbox_cannot_say_what_it_was(world: World) -> None:
    log(world, "scikit-learn==1.2.2\n")
    world.sandbox.results["convert"]["environment"] = {"own": False, "packages": {}}

    assert environment(world.run(world.ask("1")))["own"] is True


def test_reviewers_approve_the_environment_too(world: World) -> None:
    """Once another environment is recorded, the digest that was to be approved stands no more."""
    log(world, "scikit-learn==1.2.2\n")
    promotion = world.ask("1")
    assert world.run(promotion)["state"] == "APPROVAL"

    with world.database.begin() as session:
        row = session.scalars(select(StepRun).where(StepRun.state == "CONVERT")).one()
        row.evidence = {**row.evidence, "environment": {**row.evidence["environment"], "digest": "sha256:another"}}
        promotions.wake(session, promotion)

    assert "no longer matches the digest" in world.run(promotion)["reason"]


def test_a_refusal_keeps_what_the_model_was_loaded_with(world: World) -> None:
    log(world, "scikit-learn==1.2.2\n")
    world.sandbox.results["convert"] = {"refused": {"code": "cannot-load", "reason": "It breaks.", "remedy": ""}}

    shown = world.run(world.ask("1"))

    assert (shown["state"], environment(shown)["own"]) == ("REJECTED", True)


def test_people_see_what_the_model_was_loaded_with(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    log(world, "scikit-learn==1.2.2\n")
    render.promotion(world.run(world.ask("1")))
    shown = capsys.readouterr().out
    (built,) = world.environments.built.values()
    assert f"packages  {built.digest}, built in" in shown
    assert "scikit-learn 1.2.2" in shown
    assert "because   The model was logged with scikit-learn==1.2.2" in shown
