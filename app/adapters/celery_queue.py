"""The port Queue on Celery: messages are sent by a thread of their own, so that a broker that is away delays nobody."""

import logging
import queue
import threading
import time

from celery import Celery
from celery.signals import after_task_publish, before_task_publish
from celery.utils.nodenames import worker_direct
from kombu.transport import TRANSPORT_ALIASES

from app import failpoints

log = logging.getLogger(__name__)
BACKLOG = 1000
STALE_SECONDS = 3.0
ANSWER_SECONDS = 5
FILES = "headgate-files"
TRANSPORT_ALIASES[FILES] = "app.adapters.file_broker:Transport"
ADVANCE, OBSERVE, DELIVER, SWEEP, POLL, ECHO = (
    f"headgate.{name}" for name in ("advance", "observe", "deliver", "sweep", "poll", "echo")
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
        self._waiting: queue.Queue[tuple[float, str, tuple[int | str, ...]]] = queue.Queue(BACKLOG)
        self._sender: threading.Thread | None = None
        self._start = threading.Lock()
        self._dropping = False

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
            self._waiting.put_nowait((time.monotonic(), task, arguments))
        except queue.Full:
            self._tell("queue.drops", error="full")

    def _drain(self) -> None:
        while True:
            since, task, arguments = self._waiting.get()
            if time.monotonic() - since > STALE_SECONDS:
                continue  # it waited for a broker that did not answer: the sweep has been faster
            try:
                self._app.send_task(task, args=arguments, retry=False)
            except Exception as error:  # noqa: BLE001 -- whatever a broker raises: this thread goes on, a sweep will find it
                self._tell("queue.drops", error=type(error).__name__)
            else:
                self._tell("queue.sends")

    def _tell(self, event: str, **fields: str) -> None:
        """Say that messages are dropped, or sent again, once and not for each of them."""
        drops = event == "queue.drops"
        if drops != self._dropping:
            self._dropping = drops
            log.log(logging.WARNING if drops else logging.INFO, event, extra=fields)


def echo(app: Celery, worker: str) -> bool:
    """Send a message to the queue of one worker alone, over a new connection; False where the broker does not take
    it."""
    try:
        with app.connection_for_write() as connection, app.amqp.Producer(connection, auto_declare=False) as producer:
            app.send_task(ECHO, queue=worker_direct(worker), producer=producer, retry=False, expires=60)
    except Exception as error:  # noqa: BLE001 -- who calls this asks for a verdict on the broker: every error is one
        log.info("queue.no_echo", extra={"error": type(error).__name__})
        return False
    return True


def make_app(broker_url: str, folder: str) -> Celery:
    """The Celery application: no result backend, no acknowledgement games; the database is the queue.

    An empty `broker_url` takes files below `folder` (app/adapters/file_broker.py).
    """
    app = Celery("headgate", set_as_current=False)
    options: dict[str, object] = {
        "socket_timeout": ANSWER_SECONDS,
        "socket_connect_timeout": ANSWER_SECONDS,
        # A consumer whose connection is half open, as after a failover, finds out after twice as many seconds.
        "health_check_interval": ANSWER_SECONDS,
    }
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
        task_publish_retry=False,
        worker_prefetch_multiplier=1,
        # Celery takes less at once after each broken connection; with wake-ups that may be lost there is no need.
        worker_enable_prefetch_count_reduction=False,
        # A queue for each worker, by which it finds out whether it still hears (workers.hearing).
        worker_direct=bool(broker_url),
        worker_hijack_root_logger=False,
        worker_enable_remote_control=bool(broker_url),
        worker_send_task_events=False,
        timezone="UTC",
    )
    return app
