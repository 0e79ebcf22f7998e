"""SIGSTOP for real workers at the worst of places, past their leases: when they go on, they change nothing any more."""

import os
import signal
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from examples.airbnb.stage import Stage, wait
from tests.e2e.models import register
from tests.faults.test_kills import MODEL, POLICY, infer, reached, servers

pytestmark = pytest.mark.on("postgresql")

LEASE_AND_MORE = 8.0


@pytest.fixture(scope="module")
def points(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("points")
    for name in ("armed", "hit", "reached"):
        (folder / name).mkdir()
    return folder


@pytest.fixture(scope="module")
def stage(
    backing: Callable[[], dict[str, str]], points: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stage]:
    home = tmp_path_factory.mktemp("stopped")
    (home / "policies").mkdir()
    (home / "policies" / f"{MODEL}.yaml").write_text(POLICY)
    settings = {**backing(), "HEADGATE_FAILPOINTS": str(points)}
    with Stage(home / "up", home / "policies", settings) as running:
        first = register(running.mlflow_uri, MODEL)
        running.mlflow.set_registered_model_alias(MODEL, "to-staging", first)
        reached(running, first, "LIVE")
        yield running


def stopped_at(stage: Stage, points: Path, point: str) -> tuple[str, int]:
    """Ask for a new version, and have the first worker stopped that comes to the point; returns the version and the
    worker's process id.

    The whole process is stopped, and one of its other threads may just hold SQLite's only lock for writing: then
    nobody writes anything until it goes on, and another version is tried.
    """
    for _ in range(5):
        wait(lambda: len(servers(stage)) == 1, 60, "what was replaced to be gone")
        version = register(stage.mlflow_uri, MODEL)
        pid = first_at(stage, points, point, version)
        if can_write(stage):
            return version, pid
        os.kill(pid, signal.SIGCONT)
        reached(stage, version, "LIVE")
    raise AssertionError(f"the workers that were stopped at {point} always held the database's lock")


def first_at(stage: Stage, points: Path, point: str, version: str) -> int:
    """Ask for a version; the process id of the worker that was stopped at the point."""
    (points / "armed" / f"worker:{point}").write_text("stop")
    stage.mlflow.set_registered_model_alias(MODEL, "to-staging", version)
    hit = points / "hit" / f"worker:{point}"
    pid = wait(lambda: hit.exists() and hit.read_text().isdecimal() and hit.read_text(), 120, point)
    hit.unlink()
    return int(pid)


def can_write(stage: Stage) -> bool:
    file = stage.home / "headgate.db"
    if not file.exists():
        return True
    with closing(sqlite3.connect(file, timeout=3, isolation_level=None)) as connection:
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            return False
        connection.execute("ROLLBACK")
    return True


def log_of(stage: Stage, pid: int) -> str:
    name = next(name for name in ("worker-1", "worker-2") if stage.pid(name) == pid)
    return (stage.home / "logs" / f"{name}.log").read_text()


def truth(stage: Stage, version: str) -> tuple[object, ...]:
    """What the database, the router, the process table and MLflow say, for people and programs to see."""
    wait(lambda: stage.aliases(MODEL).get("staging") == version, 60, "the alias staging")
    wait(lambda: stage.tags(MODEL, version).get("headgate.status") == "live", 60, "the tag headgate.status")
    wait(lambda: len(servers(stage)) == 1, 60, "one server to be left")
    row = next(row for row in stage.admin.get("/api/v1/promotions", model=MODEL)["items"] if row["version"] == version)
    shown = stage.admin.get(f"/api/v1/promotions/{row['id']}")
    releases = stage.admin.get("/api/v1/releases", model=MODEL, environment="staging")
    answers = {infer(stage).headers.get("X-Headgate-Release", "").partition("@")[0] for _ in range(20)}
    return shown["state"], shown["steps"], releases, answers, servers(stage), stage.tags(MODEL, version)


@pytest.mark.parametrize(
    ("point", "refused"),
    [
        ("commit.workers.runner.Runner._advance_once.after", "step.lost_lease"),  # it has the lease, and no more
        ("modelserver.start.before", "step.lost_lease"),  # in PROVE: nobody else starts anything
        ("modelserver.stop.before", "step.lost_lease"),  # in PROVE: by then another one serves from that server
        ("trafficrouter.apply.before", "step.lost_lease"),  # it has asked for its lease, and is about to move traffic
        ("registry.set_version_tag.before", "outbox.lost_lease"),
    ],
)
def test_who_was_stopped_past_its_lease_changes_nothing(stage: Stage, points: Path, point: str, refused: str) -> None:
    # Given a worker that is stopped, while the other one takes the promotion to its end,
    version, pid = stopped_at(stage, points, point)
    try:
        found = reached(stage, version, "LIVE", "FAILED", "ROLLED_BACK", "REJECTED")
        assert found["state"] == "LIVE", found["reason"]
        before = truth(stage, version)
        told = log_of(stage, pid).count(refused)
    finally:
        os.kill(pid, signal.SIGCONT)
    # when it goes on, then it finds out, and everything is as the other one left it.
    wait(lambda: log_of(stage, pid).count(refused) > told, 60, refused)
    assert truth(stage, version) == before
    assert before[3] == {version}
    states = [step["state"] for step in before[1]]  # type: ignore[attr-defined]  # the steps
    assert len(states) == len(set(states))
    assert stage.admin.get("/api/v1/audit/verify")["verified"]


def test_who_was_stopped_in_the_middle_of_a_transaction_records_once(stage: Stage, points: Path) -> None:
    """It holds locks of the database: whether others can go on meanwhile or not, the step is recorded once."""
    version = register(stage.mlflow_uri, MODEL)
    point = "commit.workers.runner.Runner._record_once.before"
    pid = first_at(stage, points, point, version)
    try:
        with pytest.raises(TimeoutError):
            wait(lambda: False, LEASE_AND_MORE, "the end of its lease")
    finally:
        os.kill(pid, signal.SIGCONT)
    assert reached(stage, version, "LIVE", "FAILED", "ROLLED_BACK")["state"] == "LIVE"
    states = [step["state"] for step in truth(stage, version)[1]]  # type: ignore[attr-defined]  # the steps
    assert len(states) == len(set(states))
    assert stage.admin.get("/api/v1/audit/verify")["verified"]
