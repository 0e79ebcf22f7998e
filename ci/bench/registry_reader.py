"""A process of its own that reads a whole registry once, so that its memory can be told; see ci.bench.registry."""

import json
import sys
import time
from pathlib import Path

import psutil
from sqlalchemy import event

from app.adapters.audit_keys import KeyFiles
from app.adapters.mlflow_registry import MlflowRegistry
from app.db.session import Database
from app.parts import Core
from app.policy_files import PolicyFolder
from app.services import intake


class Silence:
    """Wakes nobody, for no worker runs."""

    def advance(self, promotion_id: int) -> None:
        """Wake nobody."""

    def observe(self, model: str) -> None:
        """Wake nobody."""

    def deliver(self) -> None:
        """Wake nobody."""


def main(what: str, uri: str, database_url: str) -> None:
    """Do `what` (`snapshot` or `poll`) and print models, seconds, requests, writing statements and MiB as JSON."""
    registry, database = MlflowRegistry(uri), Database(database_url)
    core = Core(database, registry, PolicyFolder(Path("no-policies")), Silence(), "http://headgate", KeyFiles([]))
    requests, writes = list[object](), list[str]()
    registry._rest._client.event_hooks["request"].append(requests.append)
    # (connection, cursor, statement, ...) is what SQLAlchemy tells of each one.
    event.listen(database.engine, "after_cursor_execute", lambda *call: writes.append(call[2].split()[0].upper()))
    registry.read_model("nobody")  # opens the connection, which costs the same whatever the registry's size
    requests.clear()
    before, begun = psutil.Process().memory_info().rss / 2**20, time.perf_counter()
    models = intake.poll(core) if what == "poll" else sum(1 for _ in registry.snapshot())
    seconds = time.perf_counter() - begun
    peak = _peak_mib()
    told = {"models": models, "seconds": seconds, "requests": len(requests), "before_mib": before, "peak_mib": peak}
    writing = sum(word in ("INSERT", "UPDATE", "DELETE") for word in writes)
    sys.stdout.write(json.dumps({**told, "writes": writing}))


def _peak_mib() -> float:
    """The most memory that this process ever had; getrusage would also count what the process that started us had."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 2**10 for line in lines if line.startswith("VmHWM:"))


if __name__ == "__main__":
    main(*sys.argv[1:])
