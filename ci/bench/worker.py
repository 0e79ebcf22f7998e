"""A worker process that advances promotions while something else is measured: the real runner, over fakes.

It follows lines on standard input: after `go` it moves one promotion after the other as fast as it can, after `rest` it
finishes the one under way and says how many there were. It ends with its input.
"""

import contextlib
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from app.db.session import Database
from ci.bench.engine import Flow


@contextlib.contextmanager
def worker(url: str, folder: Path) -> Iterator["Worker"]:
    """One for the length of the block, at rest until it is asked."""
    command = [sys.executable, "-m", "ci.bench.worker", url, str(folder)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield Worker(process)
    finally:
        process.kill()
        process.communicate()


class Worker:
    """The other end of the process."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process
        self._answer()

    @contextlib.contextmanager
    def advancing(self) -> Iterator[None]:
        """It moves promotions while the block runs. Raises RuntimeError where it moved none."""
        self._say("go")
        yield
        self._say("rest")
        if self._answer() == "0":
            raise RuntimeError("the worker moved no promotion meanwhile")

    def _say(self, word: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(word + "\n")
        self._process.stdin.flush()

    def _answer(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the worker broke off: see its last words above")
        return line.strip()


def main() -> None:
    """Follow the lines on standard input."""
    flow = Flow(Database(sys.argv[1]), Path(sys.argv[2]))
    _answer("ready")
    while sys.stdin.readline():
        resting = threading.Thread(target=sys.stdin.readline)
        resting.start()
        moved = 0
        while resting.is_alive():
            flow.promote()
            moved += 1
        _answer(str(moved))


def _answer(word: str) -> None:
    sys.stdout.write(word + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
