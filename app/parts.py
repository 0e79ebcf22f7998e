"""The parts of a running Headgate, assembled once by app.wiring and handed to services and steps."""

from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import timedelta

from app.db.session import Database
from app.ports import (
    Anchor,
    ArtifactStore,
    Buckets,
    Environments,
    ImageBuilder,
    MetricSource,
    ModelServer,
    Policies,
    Queue,
    Registry,
    Sandbox,
    ServingClient,
    Signer,
    TrafficRouter,
)


@dataclass(frozen=True)
class Core:
    """What the API and every worker need: the database, the registry, policies, the queue, who we are, and
    the keys that sign the audit trail."""

    db: Database
    registry: Registry
    policies: Policies
    queue: Queue
    public_url: str
    signer: Signer

    def promotion_url(self, promotion_id: int) -> str:
        """Where people and programs look at a promotion."""
        return f"{self.public_url.rstrip('/')}/api/v1/promotions/{promotion_id}"


@dataclass(frozen=True)
class Plant:
    """What the steps work with: only worker processes have it. `servers` maps a target kind to its server,
    `base_images` an instance kind to the image that releases are built on; `connect` gives a client whose connections
    are closed with its block: a server that is told to stop waits for idle ones. `environment_packages` are those that
    a model's own environment may be asked for; None: there is no such environment. `anchor` keeps the audit trail's
    checkpoints."""

    store: ArtifactStore
    sandbox: Sandbox
    servers: Mapping[str, ModelServer]
    default_target: str
    base_images: Mapping[str, str]
    builder: ImageBuilder
    router: TrafficRouter
    metrics: MetricSource
    connect: Callable[[], AbstractContextManager[ServingClient]]
    buckets: Buckets
    environments: Environments
    environment_packages: Collection[str] | None
    anchor: Anchor


@dataclass(frozen=True)
class Timing:
    """The engine's clockwork, in one place so that tests can run it fast.

    A worker prolongs its `lease` four times in its length: one that died is missed after it, and one whose database
    keeps it waiting for less than three quarters of it keeps it."""

    lease: timedelta = timedelta(seconds=4)
    canary_lease: timedelta = timedelta(seconds=10)
    tick: timedelta = timedelta(seconds=1)
    drain: timedelta = timedelta(seconds=5)
