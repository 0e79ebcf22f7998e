"""The API as a process of its own on a disk that its caller fills and empties: `python -m tests.small_disk`.

It runs inside bwrap, where HEADGATE_HOME is a small disk that nobody outside can reach. Says `ready <token>`, then
obeys lines on standard input: `fill N` leaves N bytes free, `free` makes space again. Ends with its input."""

import os
import subprocess
import sys
import time
from pathlib import Path

import httpx

from app.db.migrate import upgrade
from app.settings import Settings


def main() -> None:
    settings = Settings()
    upgrade(settings.database)
    port = settings.public_url.rpartition(":")[2]
    command = [sys.executable, "-m", "uvicorn", "app.main:app", "--port", port, "--log-level", "warning"]
    with subprocess.Popen(command, stdout=sys.stderr) as api:
        try:
            _wait_until_ready(settings.public_url)
            _say(f"ready {(settings.home / 'admin.token').read_text()}")
            for line in sys.stdin:
                _obey(settings.home / "ballast", line.split())
                _say("done")
        finally:
            api.terminate()


def _wait_until_ready(url: str) -> None:
    for _ in range(600):
        try:
            if httpx.get(f"{url}/readyz", trust_env=False).is_success:
                return
        except httpx.TransportError:
            pass  # not yet
        time.sleep(0.1)
    raise RuntimeError("the API did not become ready")


def _obey(ballast: Path, order: list[str]) -> None:
    ballast.unlink(missing_ok=True)
    if order[0] == "fill":
        disk = os.statvfs(ballast.parent)
        with ballast.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, max(1, disk.f_bavail * disk.f_frsize - int(order[1])))


def _say(line: str) -> None:
    sys.stdout.write(line.strip() + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
