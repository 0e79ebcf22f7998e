"""Tables that would grow for ever lose, a little at a time, what nobody needs any more."""

from datetime import timedelta

from app.db import upkeep
from app.db.session import Database, now

KEPT = timedelta(days=30)
BATCH = 1000


def forget(db: Database) -> int:
    """Delete webhook calls that were acted on, writes to MLflow that were made, and answers to Idempotency-Keys, all
    of them older than `KEPT`: a batch of each, so that nobody waits for it long. Returns how many rows went."""
    gone = 0
    for forgettable in upkeep.FORGETTABLE:
        with db.begin() as session:
            gone += upkeep.forget(session, forgettable, now(session) - KEPT, BATCH)
    return gone
