"""The Celery process: `celery -A workers.celery_app worker` runs the tasks, `... beat` is the clock."""

import socket
import threading

from celery.signals import beat_init, worker_init

import workers.tasks as tasks
from app import failpoints, logs, wiring
from app.adapters import celery_queue as names
from app.parts import Timing
from app.settings import Settings
from workers.runner import Runner

logs.configure()
settings = Settings()
wiring.prepare_home(settings)
app = wiring.celery(settings)
app.conf.beat_schedule_filename = str(settings.home.resolve() / "broker" / "clock")
app.conf.beat_schedule = {
    # A sweep that was not fetched in time is worth nothing: the next one finds the same.
    "sweep": {"task": names.SWEEP, "schedule": 1.0, "options": {"expires": 3}},
    "poll": {"task": names.POLL, "schedule": settings.poll_seconds, "options": {"expires": settings.poll_seconds}},
}


def _is_worker(**_signal: object) -> None:
    failpoints.enter("worker")


def _is_clock(**_signal: object) -> None:
    failpoints.enter("clock")


worker_init.connect(_is_worker)
beat_init.connect(_is_clock)


class _Lazy:
    """The worker's parts, made at the first task: the clock imports this module too and needs none of them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._made: tasks.Desk | None = None

    def desk(self) -> tasks.Desk:
        with self._lock:
            if self._made is None:
                owner = f"{socket.gethostname()}-{threading.get_native_id()}"
                core, plant = wiring.core(settings, names.CeleryQueue(app)), wiring.plant(settings)
                webhook = (settings.webhook_address, wiring.webhook_secrets(settings)[0])
                self._made = tasks.Desk(core, plant, Runner(core, plant, Timing(), owner), owner, webhook)
            return self._made


tasks.register(app, _Lazy().desk)
