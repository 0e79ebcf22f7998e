"""The supervisor with real processes: it starts again what dies, and leaves nothing behind."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from app.domain.errors import Fault
from app.supervisor import Program, Supervisor
from tests.services import LOOPBACK, free_port

# A program like `mlflow server`: a parent that only waits, and a child that holds the port.
FAMILY = """
import os, socket, sys, time
if os.fork():
    os.wait()
else:
    listener = socket.socket()
    listener.bind(("127.0.0.1", int(sys.argv[1])))
    listener.listen()
    time.sleep(600)
"""


# A supervisor of its own, which says which process it has started.
PARENT = """
import sys
from pathlib import Path
from app.supervisor import Program, Supervisor
supervisor = Supervisor(Path(sys.argv[1]))
supervisor.start(Program("child", [sys.executable, "-c", "import time; time.sleep(600)"]))
print(supervisor.pids()["child"], flush=True)
supervisor.watch(lambda: False)
"""


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[Supervisor]:
    made = Supervisor(tmp_path / "logs")
    yield made
    made.stop()


def listens(port: int) -> Callable[[], bool]:
    def answer() -> bool:
        with contextlib.closing(socket.socket()) as probe:
            probe.connect((LOOPBACK, port))
            return True

    return answer


def watched(supervisor: Supervisor, until: Callable[[], bool]) -> None:
    """Let the supervisor watch until a condition holds, for 20 seconds at most."""
    end = time.monotonic() + 20
    supervisor.watch(lambda: until() or time.monotonic() > end)
    assert until()


def test_a_killed_parent_is_started_again_although_its_child_held_the_port(supervisor: Supervisor) -> None:
    port = free_port()
    supervisor.start(Program("family", [sys.executable, "-c", FAMILY, str(port)], ready=listens(port)))
    supervisor.wait_ready("family")
    first = supervisor.pids()["family"]
    (child,) = psutil.Process(first).children()
    os.kill(first, signal.SIGKILL)

    def again() -> bool:
        pid = supervisor.pids()["family"]
        return pid != first and psutil.pid_exists(pid) and len(psutil.Process(pid).children()) == 1

    watched(supervisor, again)
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE
    supervisor.wait_ready("family")


def test_stopping_ends_children_too(supervisor: Supervisor) -> None:
    port = free_port()
    supervisor.start(Program("family", [sys.executable, "-c", FAMILY, str(port)], ready=listens(port)))
    supervisor.wait_ready("family")
    supervisor.stop()
    with pytest.raises(ConnectionRefusedError):
        listens(port)()


def test_what_dies_again_and_again_is_given_up_with_its_last_words(supervisor: Supervisor) -> None:
    supervisor.start(Program("hopeless", [sys.executable, "-c", "raise SystemExit('no such luck')"]))
    with pytest.raises(Fault, match="no such luck"):
        supervisor.watch(threading.Event().is_set)


def test_what_never_gets_ready_is_named(supervisor: Supervisor) -> None:
    command = [sys.executable, "-c", "print('still thinking', flush=True); import time; time.sleep(60)"]
    supervisor.start(Program("slow", command, ready=lambda: False, patience=3))
    with pytest.raises(Fault, match="slow was not ready within 3 s"):
        supervisor.wait_ready("slow")


def test_what_it_started_does_not_outlive_a_supervisor_that_is_killed(tmp_path: Path) -> None:
    command = [sys.executable, "-c", PARENT, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
    child.wait(20)
    assert not child.is_running()
