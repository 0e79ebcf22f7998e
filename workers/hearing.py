"""Whether this worker still hears: one whose broken connection to the broker was never mended lives, and gets nothing.

It sends a message to itself when it has heard nothing for a while. Messages of others would not do: how many of them
come by depends on how many workers there are, and on a clock that may be away.
"""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

log = logging.getLogger(__name__)
LOOK_SECONDS = 5.0
QUIET = 10.0
PATIENCE = 45.0
"""Celery tries again to connect after up to 30 s: whoever is deaf for longer stays it."""


@dataclass(frozen=True)
class Silence:
    """What a worker knows of a silence; times in seconds of one clock. It `heard` its last message then, and since
    `asked` the broker has taken all that this worker sent to itself."""

    heard: float
    asked: float | None = None

    def should_ask(self, now: float) -> bool:
        """Whether it is so quiet that the worker should say something to itself."""
        return now - self.heard >= QUIET

    def deaf(self, now: float) -> bool:
        """Whether what it said must have come back by now."""
        return self.asked is not None and self.asked > self.heard and now - self.asked >= PATIENCE


def after(silence: Silence, now: float, heard: float, took: bool | None) -> Silence:
    """The silence after another look: `took` says whether the broker accepted a message to ourselves, None where
    none was sent, because there was no need or because no thread was free to take it from the broker."""
    if heard > silence.heard or not took:
        # A broker that is away, or a worker that is busy, explains a silence: patience begins anew.
        return Silence(max(heard, silence.heard))
    return Silence(silence.heard, silence.asked if silence.asked is not None else now)


class Hearing:
    """Watches in a thread. `ask()` sends a message to this worker over a new connection and says whether the broker
    took it; `occupied()` says that no thread is free; `restart()` has this process end and be started anew."""

    def __init__(
        self, ask: Callable[[], bool], occupied: Callable[[], bool], restart: Callable[[], None], done: threading.Event
    ) -> None:
        self._ask, self._occupied, self._restart, self._done = ask, occupied, restart, done
        self._heard = time.monotonic()

    def heard(self) -> None:
        """A message has come."""
        self._heard = time.monotonic()

    def start(self) -> None:
        """Begin to watch; returns at once."""
        threading.Thread(target=self._watch, name="hearing", daemon=True).start()

    def _watch(self) -> None:
        silence = Silence(self._heard)
        while not self._done.wait(LOOK_SECONDS):
            asks = Silence(self._heard).should_ask(time.monotonic()) and not self._occupied()
            took = self._ask() if asks else None
            silence = after(silence, time.monotonic(), self._heard, took)
            if silence.deaf(time.monotonic()):
                log.error("worker.deaf", extra={"seconds": round(time.monotonic() - silence.heard)})
                self._restart()
                return
