"""What is changed outside, told twice in the audit trail: before it is done, and when it is known how that went."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy.orm import Session

from app.db import audit
from app.db.audit import Receipt


@dataclass
class Effect:
    """One change outside that was announced: its leaf, what that said, and whether it is known to be done."""

    intended: Receipt
    body: Mapping[str, Any]
    done: bool = False


def intend(session: Session, body: Mapping[str, Any]) -> Effect:
    """Announce an effect. The leaf is committed before anything is done: whoever dies in between leaves it behind."""
    return Effect(audit.append(session, "effect.intended", dict(body)), body)


def settle(session: Session, effects: Iterable[Effect]) -> None:
    """Say how the announced effects went. Of one that failed nobody knows whether it was done all the same."""
    for effect in effects:
        kind = "effect.done" if effect.done else "effect.failed"
        audit.append(session, kind, {**effect.body, "intended": effect.intended.seq})
