"""Failpoints: none can be forgotten, because the code itself lists them, and none does anything unless armed."""

import os
import signal
import subprocess
import sys
import typing
from pathlib import Path

import pytest

from app import failpoints, ports
from app.parts import Core, Plant
from tests.crash.points import every

PROGRAM = """
from app import failpoints, wiring
from app.settings import Settings
failpoints.enter("worker")
core = wiring.core(Settings())

def change():
    with core.db.begin():
        print("begun", flush=True)
    print("committed", flush=True)

change()
"""


def run(folder: Path, database_url: str, **variables: str) -> subprocess.CompletedProcess[str]:
    settings = {"HEADGATE_HOME": str(folder / "home"), "HEADGATE_DATABASE_URL": database_url, **variables}
    command = [sys.executable, "-c", PROGRAM]
    return subprocess.run(command, env={**os.environ, **settings}, capture_output=True, text=True, check=False)


@pytest.fixture
def armed(tmp_path: Path) -> Path:
    for name in ("armed", "hit", "reached"):
        (tmp_path / "points" / name).mkdir(parents=True)
    return tmp_path / "points"


@pytest.mark.parametrize(("side", "said"), [("before", "begun\n"), ("after", "begun\n")])
def test_an_armed_point_ends_the_process_there_and_once(
    tmp_path: Path, database_url: str, armed: Path, side: str, said: str
) -> None:
    point = f"worker:commit.__main__.change.{side}"
    (armed / "armed" / point).write_text("kill")
    first = run(tmp_path, database_url, HEADGATE_FAILPOINTS=str(armed))
    assert (first.returncode, first.stdout) == (-signal.SIGKILL, said)
    assert (armed / "hit" / point).exists()
    second = run(tmp_path, database_url, HEADGATE_FAILPOINTS=str(armed))
    assert (second.returncode, second.stdout) == (0, "begun\ncommitted\n")


def test_points_are_inert_unless_a_folder_is_named(tmp_path: Path, database_url: str, armed: Path) -> None:
    (armed / "armed" / "worker:commit.__main__.change.before").write_text("kill")
    assert run(tmp_path, database_url).stdout == "begun\ncommitted\n"


def test_every_part_that_stands_behind_a_port_is_watched() -> None:
    outside = {
        Core: {"registry", "policies", "queue", "signer"},
        Plant: set(typing.get_type_hints(Plant)) - {"default_target", "base_images", "connect", "environment_packages"},
    }
    for parts, names in outside.items():
        assert {name for name, _ in failpoints.parts_behind_ports(parts)} == names


def test_every_commit_and_every_method_of_a_port_is_a_point() -> None:
    points = set(every())
    assert {f"commit.app.services.intake._record.{side}" for side in ("before", "after")} <= points
    assert any(point.startswith("commit.workers.runner.Runner.") for point in points)
    assert {f"registry.{name}.after" for name in failpoints.methods(ports.Registry)} <= points
    assert "broker.publish.before" in points
