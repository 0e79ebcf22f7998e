"""When the next poll is due: all workers share what the last one was like, in the database."""

import json
from datetime import datetime, timedelta

from sqlalchemy.orm import Session

from app.db import registry
from app.db.session import now
from app.domain.pace import pause
from app.services import deliveries

LAST_POLL = "registry.last_poll"


def is_due(session: Session, base: float, late: timedelta = timedelta(0)) -> bool:
    """Whether it has been time for a poll since `late`; `base` is the setting HEADGATE_POLL_SECONDS."""
    told = registry.fact(session, LAST_POLL)
    if told is None:
        return True
    last = json.loads(told)
    wait = pause(base, last["took"], worked=last["worked"], healthy=deliveries.healthy(session))
    return now(session) >= datetime.fromisoformat(last["ended"]) + timedelta(seconds=wait) + late


def note(session: Session, took: float, worked: bool) -> None:
    """A poll has ended after `took` seconds."""
    last = {"ended": now(session).isoformat(), "took": round(took, 3), "worked": worked}
    registry.set_fact(session, LAST_POLL, json.dumps(last))
