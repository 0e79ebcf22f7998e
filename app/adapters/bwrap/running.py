"""Running one bwrap command to its end or to its limits, with the end of its output kept for people."""

import json
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from app import failpoints
from app.sandbox.ending import MAX_TALK_BYTES, Ending

_CHUNK = 1 << 16
_LOOK_SECONDS = 0.2
# Where bwrap runs as root, no limit of the kernel counts the threads of its user: somebody has to look, and often.
_COUNT_SECONDS = 0.05
_DEATH_SECONDS = 10.0


@dataclass(frozen=True)
class Bounds:
    """How long (seconds) a run may take, how much (bytes, files) it may leave in its output folder, and how many
    threads it may have."""

    seconds: float
    output: Path
    output_bytes: int
    output_files: int = 200
    threads: int = 256


def run_bounded(command: Callable[[int], Sequence[str]], pass_fds: Sequence[int], bounds: Bounds) -> Ending:
    """Run bwrap and return when everything in the sandbox is gone.

    `command` makes the command line from the descriptor that bwrap shall write its `--info-fd` to.

    Raises:
        OSError: the command could not be started, or did not die when it was killed.
    """
    info_out, info_in = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        try:
            with failpoints.around("bwrap.start"):
                process = _start(command(info_in), [*pass_fds, info_in])
        finally:
            os.close(info_in)
        with process:
            try:
                return _Attendant(process, info_out, bounds).attend()
            finally:
                process.kill()
    finally:
        os.close(info_out)


def _start(command: Sequence[str], pass_fds: Sequence[int]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={},
        pass_fds=pass_fds,
        start_new_session=True,
    )


class _Attendant:
    """Watches one running bwrap: what it says, how long it takes, how much it writes."""

    def __init__(self, process: subprocess.Popen[bytes], info: int, bounds: Bounds) -> None:
        assert process.stdout is not None
        self._process, self._info, self._bounds = process, info, bounds
        self._pipe = process.stdout.fileno()
        os.set_blocking(self._pipe, False)
        self._ending = Ending()
        self._first_pid = 0

    def attend(self) -> Ending:
        # Not the end of its output says that a program is over: it may close that and run on.
        gone = os.pidfd_open(self._process.pid)
        try:
            with selectors.DefaultSelector() as selector:
                selector.register(gone, selectors.EVENT_READ)
                selector.register(self._pipe, selectors.EVENT_READ)
                self._ending.broke = self._watch(selector, gone)
            if self._ending.broke:
                self._kill(gone)
            while self._hear():
                pass
        finally:
            os.close(gone)
        self._ending.status = self._process.wait(timeout=_DEATH_SECONDS)
        return self._ending

    def _watch(self, selector: selectors.BaseSelector, gone: int) -> str:
        deadline = time.monotonic() + self._bounds.seconds
        look_at = count_at = 0.0
        while True:
            pause = max(0.0, min(look_at, count_at, deadline) - time.monotonic())
            ready = {key.fd for key, _ in selector.select(timeout=pause)}
            if gone in ready:
                return ""
            if self._pipe in ready and not self._hear():
                selector.unregister(self._pipe)
            now = time.monotonic()
            if now >= deadline:
                return "time"
            if self._ending.talk.total > MAX_TALK_BYTES:
                return "talk"
            if now >= look_at:
                look_at = now + _LOOK_SECONDS
                if _too_much(self._bounds):
                    return "output"
            if now >= count_at:
                count_at = now + _COUNT_SECONDS
                if _threads_below(self._first()) > self._bounds.threads:
                    return "threads"

    def _hear(self) -> bool:
        """Read what is there; False where nothing is or will be."""
        try:
            chunk = os.read(self._pipe, _CHUNK)
        except BlockingIOError:
            return False
        self._ending.talk.add(chunk)
        return bool(chunk)

    def _kill(self, gone: int) -> None:
        """Kill the sandbox's first process: the kernel ends all others with it, and bwrap only after them."""
        first = self._first()
        try:
            # Without bwrap there will be no first process either.
            os.kill(first or self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            self._process.kill()
        with selectors.DefaultSelector() as selector:
            selector.register(gone, selectors.EVENT_READ)
            if not selector.select(timeout=_DEATH_SECONDS):
                raise TimeoutError("a killed sandbox did not end")

    def _first(self) -> int:
        """The id of the sandbox's first process, which bwrap tells once; 0 before that."""
        if not self._first_pid:
            try:
                self._first_pid = int(json.loads(os.read(self._info, _CHUNK))["child-pid"])
            except (BlockingIOError, ValueError):
                return 0
        return self._first_pid


def _threads_below(first: int) -> int:
    """The threads of the processes that the sandbox's first one has started."""
    threads = 0
    try:
        for child in Path(f"/proc/{first}/task/{first}/children").read_text().split():
            status = Path(f"/proc/{child}/status").read_text()
            threads += int(status.partition("\nThreads:")[2].split(maxsplit=1)[0])
    except (FileNotFoundError, ProcessLookupError, IndexError):
        return threads  # It has not begun, or it is over.
    return threads


def _too_much(bounds: Bounds) -> bool:
    files = size = 0
    for parent, folders, names in os.walk(bounds.output):
        for name in names:
            try:
                size += Path(parent, name).lstat().st_blocks * 512
            except FileNotFoundError:  # The program may remove it between the two calls.
                continue
        files += len(names) + len(folders)
        if files > bounds.output_files or size > bounds.output_bytes:
            return True
    return False
