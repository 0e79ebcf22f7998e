"""A light worker process: the real desk, database and registry, over a plant that costs nothing, without a broker."""

import logging
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

from app import wiring
from app.adapters.local_store import LocalStore
from app.db import outbox, promotions, registry
from app.db.session import Database
from app.domain.errors import HeadgateError
from app.domain.policy import Approvals, Policy, Rollout, default_policy
from app.parts import Core, Plant
from app.settings import Settings
from tests.fakes import (
    FakeBuckets,
    FakeBuilder,
    FakeClient,
    FakeEnvironments,
    FakeMetrics,
    FakeQueue,
    FakeRouter,
    FakeSandbox,
    FakeServer,
)
from tests.plant import FAST
from workers.runner import Runner
from workers.tasks import Desk

log = logging.getLogger(__name__)


class Unattended:
    """The default policy, without people and without waiting."""

    def policy(self, model: str) -> Policy:
        default = default_policy(model)
        quick = {
            name: replace(rules, approvals=Approvals(required=0), rollout=Rollout(soak=timedelta(0)))
            for name, rules in default.environments.items()
        }
        return replace(default, environments=quick)


def build(settings: Settings, owner: str) -> Desk:
    """All parts of one worker."""
    core = Core(
        Database(settings.database),
        wiring.registry(settings),
        Unattended(),
        FakeQueue(),
        settings.public_url,
        wiring.signer(settings),
    )
    server, metrics = FakeServer(), FakeMetrics()
    plant = Plant(
        LocalStore(settings.home / "store"),
        FakeSandbox(),
        {"process": server, "docker": server},
        "process",
        {},
        FakeBuilder(),
        FakeRouter(),
        metrics,
        FakeClient,
        FakeBuckets(),
        FakeEnvironments(settings.home / "environments"),
        None,
        wiring.anchor(settings),
    )
    webhook = (settings.webhook_address, wiring.webhook_secrets(settings)[0])
    return Desk(core, plant, Runner(core, plant, FAST, owner), owner, webhook, settings.poll_seconds)


def turn(desk: Desk) -> None:
    """Do whatever is due, each thing even if another one fails."""
    with desk.core.db.read() as session:
        models = registry.unobserved_models(session)
        due, unsent = promotions.due(session), outbox.has_due(session)
    for model in models:
        _attempt(lambda model=model: desk.observe_missed([model]))  # type: ignore[misc]  # called at once
    for promotion_id in due:
        _attempt(lambda promotion_id=promotion_id: desk.runner.advance(promotion_id))  # type: ignore[misc]
    if unsent:
        _attempt(desk.deliver)
    _attempt(desk.poll)


def _attempt(work: Callable[[], object]) -> None:
    try:
        work()
    except HeadgateError as error:
        log.warning("put off: %s", error)


def main(owner: str) -> None:
    """Work until somebody ends this process."""
    logging.basicConfig(level=logging.INFO)
    desk = build(Settings(), owner)
    while True:
        _attempt(lambda: turn(desk))
        time.sleep(0.05)


if __name__ == "__main__":
    main(sys.argv[1])
