"""The end of a worker process: no new step, a deadline for those that run, and then the end in any case."""

import logging
import os
import signal
import threading
from collections.abc import Callable

log = logging.getLogger(__name__)
DRAIN_SECONDS = 15.0
"""Below the supervisor's patience (app.supervisor.STOP_SECONDS) and that of Docker (stop_grace_period)."""
LAST_WORDS_SECONDS = 2.0


class Shutdown:
    """`begun` is what the rest of the process asks before it takes on anything new. `last_words` is called where the
    deadline passes; it may hang, since what it talks to may be what everything else hangs on."""

    def __init__(self, last_words: Callable[[], None], seconds: float = DRAIN_SECONDS) -> None:
        self._last_words, self._seconds = last_words, seconds
        self.begun = threading.Event()
        self._signalled = False

    def start(self) -> None:
        """Begin to watch; returns at once. (A signal's handler must not start a thread: it may interrupt one that
        holds the interpreter's own lock on the list of threads.)"""
        threading.Thread(target=self._watch, name="shutdown", daemon=True).start()

    def on_signal(self) -> None:
        """What the process does for SIGTERM; who sends it twice wants the end at once."""
        if self._signalled:
            os._exit(128 + signal.SIGTERM)
        self._signalled = True
        self.begun.set()

    def request(self) -> None:
        """Have this process end as if it had been told to."""
        self.begun.set()
        os.kill(os.getpid(), signal.SIGTERM)

    def _watch(self) -> None:
        self.begun.wait()
        # Where all steps end before, so does the process, and with it this thread.
        threading.Event().wait(self._seconds - LAST_WORDS_SECONDS)
        log.warning("worker.deadline", extra={"seconds": self._seconds})
        words = threading.Thread(target=self._last_words, name="last-words", daemon=True)
        words.start()
        words.join(LAST_WORDS_SECONDS)
        os._exit(1)
