"""The Celery process: `celery -A workers.celery_app worker` runs the tasks, `... beat` is the clock."""

import threading
from typing import Any

from celery.signals import beat_init, task_received, worker_init, worker_shutting_down
from celery.worker import state

import workers.tasks as tasks
from app import failpoints, logs, wiring
from app.adapters import celery_queue as names
from app.parts import Timing
from app.settings import Settings
from workers import owner
from workers.hearing import Hearing
from workers.runner import Runner
from workers.shutdown import Shutdown
from workers.sweeper import Sweeper

logs.configure()
settings = Settings()
wiring.prepare_home(settings)
app = wiring.celery(settings)
app.conf.worker_consumer = "workers.consumer:Consumer"
app.conf.beat_schedule_filename = str(settings.home.resolve() / "broker" / "clock")
app.conf.beat_schedule = {
    # A sweep that was not fetched in time is worth nothing: the next one finds the same.
    "sweep": {"task": names.SWEEP, "schedule": 1.0, "options": {"expires": 3}},
    # The task decides by itself whether a poll is due; asked often, it is at most a quarter of the pause late.
    "poll": {"task": names.POLL, "schedule": settings.poll_seconds / 4, "options": {"expires": settings.poll_seconds}},
}


class _Worker:
    """What belongs to a worker process, made when it is first needed: the clock imports this module too."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._desk: tasks.Desk | None = None
        self.shutdown = Shutdown(lambda: self.desk().give_back())

    def desk(self) -> tasks.Desk:
        with self._lock:
            if self._desk is None:
                core, plant = wiring.core(settings, names.CeleryQueue(app)), wiring.plant(settings)
                webhook = (settings.webhook_address, wiring.webhook_secrets(settings)[0])
                stopping = self.shutdown.begun.is_set
                runner = Runner(core, plant, Timing(), owner.here(), stopping)
                self._desk = tasks.Desk(core, plant, runner, owner.here(), webhook, settings.poll_seconds, stopping)
            return self._desk

    def start(self, name: str, threads: int) -> None:
        """Start what a worker does besides taking messages; `name` is its own at the broker."""

        def busy() -> int:
            return len(state.active_requests)

        self.shutdown.start()
        Sweeper(self.desk, threads, busy, self.shutdown.begun).start()
        if settings.broker_url.get_secret_value():  # files have no connections that could break
            hearing = Hearing(
                lambda: names.echo(app, name), lambda: busy() >= threads, self.shutdown.request, self.shutdown.begun
            )
            # Celery keeps weak references to what it calls unless it is told otherwise.
            task_received.connect(lambda **_signal: hearing.heard(), weak=False)
            hearing.start()


_worker = _Worker()


def _is_worker(sender: Any, **_signal: object) -> None:
    # Before it connects for the first time: the broker may be away just then.
    failpoints.enter("worker")
    _worker.start(sender.hostname, sender.concurrency)


def _told_to_stop(**_signal: object) -> None:
    _worker.shutdown.on_signal()


def _is_clock(**_signal: object) -> None:
    failpoints.enter("clock")


worker_init.connect(_is_worker)
worker_shutting_down.connect(_told_to_stop)
beat_init.connect(_is_clock)
tasks.register(app, _worker.desk)
