"""Celery's consumer, but calm about messages of a newer version."""

import logging
from typing import Any

from celery.worker.consumer import Consumer as CeleryConsumer

log = logging.getLogger(__name__)


class Consumer(CeleryConsumer):  # type: ignore[misc]  # Celery has no types
    """Drops what it does not know: whatever a newer sender means by it lies in the database, for a newer worker."""

    _unknown: frozenset[str] = frozenset()

    def on_unknown_task(self, _body: object, message: Any, _error: Exception) -> None:
        """One warning for each kind of task, instead of an error with a traceback for each message."""
        name = str(message.headers.get("task"))
        if name not in self._unknown:
            self._unknown |= {name}
            log.warning("task.unknown", extra={"task": name})
        message.ack_log_error(log, self.connection_errors)
