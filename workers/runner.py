"""The engine: claim a promotion, run the step of its state, record the outcome, and go on while it is due."""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import assert_never

from sqlalchemy.orm import Session

from app.db import fences, promotions
from app.db.models import Promotion
from app.db.promotions import Claim
from app.db.session import now
from app.domain.digests import canonical
from app.domain.errors import Conflict, Fault, HeadgateError, LostLease, Rejected, Transient
from app.domain.promotion import ENDED, Done, End, Outcome, State, Wait, may_follow, next_state
from app.domain.retry import MAX_CRASHES, backoff, gives_up
from app.parts import Core, Plant, Timing
from app.services import releases_follow
from app.services.promotions import transition
from workers.context import Context, load
from workers.steps import STEPS, undo

log = logging.getLogger(__name__)


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
            claimed = promotions.claim(session, promotion_id, self._owner, self._timing.lease)
            if claimed is None:
                return False
            row, held = claimed
            context = load(session, self._core, self._plant, self._timing, row, held)
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

    def _outcome(self, row: Promotion, context: Context) -> Outcome | Transient | Fault:
        """Run the step, or what must happen instead of it, and turn errors into outcomes."""
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
            if not gives_up(row.attempt + 1, isinstance(error, Transient)):
                return error
            outcome = End(State.FAILED, str(error))
        except Exception as error:
            log.exception("step.defect", extra={"promotion": context.promotion_id})
            if not gives_up(row.attempt + 1, transient=False):
                return Fault(f"{context.state} broke: {type(error).__name__}: {error}", "Please report this defect.")
            outcome = End(State.FAILED, f"{context.state} broke: {type(error).__name__}: {error}")
        if isinstance(outcome, End) and context.state not in ENDED:
            try:
                undo(context)
            except LostLease:
                raise
            except Exception as error:
                if not isinstance(error, HeadgateError):
                    log.exception("undo.defect", extra={"promotion": context.promotion_id})
                # Ending without having undone would leave a lie behind, so the end waits for the undoing.
                return Transient(f"cannot undo {context.state} yet: {error}")
        return outcome

    @staticmethod
    def _instead(row: Promotion, context: Context) -> End | None:
        if row.crashes > MAX_CRASHES and context.state not in ENDED:
            return End(
                State.FAILED,
                f"{context.state} ended its worker {row.crashes} times without a word and was quarantined. "
                "See the worker's log, then `headgate retry`.",
            )
        if row.stop and context.state not in ENDED:
            return End(State(row.stop["state"]), row.stop["reason"])
        return None

    def _record(self, held: Claim, outcome: Outcome | Transient | Fault) -> bool:
        """Write the outcome in one transaction; True where the promotion is due again at once."""
        try:
            with self._core.db.begin() as session:
                again = self._write(session, held, outcome)
        except Conflict:
            # Another promotion became active between our look and our write: wait for its end.
            with self._core.db.begin() as session:
                promotions.reschedule(session, held, now(session) + self._timing.tick)
            return False
        self._core.queue.deliver()
        return again

    def _write(self, session: Session, held: Claim, outcome: Outcome | Transient | Fault) -> bool:
        row = promotions.get_locked(session, held.id)
        if row is None or row.lease_epoch != held.epoch:
            raise LostLease(f"promotion {held.id} went on without this worker")
        if held.state in ENDED:
            self._write_cleanup(session, row, held, outcome)
            return False
        if row.stop and not held.stopping and not isinstance(outcome, End):
            promotions.reschedule(session, held, now(session))
            return True
        match outcome:
            case Done(evidence):
                after = next_state(held.state)
                delay = self._timing.drain if after is State.LIVE else timedelta(0)
                transition(session, row, held, after, "", evidence, delay)
                return after not in ENDED
            case End(state, reason, evidence):
                transition(session, row, held, state, reason, evidence)
                return True
            case Wait(delay, progress):
                releases_follow.follow_progress(session, held, progress)
                if row.next_run_at != held.due:
                    delay = timedelta(0)  # woken while the step ran, perhaps by the very thing that it waits for
                promotions.reschedule(
                    session, held, now(session) + delay, progress=dict(progress), attempt=0, crashes=0, last_error=""
                )
                return delay <= timedelta(0)
            case Transient() | Fault():
                pause = backoff(row.attempt + 1)
                log.warning("step.retry", extra={"promotion": held.id, "state": held.state, "reason": outcome.reason})
                promotions.reschedule(
                    session, held, now(session) + pause, attempt=row.attempt + 1, last_error=str(outcome)
                )
                return False
        assert_never(outcome)

    @staticmethod
    def _write_cleanup(session: Session, row: Promotion, held: Claim, outcome: Outcome | HeadgateError) -> None:
        if isinstance(outcome, Done):
            promotions.reschedule(session, held, None, attempt=0, crashes=0, last_error="")
        else:
            attempt, told = row.attempt + 1, outcome.reason if isinstance(outcome, End) else str(outcome)
            again = now(session) + backoff(attempt)
            promotions.reschedule(session, held, again, attempt=attempt, last_error=f"cannot clean up yet: {told}")

    @contextmanager
    def _heartbeat(self, held: Claim) -> Iterator[None]:
        """Renew the lease while the step runs; a step that takes long is not a step that died."""
        done = threading.Event()

        def beat() -> None:
            while not done.wait(self._timing.lease.total_seconds() / 3):
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
