"""A whole Headgate on fakes: a real database and store, everything outside in memory."""

from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from app.adapters.anchor_file import AnchorFile
from app.adapters.audit_keys import KeyFiles
from app.adapters.local_store import LocalStore
from app.db.session import Database
from app.domain.environments import ALLOWED
from app.parts import Core, Plant, Timing
from app.services import history, intake, outbox
from tests.fakes import (
    FakeBuckets,
    FakeBuilder,
    FakeClient,
    FakeEnvironments,
    FakeMetrics,
    FakePolicies,
    FakeQueue,
    FakeRegistry,
    FakeRouter,
    FakeSandbox,
    FakeServer,
)
from workers.runner import Runner

MODEL = "airbnb-price"
FAST = Timing(timedelta(seconds=5), timedelta(seconds=5), timedelta(0), timedelta(0))


@dataclass
class World:
    """Everything a test wants to look at or to break."""

    database: Database
    folder: Path
    registry: FakeRegistry = field(default_factory=FakeRegistry)
    policies: FakePolicies = field(default_factory=FakePolicies)
    queue: FakeQueue = field(default_factory=FakeQueue)
    sandbox: FakeSandbox = field(default_factory=FakeSandbox)
    server: FakeServer = field(default_factory=FakeServer)
    router: FakeRouter = field(default_factory=FakeRouter)
    metrics: FakeMetrics = field(default_factory=FakeMetrics)
    client: FakeClient = field(default_factory=FakeClient)
    buckets: FakeBuckets = field(default_factory=FakeBuckets)

    def __post_init__(self) -> None:
        self.environments = FakeEnvironments(self.folder / "environments")
        self.store = LocalStore(self.folder / "store")
        self.signer = KeyFiles([self.folder / "audit.key"], make=True)
        self.anchor = AnchorFile(self.folder / "checkpoints")
        self.core = Core(self.database, self.registry, self.policies, self.queue, "http://headgate", self.signer)
        servers = {"process": self.server, "docker": self.server}
        self.plant = Plant(
            self.store,
            self.sandbox,
            servers,
            "process",
            {},
            FakeBuilder(),
            self.router,
            self.metrics,
            lambda: self.client,
            self.buckets,
            self.environments,
            ALLOWED,
            self.anchor,
        )
        self.runner = self.worker("worker-1")
        for version in ("1", "2", "3"):
            artifacts = self.folder / f"model-{version}"
            artifacts.mkdir()
            (artifacts / "MLmodel").write_text(f"version: {version}")
            self.registry.register(MODEL, version, artifacts)
        intake.poll(self.core)

    def worker(self, name: str) -> Runner:
        return Runner(self.core, self.plant, FAST, name)

    def ask(self, version: str, environment: str = "production") -> int:
        """Set the alias in MLflow and let Headgate see it; returns the promotion's id."""
        aliases = {**self.registry.models[MODEL].aliases, f"to-{environment}": version}
        self.registry.change(MODEL, aliases=aliases)
        return intake.observe(self.core, MODEL, intake.WEBHOOK)[0]

    def run(self, promotion_id: int) -> dict[str, Any]:
        """Advance as far as it goes, send the outbox, and show the promotion."""
        for _ in range(2):  # the second time is what a sweep does for a promotion that ended: the clean-up
            self.runner.advance(promotion_id)
        outbox.deliver(self.core, "worker-1")
        return self.show(promotion_id)

    def show(self, promotion_id: int) -> dict[str, Any]:
        return history.promotion(self.database, promotion_id)

    def tags(self, version: str) -> dict[str, str]:
        return self.registry.tags[(MODEL, version)]
