"""Sends hostile models through a real SNAPSHOT and a real SCAN in a real sandbox, and watches whether any acts."""

import secrets
import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from app.adapters.bwrap import BwrapSandbox
from app.adapters.proven import ProvenSandbox
from app.db.session import Database
from app.domain.registry import ModelView
from app.services import intake
from tests.fakes import FakeRegistry
from tests.hostile import Artifact, Bait
from tests.plant import FAST, World
from workers.runner import Runner

PROGRAMS = Path(__file__).parents[2] / "workers" / "sandbox"
WORKERS = 2


@dataclass
class Verdict:
    """How one artifact's promotion ended, and the evidence of its steps."""

    artifact: Artifact
    state: str
    reason: str
    evidence: Mapping[str, Any]

    @property
    def scan(self) -> Mapping[str, Any]:
        """What SCAN recorded; empty where SNAPSHOT had refused the model before."""
        found: Mapping[str, Any] = self.evidence.get("scan", {})
        return found


@dataclass
class Watch:
    """The bait, and what happened to it."""

    bait: Bait
    calls: list[str] = field(default_factory=list)

    def traces(self, folder: Path) -> list[str]:
        """Everything that shows that a model acted; `folder` is all that Headgate has written."""
        secret = self.bait.secret.read_bytes()
        leaked = [str(file) for file in folder.rglob("*") if file.is_file() and secret in file.read_bytes()]
        made = ["the canary was written"] if self.bait.canary.exists() else []
        return [*self.calls, *made, *(f"the secret is in {file}" for file in leaked)]


@contextmanager
def watching(folder: Path) -> Iterator[Watch]:
    """Plant a secret in `folder`, wait for a canary there, and listen on a port."""
    secret = folder / "secret"
    secret.write_text(secrets.token_hex(32))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        watch = Watch(Bait(folder / "canary", secret, listener.getsockname()[1]))
        ended = threading.Event()

        def listen() -> None:
            while True:
                listener.accept()[0].close()
                if ended.is_set():  # this one was our own
                    return
                watch.calls.append("somebody called")

        thread = threading.Thread(target=listen, daemon=True)
        thread.start()
        yield watch
        ended.set()
        socket.create_connection(("127.0.0.1", watch.bait.port)).close()
        thread.join()


class _Registry(FakeRegistry):
    """Hands the artifacts out as they are: links, devices and all."""

    artifacts: dict[str, Artifact]
    bait: Bait

    def download(self, model: str, version: str, into: Path) -> None:
        into.mkdir(exist_ok=True)
        self.artifacts[model].make(into, self.bait)


def judge(artifacts: Sequence[Artifact], database: Database, folder: Path, bait: Bait) -> list[Verdict]:
    """Ask for a promotion of each artifact, in one Headgate that works in `folder`, and return how they ended."""
    registry = _Registry()
    registry.artifacts = {f"model-{number}": artifact for number, artifact in enumerate(artifacts)}
    registry.bait = bait
    world = World(database, folder, registry)
    plant = replace(world.plant, sandbox=ProvenSandbox(BwrapSandbox(PROGRAMS)))
    asked = {name: _ask(world, name) for name in registry.artifacts}
    runner = Runner(world.core, plant, FAST, "worker-1")
    with ThreadPoolExecutor(WORKERS) as workers:
        list(workers.map(runner.advance, asked.values()))
    shown = {name: world.show(promotion) for name, promotion in asked.items()}
    return [
        Verdict(artifact, shown[name]["state"], shown[name]["reason"], shown[name]["evidence"])
        for name, artifact in registry.artifacts.items()
    ]


def _ask(world: World, name: str) -> int:
    world.registry.register(name, "1")
    world.registry.models[name] = ModelView(name)
    intake.observe(world.core, name, intake.POLL)
    world.registry.change(name, aliases={"to-production": "1"})
    return intake.observe(world.core, name, intake.POLL)[0]
