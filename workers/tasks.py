"""The tasks: one line each, idempotent, and deaf to arguments that they do not know."""

import inspect
import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from celery import Celery

from app.adapters import celery_queue as names
from app.db import outbox as leases
from app.db import promotions
from app.domain.errors import Fault, HeadgateError
from app.parts import Core, Plant
from app.services import intake, outbox, pace, releases, trail, upkeep
from app.services.singly import holding
from workers import owner
from workers.runner import Runner

log = logging.getLogger(__name__)
TEND_SECONDS = 5.0


@dataclass
class Desk:
    """What a worker process works with. `webhook` is the address and the secret that MLflow should call with,
    `poll_seconds` the least pause between two polls; `stopping` says that the process was told to end."""

    core: Core
    plant: Plant
    runner: Runner
    owner: str
    webhook: tuple[str, str]
    poll_seconds: float
    stopping: Callable[[], bool] = lambda: False
    tended_at: float = 0.0

    @property
    def me(self) -> str:
        """A name for named leases: two threads of one worker must keep out of each other's way, too."""
        return f"{self.owner}-{threading.get_ident()}"

    def sweep(self) -> None:
        """Wake whatever is due, send what waits, and keep alive what serves."""
        with self.core.db.read() as session:
            due = promotions.due(session)
            unsent = leases.has_due(session)
        for promotion_id in due:
            self.core.queue.advance(promotion_id)
        if unsent:
            self.deliver()
        if time.monotonic() - self.tended_at > TEND_SECONDS:
            self.tend()

    def deliver(self) -> None:
        """Send what waits in the outbox."""
        outbox.deliver(self.core, self.me, self.stopping)

    def tend(self) -> None:
        """Keep alive what serves."""
        self.tended_at = time.monotonic()
        releases.tend(self.core.db, self.plant, self.me)

    def observe_missed(self, models: Sequence[str]) -> None:
        """Follow webhooks whose messages were lost."""
        intake.observe_each(self.core, models)

    def bury_the_dead(self) -> None:
        """End the leases of processes of this very machine that were killed, instead of waiting until they lapse."""
        with self.core.db.read() as session:
            dead = [name for name in promotions.holders(session) if owner.has_died(name)]
        for name in dead:
            log.warning("worker.died", extra={"owner": name})
            with self.core.db.begin() as session:
                promotions.lapse(session, name)

    def give_back(self) -> None:
        """Leave to others what this process still does when it has to end. Its leases run out, since a step may still
        be writing; but that is no crash of the step."""
        with self.core.db.begin() as session:
            promotions.disown(session, self.owner)

    def poll(self) -> None:
        """Read the whole registry if it is time for that, one worker at a time, and see that our webhook is registered.
        Call it as often as you like: it decides by itself, and all workers together."""
        if not self._is_due():
            return
        with holding(self.core.db, "poll", self.me) as mine:
            if mine and self._is_due():  # another worker may have polled since we looked
                upkeep.forget(self.core.db)
                self._give_checkpoint_away()
                self._poll()

    def _is_due(self) -> bool:
        with self.core.db.read() as session:
            return pace.is_due(session, self.poll_seconds)

    def _poll(self) -> None:
        begun, worked = time.monotonic(), False
        try:
            self._ensure_webhook()
            intake.poll(self.core)
            worked = True
        finally:
            with self.core.db.begin() as session:
                pace.note(session, time.monotonic() - begun, worked)

    def _give_checkpoint_away(self) -> None:
        # A disk that is full, or a key that is being exchanged, is no reason to be blind to the registry.
        try:
            trail.give_away(self.core, self.plant.anchor)
        except Fault as error:
            log.error("checkpoint.not_kept", extra={"reason": error.reason, "remedy": error.remedy})

    def _ensure_webhook(self) -> None:
        # It only makes us quicker: an MLflow that takes none from us is polled all the same.
        try:
            self.core.registry.ensure_webhook(*self.webhook)
        except HeadgateError as error:
            log.warning("webhook.missing", extra={"reason": error.reason, "remedy": error.remedy})


def register(app: Celery, desk: Callable[[], Desk]) -> None:
    """Make the tasks known to `app`; `desk` gives the worker's parts."""

    def task(name: str, work: Callable[..., object]) -> None:
        known = list(inspect.signature(work).parameters)

        def run(*arguments: object, **named: object) -> None:
            given = {**dict(zip(known, arguments, strict=False)), **named}
            missing = [parameter for parameter in known if parameter not in given]
            if missing:
                log.warning("task.says_too_little", extra={"task": name, "missing": missing})
                return
            try:
                work(**{parameter: given[parameter] for parameter in known})
            except HeadgateError as error:
                # The database or MLflow is away. The row keeps what is to be done; the next sweep or poll finds it.
                log.warning("task.put_off", extra={"task": name, "reason": error.reason})

        app.task(run, name=name, shared=False)

    task(names.ADVANCE, lambda promotion_id: desk().runner.advance(promotion_id))
    task(names.OBSERVE, lambda model: intake.observe(desk().core, model, intake.WEBHOOK))
    task(names.DELIVER, lambda: desk().deliver())
    task(names.SWEEP, lambda: desk().sweep())
    task(names.POLL, lambda: desk().poll())
    task(names.ECHO, lambda: None)
