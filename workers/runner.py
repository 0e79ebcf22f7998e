"""The engine: claim a promotion, run the step of its state, record the outcome, and go on while it is due."""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, assert_never

from sqlalchemy.orm import Session

from app.db import fences, promotions
from app.db.models import Promotion
from app.db.promotions import Claim
from app.db.session import now
from app.domain.canonical import canonical
from app.domain.errors import Conflict, Fault, HeadgateError, LostLease, Rejected, Transient
from app.domain.promotion import ENDED, Done, End, Outcome, State, Wait, may_follow, next_state
from app.domain.retry import LIMITS, SUSPECT, Again, GiveUp, Kind, backoff, counts, decide, note
from app.parts import Core, Plant, Timing
from app.services import releases_follow
from app.services.promotions import transition
from workers.context import Context, load
from workers.steps import STEPS, undo

log = logging.getLogger(__name__)
PATIENCE_S = 60.0


@dataclass(frozen=True)
class Retry:
    """The step failed and runs again after `pause`; `failures` is the record of the step's failures with this one."""

    pause: timedelta
    error: str
    failures: Mapping[str, Any] | None


class Runner:
    """Advances promotions on behalf of one worker, which `owner` names, until that worker is `stopping`."""

    def __init__(
        self, core: Core, plant: Plant, timing: Timing, owner: str, stopping: Callable[[], bool] = lambda: False
    ) -> None:
        self._core, self._plant, self._timing, self._owner = core, plant, timing, owner
        self._stopping = stopping

    def advance(self, promotion_id: int) -> None:
        """Run the promotion as far as it goes now. Safe to call at any time, by anybody, any number of times."""
        # What is due stays due: where this worker stops between two steps, another one goes on.
        while not self._stopping() and self._advance_once(promotion_id):
            pass

    def _advance_once(self, promotion_id: int) -> bool:
        """One step; True where the promotion is due again at once."""
        with self._core.db.begin() as session:
            claimed = self._claim(session, promotion_id)
            if claimed is None:
                return False
            row, held = claimed
        context = self._look(row, held)
        log.info("step.started", extra={"promotion": held.id, "state": held.state.value})
        try:
            with self._heartbeat(held):
                outcome = self._outcome(row, context)
            return self._record(held, outcome)
        except LostLease as error:
            log.warning("step.lost_lease", extra={"promotion": held.id, "reason": error.reason})
            with self._core.db.begin() as session:
                promotions.let_go(session, held, self._timing.tick)
                fences.catch_up(session, row.model, row.environment, error.seen)
            return False

    def _look(self, row: Promotion, held: Claim) -> Context:
        """Read what the step may need: after the claim, for on SQLite nobody else writes while a claim is under way."""
        try:
            with self._core.db.read() as session:
                return load(session, self._core, self._plant, self._timing, row, held)
        except Exception:
            with self._core.db.begin() as session:
                promotions.let_go(session, held, self._timing.tick)
            raise

    def _claim(self, session: Session, promotion_id: int) -> tuple[Promotion, Claim] | None:
        """Take the promotion's lease, and write down who left it behind; None where there is nothing to do now."""
        left = promotions.left_behind(session, promotion_id)
        crashes = left.crashes if left is not None else 0
        if crashes >= SUSPECT and promotions.holds_suspect(session, self._owner, SUSPECT, promotion_id):
            return None
        claimed = promotions.claim(session, promotion_id, self._owner, self._timing.lease)
        if claimed is not None and left is not None and left.owner is not None and claimed[0].crashes == crashes:
            row = claimed[0]
            told = f"{row.state} ended its worker without a word"
            row.failures = note(row.failures, Kind.CRASH, now(session).isoformat(), left.owner, told)
            session.flush()
        return claimed

    def _outcome(self, row: Promotion, context: Context) -> Outcome | Retry:
        """Run the step, or what must happen instead of it, and turn errors into outcomes."""
        outcome: Outcome | Retry
        try:
            outcome = self._instead(row, context) or STEPS[context.state](context)
            if not isinstance(outcome, Wait):
                canonical(dict(outcome.evidence))  # what cannot be hashed cannot be recorded: a defect of the step
        except LostLease:
            raise
        except Rejected as error:
            rejects = may_follow(context.state, State.REJECTED)
            outcome = End(State.REJECTED if rejects else State.FAILED, str(error))
        except (Transient, Fault) as error:
            kind = Kind.TRANSIENT if isinstance(error, Transient) else Kind.FAULT
            outcome = self._failed(row, context, kind, str(error))
        except Exception as error:
            log.exception("step.defect", extra={"promotion": context.promotion_id})
            told = f"{context.state} broke: {type(error).__name__}: {error} Please report this defect."
            outcome = self._failed(row, context, Kind.FAULT, told)
        # Where undoing itself ends the process, too, the promotion must end all the same: nobody renews the canary's
        # lease, so that it gets no traffic, and whoever tends what serves sets the route right.
        if isinstance(outcome, End) and context.state not in ENDED and row.crashes < 2 * LIMITS[Kind.CRASH]:
            return self._undone(row, context, outcome)
        return outcome

    @staticmethod
    def _undone(row: Promotion, context: Context, end: End) -> End | Retry:
        """Take back what the step did outside: an end without that would be a lie, so it waits."""
        try:
            undo(context)
        except LostLease:
            raise
        except Exception as error:
            if not isinstance(error, HeadgateError):
                log.exception("undo.defect", extra={"promotion": context.promotion_id})
            return Retry(backoff(row.attempt + 1), f"cannot undo {context.state} yet: {error}", row.failures)
        return end

    def _failed(self, row: Promotion, context: Context, kind: Kind, told: str) -> End | Retry:
        """Whether a step that failed runs again."""
        if context.state in ENDED:
            return Retry(
                backoff(row.attempt + 1), f"cannot clean up yet: {told}", row.failures
            )  # however long it takes
        failures = note(row.failures, kind, context.now.isoformat(), self._owner, told)
        match decide(kind, counts(failures)):
            case Again(pause):
                return Retry(pause, told, failures)
            case GiveUp(reason):
                return End(State.FAILED, f"{told} ({context.state} was {reason})", {"failures": failures})

    @staticmethod
    def _instead(row: Promotion, context: Context) -> End | None:
        match decide(Kind.CRASH, {Kind.CRASH: row.crashes}):
            case GiveUp(reason):
                return End(State.FAILED, _quarantined(row, reason), {"failures": row.failures or {}})
        if row.stop and context.state not in ENDED:
            return End(State(row.stop["state"]), row.stop["reason"], by=row.stop["by"])
        return None

    def _record(self, held: Claim, outcome: Outcome | Retry) -> bool:
        """Write the outcome; True where the promotion is due again at once.

        A database that goes away at this moment is waited for, so that what the step did need not be done again. Its
        COMMIT may have been carried out all the same: then the lease was given back, and nothing is written twice.
        """
        end, pause, tried = time.monotonic() + PATIENCE_S, 0.1, False
        while True:
            try:
                again = self._record_once(held, outcome)
                break
            except LostLease:
                if not tried:
                    raise
                again = True  # recorded at the first try, or overtaken: whichever it was, the next claim finds out
                break
            except Transient as error:
                if self._stopping() or time.monotonic() > end:
                    raise
                log.warning("step.unrecorded", extra={"promotion": held.id, "reason": error.reason})
            time.sleep(pause)
            tried, pause = True, min(2.0, pause * 2)
        self._core.queue.deliver()
        return again

    def _record_once(self, held: Claim, outcome: Outcome | Retry) -> bool:
        try:
            with self._core.db.begin() as session:
                return self._write(session, held, outcome)
        except Conflict:
            # Another promotion became active between our look and our write: wait for its end.
            with self._core.db.begin() as session:
                promotions.reschedule(session, held, now(session) + self._timing.tick)
            return False

    def _write(self, session: Session, held: Claim, outcome: Outcome | Retry) -> bool:
        row = promotions.get_locked(session, held.id)
        if row is None or (row.lease_epoch, row.lease_owner) != (held.epoch, held.owner):
            raise LostLease(f"promotion {held.id} went on without this worker")
        if held.state in ENDED:
            self._write_cleanup(session, row, held, outcome)
            return False
        if row.stop and isinstance(outcome, End):
            # Who asked to stop was told that it will: that the step came to another end meanwhile changes nothing.
            outcome = End(State(row.stop["state"]), row.stop["reason"], outcome.evidence, row.stop["by"])
        elif (row.stop and not held.stopping) or (isinstance(outcome, Done | End) and _undecided(row, held)):
            promotions.reschedule(session, held, now(session))
            return True
        match outcome:
            case Done(evidence, note):
                after = next_state(held.state)
                delay = self._timing.drain if after is State.LIVE else timedelta(0)
                transition(session, row, held, after, note, evidence, delay)
                return after not in ENDED
            case End(state, reason, evidence, by):
                transition(session, row, held, state, reason, evidence, by=by)
                return True
            case Wait(delay, progress):
                releases_follow.follow_progress(session, held, progress)
                if row.next_run_at != held.due:
                    delay = timedelta(0)  # woken while the step ran, perhaps by the very thing that it waits for
                promotions.reschedule(session, held, now(session) + delay, progress=dict(progress), **promotions.CALM)
                return delay <= timedelta(0)
            case Retry(pause, error, failures):
                log.warning("step.retry", extra={"promotion": held.id, "state": held.state, "reason": error})
                values = {"attempt": row.attempt + 1, "last_error": error, "failures": failures}
                promotions.reschedule(session, held, now(session) + pause, **values)
                return False
        assert_never(outcome)

    @staticmethod
    def _write_cleanup(session: Session, row: Promotion, held: Claim, outcome: Outcome | Retry) -> None:
        match outcome:
            case Retry(pause, error):
                values = {"attempt": row.attempt + 1, "last_error": error}
                promotions.reschedule(session, held, now(session) + pause, **values)
            case End(_, reason):  # what it left is cleaned up with the next promotion of this model
                promotions.reschedule(session, held, None, last_error=f"cannot clean up: {reason}")
            case _:
                promotions.reschedule(session, held, None, **promotions.CALM)

    @contextmanager
    def _heartbeat(self, held: Claim) -> Iterator[None]:
        """Renew the lease while the step runs; a step that takes long is not a step that died."""
        done = threading.Event()

        def beat() -> None:
            while not done.wait(self._timing.lease.total_seconds() / 4):
                try:
                    with self._core.db.begin() as session:
                        if not promotions.renew(session, held, self._timing.lease):
                            return
                except Transient as error:
                    log.warning("heartbeat.failed", extra={"promotion": held.id, "reason": error.reason})

        thread = threading.Thread(target=beat, name=f"heartbeat-{held.id}", daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()


def _undecided(row: Promotion, held: Claim) -> bool:
    """Whether somebody decided while the decisions were counted: who was told that it is recorded is heard, too."""
    return held.state is State.APPROVAL and row.next_run_at != held.due


def _quarantined(row: Promotion, reason: str) -> str:
    """Which step, how often, where and when, for people; the record of its failures says it to programs."""
    seen = (row.failures or {}).get(Kind.CRASH.value)
    last = f" (the last time {seen['workers'][-1]}, found at {seen['last_at']})" if seen else ""
    return f"{row.state} {reason}{last}. See the worker's log, then `headgate retry`."
