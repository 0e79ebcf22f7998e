"""Requests that our own clean-up in MLflow swallowed, and that only their webhooks tell of."""

import logging
from datetime import timedelta

from sqlalchemy.orm import Session

from app.db import registry
from app.db.models import ChangeRow, Delivery
from app.db.session import now
from app.domain.errors import HeadgateError
from app.domain.registry import OWN, WEBHOOK, Change, interpret
from app.parts import Core
from app.services import asks
from app.services.deliveries import LATE

log = logging.getLogger(__name__)
# A person's own deletion, if there was one, is announced within this time of the request that it took back.
SETTLED = timedelta(seconds=5)
# How long after our deletion the webhook of a request that fell into it may arrive.
ABOUT = timedelta(seconds=60)
SWALLOWED = "Headgate took the mark of version {} away just as it was set anew: its webhook tells of that"


def recover(core: Core) -> list[int]:
    """Open the promotions that were asked for and swallowed by our own clean-up; returns their ids.

    MLflow can delete an alias or a tag only whatever it holds: what a person makes of it between our look and our
    deletion vanishes, and only its webhook is left to tell.
    """
    with core.db.read() as session:
        since = now(session) - LATE
        told = [row for row in registry.unmatched(session, since) if row.value is not None]
    opened = []
    for delivery in told:
        try:
            with core.db.begin() as session:
                found = _recover(session, core, delivery.source, delivery.delivery_id)
        except HeadgateError as error:
            log.warning("intake.recover_failed", extra={"model": delivery.model, "reason": error.reason})
            continue
        if found is not None:
            log.warning("intake.recovered", extra={"model": delivery.model, "promotion": found})
            core.queue.advance(found)
            opened.append(found)
    return opened


def _recover(session: Session, core: Core, source: str, delivery_id: str) -> int | None:
    delivery = registry.delivery(session, source, delivery_id)
    if delivery is None or delivery.model is None or delivery.change_id is not None:
        return None
    registry.observed(session, delivery.model)  # its lock: whoever reads this model now waits
    event = registry.said(delivery)
    swallowed_by = registry.latest_change(session, delivery.model, delivery.field or "", delivery.version)
    if event is None or swallowed_by is None or not _swallowed(session, delivery, swallowed_by):
        return None
    alias = event.field.startswith("alias:")
    change = Change(delivery.model, event.field, event.value if alias else event.version, None, event.value)
    policy, trouble = asks.policy_for(core, delivery.model, [change])
    _, ask = interpret(change, policy)
    if ask is None:
        return None
    promotion_id = asks.open_ask(session, core, policy, ask, trouble)
    note = SWALLOWED.format(swallowed_by.before) if alias else SWALLOWED.format(event.version)
    row = registry.add_change(session, change, WEBHOOK, note, promotion_id, due=True)
    registry.note(session, delivery, row)
    gone = Change(change.model, change.field, None if alias else change.version, change.after, None)
    registry.add_change(session, gone, OWN)
    return promotion_id


def _swallowed(session: Session, delivery: Delivery, last: ChangeRow) -> bool:
    """Whether our own deletion, the last thing known of the field, can have taken away what the delivery tells of.

    Our deletion was of something else; no reading that began before it covers the delivery, which came at about that
    time; nobody said anything newer of the field; and nobody but us deleted it, for that would be taking it back.
    """
    ours = last.via == OWN and last.after is None and last.before != delivery.value
    in_time = delivery.observed_at is not None and last.seen_at <= delivery.observed_at
    soon = delivery.received_at <= last.seen_at + ABOUT
    settled = delivery.received_at <= now(session) - SETTLED
    if not (ours and in_time and soon and settled):
        return False
    others = registry.said_of(session, delivery, last.seen_at)
    return not any(_newer(other, delivery) for other in others if other.value is not None or other.change_id is None)


def _newer(other: Delivery, delivery: Delivery) -> bool:
    """By MLflow's own clock, for deliveries overtake each other."""
    return (other.sent_at or other.received_at) >= (delivery.sent_at or delivery.received_at)
