"""Runs a handful of processes as one: starts them in order, starts again what dies, and stops all of them."""

import contextlib
import ctypes
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from app.domain.errors import Fault

log = logging.getLogger(__name__)
STOP_SECONDS = 20.0
GROUP_SECONDS = 2.0
MAX_DEATHS = 6
DEATHS_WINDOW = 60.0
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Program:
    """One process: what to run, and how to tell that it is ready (True, or raise/False for not yet)."""

    name: str
    command: list[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    ready: Callable[[], bool] = lambda: True
    patience: float = 90.0


class Supervisor:
    """Owns child processes; their output goes to `<logs>/<name>.log`."""

    def __init__(self, logs: Path, changed: Callable[[], None] = lambda: None) -> None:
        """`changed` is called whenever a program got a new process id after all had been started."""
        self._logs, self._changed = logs, changed
        self._logs.mkdir(parents=True, exist_ok=True)
        self._running: dict[str, tuple[Program, subprocess.Popen[bytes]]] = {}
        self._deaths: dict[str, list[float]] = {}

    def start(self, program: Program) -> None:
        """Start a program without waiting for it."""
        file = self._logs / f"{program.name}.log"
        with file.open("ab") as output:
            process = subprocess.Popen(
                program.command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **program.environment},
                # The terminal's Ctrl-C reaches us alone: we stop the others in their order.
                start_new_session=True,
                preexec_fn=_die_with_parent if sys.platform == "linux" else None,
            )
        self._running[program.name] = (program, process)

    def wait_ready(self, name: str) -> None:
        """Wait until a started program is ready.

        Raises:
            Fault: it ended, or was not ready in time; with the last lines of its log.
        """
        program, process = self._running[name]
        end = time.monotonic() + program.patience
        while time.monotonic() < end:
            if process.poll() is not None:
                raise Fault(f"{name} ended with status {process.returncode}.", self._tail(name))
            if _is_ready(program):
                return
            time.sleep(0.1)
        raise Fault(f"{name} was not ready within {program.patience:g} s.", self._tail(name))

    def watch(self, stopped: Callable[[], bool]) -> None:
        """Start again whatever dies, until `stopped` says that it is enough.

        Raises:
            Fault: a program dies again and again.
        """
        while not stopped():
            for program, process in list(self._running.values()):
                if process.poll() is not None:
                    self._again(program, process)
            time.sleep(0.2)

    def pids(self) -> dict[str, int]:
        """The process id of each program."""
        return {name: process.pid for name, (_, process) in self._running.items()}

    def stop(self) -> None:
        """End all programs, the last started first; one that does not end in time is killed."""
        for name, (_, process) in reversed(list(self._running.items())):
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(STOP_SECONDS)
                except subprocess.TimeoutExpired:
                    log.warning("supervisor.killed", extra={"program": name})
                    process.kill()
                    process.wait()
            _end_group(process)
        self._running.clear()

    def _again(self, program: Program, process: subprocess.Popen[bytes]) -> None:
        _end_group(process)
        status = process.returncode
        moment = time.monotonic()
        deaths = [at for at in self._deaths.get(program.name, []) if moment - at < DEATHS_WINDOW] + [moment]
        self._deaths[program.name] = deaths
        log.warning("supervisor.restart", extra={"program": program.name, "status": status})
        if len(deaths) > MAX_DEATHS:
            raise Fault(f"{program.name} died {len(deaths)} times within a minute.", self._tail(program.name))
        self.start(program)
        self._changed()

    def _tail(self, name: str) -> str:
        text = (self._logs / f"{name}.log").read_text(errors="replace")
        return f"The end of {self._logs / name}.log:\n{text[-2000:]}"


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """End what a program that has ended left behind, and wait for it: children of its own would hold its ports."""
    end = time.monotonic() + GROUP_SECONDS
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
        while time.monotonic() < end:
            os.killpg(process.pid, 0)
            time.sleep(0.01)


def _is_ready(program: Program) -> bool:
    try:
        return program.ready()
    except OSError:
        return False


def _die_with_parent() -> None:
    # If the supervisor is killed, its children must not go on with the ports and the database in their hands.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
