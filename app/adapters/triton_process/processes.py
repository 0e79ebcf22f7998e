"""Processes that outlive whoever started them: detached, told apart for certain, and ended without a trace."""

import contextlib
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from app import failpoints
from app.domain.errors import Fault

_POLL = 0.05
# However long a killed process may take to be gone: it has memory to give back.
_DEATH_SECONDS = 10.0

# The shell leaves the server to init and ends, so that the worker has no child to reap, and says which process it is.
_DETACH = '"$@" >&2 </dev/null & echo $!'


@dataclass(frozen=True)
class ProcessId:
    """One process for certain: a pid is used again, but not with the same start (clock ticks) in the same boot."""

    pid: int
    started: int
    boot: str


def identify(pid: int) -> ProcessId | None:
    """Name the process that has `pid` now; None where it is gone or a zombie that only waits to be reaped."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return None
    # The command's name stands in parentheses and may itself hold some: what follows the last one has fixed places.
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else ProcessId(pid, int(fields[19]), boot)


def command_line(pid: int) -> list[str]:
    """The arguments of a process; empty where it is gone."""
    try:
        raw = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return []
    return [part.decode(errors="replace") for part in raw.split(b"\0")[:-1]]


def alive(process: ProcessId, command: Sequence[str]) -> bool:
    """Whether that very process still runs that very command."""
    return identify(process.pid) == process and command_line(process.pid) == list(command)


def spawn(command: Sequence[str], environment: Mapping[str, str], folder: Path, log: Path) -> ProcessId | None:
    """Start a command in a session of its own, with both outputs in `log`; None where it ended at once.

    Raises:
        Fault: there is no room for another process.
    """
    try:
        with failpoints.around("triton.spawn"), log.open("wb") as output:
            shell = subprocess.run(
                ["sh", "-c", _DETACH, "sh", *command],
                env=dict(environment),
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=output,
                start_new_session=True,
                text=True,
                timeout=30,
                check=True,
            )
    except (OSError, subprocess.SubprocessError) as error:
        raise Fault(f"{command[0]} could not be started: {error}", "See that the machine has free memory.") from error
    pid = int(shell.stdout)
    # For a moment the process is still a shell about to become the command.
    while process := identify(pid):
        if command_line(pid) == list(command):
            return process
        time.sleep(0.001)
    return None


def find(marker: str, program: str) -> list[ProcessId]:
    """All processes of a program of that file name that carry `marker` as an argument.

    One that carries it and is no such program is the shell of somebody's `spawn` that was killed in between: it becomes
    the program, or ends, within moments, so this waits for that.
    """
    deadline = time.monotonic() + 5
    while True:
        commands = {pid: command_line(pid) for pid in psutil.pids()}
        marked = {pid: Path(command[0]).name for pid, command in commands.items() if marker in command}
        found = [identify(pid) for pid, name in marked.items() if name == program]
        if all(name == program for name in marked.values()) or time.monotonic() > deadline:
            return [process for process in found if process]
        time.sleep(_POLL)


def listening_ports(process: ProcessId) -> set[int]:
    """The TCP ports on which that very process listens now."""
    return _ports(process, psutil.CONN_LISTEN)


def has_clients(process: ProcessId) -> bool:
    """Whether anybody has a connection to that very process, idle ones included."""
    return bool(_ports(process, psutil.CONN_ESTABLISHED) & listening_ports(process))


def _ports(process: ProcessId, status: str) -> set[int]:
    try:
        sockets = psutil.Process(process.pid).net_connections("tcp")
    except psutil.NoSuchProcess:
        return set()
    return {int(found.laddr.port) for found in sockets if found.status == status}


def end(process: ProcessId, patience: float) -> None:
    """Ask the process to end, kill it when `patience` seconds are over, and wait until it is gone."""
    _signal(process, signal.SIGTERM)
    if not _gone(process, patience):
        _signal(process, signal.SIGKILL)
        _gone(process, _DEATH_SECONDS)


def kill_all(prefix: str) -> None:
    """Kill every process with an argument that begins like this, and wait until they are gone."""
    found = [pid for pid in psutil.pids() if any(part.startswith(prefix) for part in command_line(pid)[1:])]
    for process in filter(None, map(identify, found)):
        _signal(process, signal.SIGKILL)
        _gone(process, _DEATH_SECONDS)


def _signal(process: ProcessId, number: signal.Signals) -> None:
    if identify(process.pid) == process:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, number)


def _gone(process: ProcessId, patience: float) -> bool:
    deadline = time.monotonic() + patience
    while identify(process.pid) == process:
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL)
    return True


def last_lines(log: Path, count: int = 12, limit: int = 2000) -> str:
    """The end of a server's log for an error's text, without Triton's tables and colours."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 65536))
            text = file.read().decode(errors="replace")
    except OSError:
        return "(no log)"
    lines = [line for line in _plain(text) if line and line[0] not in "+|"]
    return "\n".join(lines[-count:])[-limit:] or "(an empty log)"


def _plain(text: str) -> Iterator[str]:
    return (re.sub(r"\x1b\[[0-9;]*m", "", line).rstrip() for line in text.splitlines())
