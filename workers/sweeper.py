"""The sweep that needs no broker: each worker looks by itself for what is late, and runs it."""

import functools
import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta

from app.db import outbox, promotions, registry
from app.domain.errors import HeadgateError
from app.services import pace
from workers.tasks import TEND_SECONDS, Desk

log = logging.getLogger(__name__)
LOOK_SECONDS = 1.0
LATE = timedelta(seconds=2)
"""How long messages may take: what is due for longer has lost its message, or there is no broker."""
RETRY_SECONDS = 5.0
DELIVER, OBSERVE, TEND, POLL = "deliver", "observe", "tend", "poll"
UPKEEP = (DELIVER, OBSERVE, TEND, POLL)


@dataclass(frozen=True)
class Late:
    """What one look found: promotions by id, the longest overdue first; models whose webhooks nobody has followed;
    and which of the installation's chores nobody does."""

    promotions: Sequence[int] = ()
    models: Sequence[str] = ()
    chores: frozenset[str] = frozenset()


def choose(late: Late, running: frozenset[int | str], free: int) -> list[int | str]:
    """What to start now: chores that do not run yet, and as many promotions as there are `free` threads.

    Chores take no thread from promotions: each runs once at a time, and none of them waits for a long step's end.
    """
    chores = [chore for chore in UPKEEP if chore in late.chores and chore not in running]
    waiting = [promotion_id for promotion_id in late.promotions if promotion_id not in running]
    return [*chores, *waiting[: max(0, free)]]


class Sweeper:
    """Runs in a thread of each worker process until `draining` is set. `threads` is how many promotions this worker
    may run at once and `busy()` how many threads the broker's messages occupy: whoever wakes it, a worker runs no
    more at once than it was given threads for."""

    def __init__(
        self,
        desk: Callable[[], Desk],
        threads: int,
        busy: Callable[[], int],
        draining: threading.Event,
    ) -> None:
        self._desk, self._threads, self._busy, self._draining = desk, threads, busy, draining
        self._pool = ThreadPoolExecutor(threads + len(UPKEEP), thread_name_prefix="sweeper")
        self._running: dict[int | str, float] = {}
        self._lock = threading.Lock()
        self._ended: dict[str, float] = {}
        self._away = False
        self._thread = threading.Thread(target=self._run, name="sweeper", daemon=True)

    def start(self) -> None:
        """Begin to look; returns at once."""
        self._thread.start()

    def join(self) -> None:
        """Wait until nothing that it started runs any more; call it once `draining` is set."""
        if self._thread.is_alive():
            self._thread.join()
        self._pool.shutdown()

    def _run(self) -> None:
        while not self._draining.wait(LOOK_SECONDS):
            try:
                self.look()
                self._tell(away=False)
            except HeadgateError as error:
                self._tell(away=True, reason=error.reason)
            except Exception:
                # This thread is what promotions go on by when all else fails: it must outlive its own defects.
                log.exception("sweeper.defect")

    def look(self) -> None:
        """Look once, and start what is late.

        Raises:
            Transient: the database is away.
        """
        desk = self._desk()
        desk.bury_the_dead()
        late = self._late(desk)
        with self._lock:
            running = frozenset(self._running)
            steps = sum(isinstance(job, int) for job in running)
            chosen = choose(late, running, self._threads - self._busy() - steps)
            self._running.update(dict.fromkeys(chosen, time.monotonic()))
        for job in chosen:
            self._pool.submit(self._do, job, self._work(desk, late, job))

    def _late(self, desk: Desk) -> Late:
        moment = time.monotonic()
        chores = {TEND} if moment - desk.tended_at > 2 * TEND_SECONDS else set[str]()
        with desk.core.db.read() as session:
            models = registry.unobserved_models(session, LATE)
            if models:
                chores.add(OBSERVE)
            if outbox.has_due(session, LATE):
                chores.add(DELIVER)
            if outbox.idle(session, "poll") and pace.is_due(session, desk.poll_seconds, LATE):
                chores.add(POLL)
            overdue = promotions.due(session, late=LATE)
        with self._lock:
            # A chore that fails, because MLflow is away, is not tried anew each second.
            rested = {chore for chore in chores if moment - self._ended.get(chore, -RETRY_SECONDS) >= RETRY_SECONDS}
        return Late(overdue, models, frozenset(rested))

    @staticmethod
    def _work(desk: Desk, late: Late, job: int | str) -> Callable[[], object]:
        match job:
            case int():
                return functools.partial(desk.runner.advance, job)
            case "deliver":
                return desk.deliver
            case "observe":
                return functools.partial(desk.observe_missed, late.models)
            case "tend":
                return desk.tend
        return desk.poll

    def _do(self, job: int | str, work: Callable[[], object]) -> None:
        log.info("sweeper.runs", extra={"job": job})
        try:
            work()
        except HeadgateError as error:
            log.warning("sweeper.put_off", extra={"job": job, "reason": error.reason})
        except Exception:
            log.exception("sweeper.defect", extra={"job": job})
        finally:
            with self._lock:
                del self._running[job]
                if isinstance(job, str):
                    self._ended[job] = time.monotonic()

    def _tell(self, away: bool, reason: str = "") -> None:
        """Say that the database has gone, or come, once and not each second."""
        if away and not self._away:
            log.warning("sweeper.waits", extra={"reason": reason})
        elif self._away and not away:
            log.info("sweeper.goes_on")
        self._away = away
