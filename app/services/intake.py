"""Intake: webhooks and polls are hints; `observe` reads the truth from MLflow and opens what a net change asks for."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.orm import Session

from app.db import outbox, registry
from app.db.session import now
from app.domain.errors import Conflict, HeadgateError
from app.domain.registry import MAX_NAME, Change, Event, ModelView, announced, can_be_watched, diff, interpret
from app.domain.registry import OWN as OWN
from app.domain.registry import POLL as POLL
from app.domain.registry import WEBHOOK as WEBHOOK
from app.parts import Core
from app.services import asks, baseline, deliveries, swallowed
from app.services.outbox import is_own

log = logging.getLogger(__name__)
MAX_ROUNDS = 5


@dataclass(frozen=True)
class Call:
    """One verified webhook call: who sent it, its delivery id, what happened, and to which model; and what it says of a
    watched field, and when by the sender's clock, where it says so."""

    source: str
    delivery_id: str
    event: str
    model: str | None
    said: Event | None = None
    sent_at: datetime | None = None

    @property
    def concerns_us(self) -> bool:
        """Whether a model has to be read anew: any tag but the asking one, such as our own status, changes nothing."""
        return self.model is not None and (self.said is not None or not self.event.startswith("model_version_tag."))


def receive(core: Core, call: Call) -> bool:
    """Remember a webhook call and wake whoever reads the model anew; False where this call came before."""
    model = call.model if call.concerns_us and call.model and can_be_watched(call.model) else None
    said = vars(call.said) if call.said is not None else {}
    row = {"source": call.source, "delivery_id": call.delivery_id, "event": call.event[:255], "sent_at": call.sent_at}
    with core.db.begin() as session:
        fresh = registry.add_delivery(session, {**row, "model": model, **said})
    if fresh and model is not None:
        core.queue.observe(model)
    return fresh


def observe(core: Core, model: str, via: str) -> list[int]:
    """Re-read one model from MLflow and act on what changed since the last reading; returns opened promotions.

    Raises:
        Transient: MLflow or the database is away; nothing was recorded, so the next reading finds the same change.
    """
    for _ in range(MAX_ROUNDS):
        with core.db.read() as session:
            moment = now(session)
            generation = registry.generation(session, model)
        after = core.registry.read_model(model)
        try:
            opened = _record(core, model, after, generation, moment, via)
        except Conflict:
            continue  # somebody opened a promotion between our look and our write: look again
        if opened is not None:
            for promotion_id in opened:
                core.queue.advance(promotion_id)
            return opened
    log.warning("intake.busy", extra={"model": model})
    return []


def _record(
    core: Core, model: str, after: ModelView | None, generation: int, moment: datetime, via: str
) -> list[int] | None:
    """One transaction: compare, store, and act. None where another reader was faster."""
    with core.db.begin() as session:
        before, stored = registry.observed(session, model)
        if stored != generation:
            return None
        found, opened = diff(before, after), list[int]()
        if found or (before is None and after is not None):
            if not registry.store(session, model, after, generation):
                return None
            opened = _act_on_all(session, core, found, via, before, after)
        deliveries.match(session, model, moment)
    return opened


def _act_on_all(
    session: Session, core: Core, found: list[Change], via: str, before: ModelView | None, after: ModelView | None
) -> list[int]:
    if not found:
        return []
    model = found[0].model
    pending = list(outbox.pending(session, model))
    policy, trouble = asks.policy_for(core, model, found)
    known = before is not None or registry.has_baseline(session)
    theirs = [change for change in found if not is_own(pending, change)]
    # What is taken back goes first: somebody may ask anew for the very same thing by another mark.
    for change in theirs:
        withdrawal, ask = interpret(change, policy)
        if withdrawal is not None and not (ask and ask.environment == withdrawal.environment):
            asks.withdraw(session, withdrawal)
    opened = []
    for change in found:
        due = announced(change, before, after)
        if change not in theirs:
            registry.add_change(session, change, OWN, due=due)
            continue
        promotion_id, note = asks.answer(session, core, change, policy, trouble, known, after)
        registry.add_change(session, change, via, note or trouble, promotion_id, due=due)
        if promotion_id is not None:
            opened.append(promotion_id)
    return opened


def poll(core: Core) -> int:
    """Read the whole registry and observe each model that differs from what was last seen; returns how many did.

    Raises:
        Transient: MLflow is away or its answer broke off; nothing was taken for deleted.
    """
    with core.db.read() as session:
        seen = registry.all_observed(session)
        waiting = set(registry.unobserved_models(session))
        known = registry.has_baseline(session)
    differing, fresh, taken = set[str](), list[ModelView](), 0
    for view in core.registry.snapshot():
        if not can_be_watched(view.name):
            log.warning("intake.unwatched", extra={"model": view.name[:MAX_NAME]})
        elif view.name not in seen and view.name not in waiting:
            fresh.append(view)
        elif seen.pop(view.name, None) != view:
            differing.add(view.name)
        if len(fresh) == baseline.CHUNK:
            taken += _take(core, fresh, known, differing)
    taken += _take(core, fresh, known, differing)
    differing |= seen.keys() | waiting
    missed = sum(not _observe_or_log(core, model, WEBHOOK if model in waiting else POLL) for model in sorted(differing))
    if not missed:
        # Only a model that was seen once can be told from one whose stages are older than Headgate.
        with core.db.begin() as session:
            registry.set_baseline(session)
    swallowed.recover(core)
    return taken + len(differing)


def _take(core: Core, fresh: list[ModelView], known: bool, differing: set[str]) -> int:
    """Write down what is new and asks for nothing, and empty the list; what is left goes to `differing`. Returns how
    many were written down."""
    left = baseline.take(core, fresh, known) if fresh else set[str]()
    taken = len(fresh) - len(left)
    differing |= left
    fresh.clear()
    return taken


def observe_each(core: Core, models: Sequence[str]) -> None:
    """Observe models that webhooks have named; what is wrong with one keeps no other from being seen."""
    for model in models:
        _observe_or_log(core, model, WEBHOOK)


def _observe_or_log(core: Core, model: str, via: str) -> bool:
    """Observe one model; whatever is wrong with it must not keep others from being seen."""
    try:
        observe(core, model, via)
    except HeadgateError as error:
        log.warning("intake.observe_failed", extra={"model": model, "reason": error.reason})
        return False
    except Exception:
        log.exception("intake.defect", extra={"model": model})
        return False
    return True
