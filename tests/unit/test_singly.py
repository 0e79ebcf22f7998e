"""Jobs that one worker does at a time: nobody else has the job while it runs, and it never waits long for the dead."""

import time
from datetime import datetime, timedelta

from app.db import outbox
from app.db.models import NamedLease
from app.db.session import Database
from app.services.singly import LEASE, holding


def until(database: Database) -> datetime:
    with database.read() as session:
        return session.get_one(NamedLease, "job").until


def test_one_at_a_time_and_the_next_at_once(database: Database) -> None:
    with holding(database, "job", "one") as first, holding(database, "job", "two") as second:
        assert first and not second
    with holding(database, "job", "two") as now_mine:
        assert now_mine


def test_an_owner_that_comes_twice_is_two(database: Database) -> None:
    with holding(database, "job", "one") as first, holding(database, "job", "one") as again:
        assert first and not again
    with holding(database, "job", "one") as later:
        assert later not in ("", first)


def test_the_lease_is_prolonged_while_the_job_runs(database: Database) -> None:
    with holding(database, "job", "one"):
        first = until(database)
        end = time.monotonic() + 30
        while until(database) == first and time.monotonic() < end:
            time.sleep(0.05)
        assert until(database) > first


def test_who_lost_the_lease_neither_prolongs_it_nor_gives_it_back(database: Database) -> None:
    with holding(database, "job", "slept") as slept:
        with database.begin() as session:
            outbox.drop_lease(session, "job", slept)  # as if its time had run out
            assert outbox.take_lease(session, "job", "other", LEASE)
        time.sleep(LEASE.total_seconds() / 2)
    with holding(database, "job", "third") as mine:
        assert not mine
    assert timedelta(0) < LEASE <= timedelta(seconds=5)  # a job waits no longer for a worker that died
