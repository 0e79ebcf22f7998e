"""Logs: one JSON object a line, a static event name and its fields."""

import json
import logging
import sys
from contextvars import ContextVar
from datetime import UTC, datetime

SELDOM_SECONDS = 60.0
REQUEST: ContextVar[str] = ContextVar("request", default="")
"""The X-Request-Id of the request that is being answered; every line that is logged meanwhile has it."""
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class _JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            "logger": record.name,
            **{key: value for key, value in vars(record).items() if key not in _STANDARD},
        }
        if request := REQUEST.get():
            line["request"] = request
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


class Seldom(logging.Filter):
    """Lets each kind of message through once a minute."""

    def __init__(self) -> None:
        super().__init__()
        self._said: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether this record is to be written."""
        said = self._said.get(record.msg)
        if said is not None and record.created - said < SELDOM_SECONDS:
            return False
        self._said[record.msg] = record.created
        return True


def configure() -> None:
    """Send all logs of this process to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonLines())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    for noisy in ("httpx", "celery.app.trace", "celery.worker.strategy", "celery.beat", "kombu"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    # While the broker is away, the clock would say so each second, at length.
    logging.getLogger("celery.beat").addFilter(Seldom())
