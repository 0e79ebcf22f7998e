"""The port Queue on Celery: messages are sent by a thread of their own, so that a broker that is away delays nobody."""

import logging
import queue
import threading

from celery import Celery
from celery.signals import after_task_publish, before_task_publish
from kombu.exceptions import KombuError
from kombu.transport import TRANSPORT_ALIASES

from app import failpoints

log = logging.getLogger(__name__)
BACKLOG = 1000
FILES = "headgate-files"
TRANSPORT_ALIASES[FILES] = "app.adapters.file_broker:Transport"
ADVANCE, OBSERVE, DELIVER, SWEEP, POLL = (
    f"headgate.{name}" for name in ("advance", "observe", "deliver", "sweep", "poll")
)


def _about_to_send(**_signal: object) -> None:
    # Celery's signals, because the clock's messages are not sent by our own code.
    failpoints.reach("broker.publish.before")


def _sent(**_signal: object) -> None:
    failpoints.reach("broker.publish.after")


before_task_publish.connect(_about_to_send)
after_task_publish.connect(_sent)


class CeleryQueue:
    """Sends wake-ups. What cannot be sent is dropped: the sweep finds whatever is due without any message."""

    def __init__(self, app: Celery) -> None:
        self._app = app
        self._waiting: queue.Queue[tuple[str, tuple[int | str, ...]]] = queue.Queue(BACKLOG)
        self._sender: threading.Thread | None = None
        self._start = threading.Lock()

    def advance(self, promotion_id: int) -> None:
        self._send(ADVANCE, promotion_id)

    def observe(self, model: str) -> None:
        self._send(OBSERVE, model)

    def deliver(self) -> None:
        self._send(DELIVER)

    def _send(self, task: str, *arguments: int | str) -> None:
        with self._start:
            # Started at the first message and not before: a process that forks after building its parts keeps none.
            if self._sender is None or not self._sender.is_alive():
                self._sender = threading.Thread(target=self._drain, name="queue-sender", daemon=True)
                self._sender.start()
        try:
            self._waiting.put_nowait((task, arguments))
        except queue.Full:
            log.warning("queue.full", extra={"task": task})

    def _drain(self) -> None:
        while True:
            task, arguments = self._waiting.get()
            try:
                self._app.send_task(task, args=arguments, retry=False)
            except (KombuError, OSError) as error:
                log.warning("queue.send_failed", extra={"task": task, "error": type(error).__name__})


def make_app(broker_url: str, folder: str) -> Celery:
    """The Celery application: no result backend, no acknowledgement games; the database is the queue.

    An empty `broker_url` takes files below `folder` (app/adapters/file_broker.py).
    """
    app = Celery("headgate", set_as_current=False)
    options: dict[str, object] = {"socket_timeout": 5, "socket_connect_timeout": 5}
    if not broker_url:
        options = {
            "data_folder_in": f"{folder}/messages",
            "data_folder_out": f"{folder}/messages",
            "control_folder": f"{folder}/control",
            # Looking into a folder costs little; the default of a second would be most of a short step's time.
            "polling_interval": 0.2,
        }
    app.conf.update(
        broker_url=broker_url or f"{FILES}://",
        broker_transport_options=options,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        task_default_queue="headgate",
        task_ignore_result=True,
        task_serializer="json",
        accept_content=["json"],
        worker_prefetch_multiplier=1,
        worker_hijack_root_logger=False,
        worker_enable_remote_control=bool(broker_url),
        worker_send_task_events=False,
        timezone="UTC",
    )
    return app
