"""Jobs that one worker does at a time: a named lease, prolonged while the job runs and given back when it ends."""

import logging
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from app.db import outbox
from app.db.session import Database
from app.domain.errors import Transient

log = logging.getLogger(__name__)
LEASE = timedelta(seconds=4)
"""How long the job waits for the next worker when the one that did it has died."""


@contextmanager
def holding(db: Database, job: str, owner: str) -> Iterator[str]:
    """Hold the lease of `job` during the block, which gets the holder's name; an empty one where somebody else has it.

    The name is made from `owner` and given once: who took the lease, lost it and comes back is not mistaken for a later
    holder, though an owner may have several threads.

    It is no fence: a worker that was stopped for longer than the lease wakes up inside the block. What must not be
    done twice asks `outbox.renew_lease` in the transaction that records it.

    Raises:
        Transient: the database is away.
    """
    holder = f"{owner}-{secrets.token_hex(6)}"
    with db.begin() as session:
        mine = outbox.take_lease(session, job, holder, LEASE)
    if not mine:
        yield ""
        return
    done = threading.Event()
    thread = threading.Thread(target=_prolong, args=(db, job, holder, done), name=f"lease-{job}", daemon=True)
    thread.start()
    try:
        yield holder
    finally:
        done.set()
        thread.join()
        with db.begin() as session:
            outbox.drop_lease(session, job, holder)


def _prolong(db: Database, job: str, holder: str, done: threading.Event) -> None:
    while not done.wait(LEASE.total_seconds() / 4):
        try:
            with db.begin() as session:
                if not outbox.renew_lease(session, job, holder, LEASE):
                    return
        except Transient as error:
            log.warning("lease.not_prolonged", extra={"job": job, "reason": error.reason})
