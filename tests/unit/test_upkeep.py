"""What nobody needs any more goes after a month, a batch at a time; what somebody waits for stays."""

from datetime import timedelta
from pathlib import Path

from app.db import outbox, principals, registry
from app.db.models import Delivery, IdempotentAnswer, OutboxRow
from app.db.session import Database, now
from app.services import upkeep
from tests.plant import World
from workers.tasks import Desk

OLD, YOUNG = timedelta(days=31), timedelta(days=29)


def add_deliveries(database: Database, count: int, age: timedelta, acted_on: bool = True) -> None:
    with database.begin() as session:
        at = now(session) - age
        for number in range(count):
            row = Delivery(source="mlflow", delivery_id=f"{age.days}-{acted_on}-{number}", event="e", model="m")
            row.received_at, row.observed_at = at, at if acted_on else None
            session.add(row)


def is_known(database: Database, delivery: str) -> bool:
    with database.begin() as session:
        call = {"source": "mlflow", "delivery_id": delivery, "event": "e", "model": "m"}
        return not registry.add_delivery(session, call)


def test_webhook_calls_are_forgotten_after_a_month_unless_nobody_acted_on_them_yet(database: Database) -> None:
    add_deliveries(database, 2, OLD)
    add_deliveries(database, 2, YOUNG)
    add_deliveries(database, 1, OLD, acted_on=False)
    assert upkeep.forget(database) == 2
    assert not is_known(database, "31-True-0")
    assert is_known(database, "29-True-0")
    assert is_known(database, "31-False-0")


def test_a_batch_at_a_time_is_forgotten(database: Database) -> None:
    add_deliveries(database, upkeep.BATCH + 1, OLD)
    assert upkeep.forget(database) == upkeep.BATCH
    assert upkeep.forget(database) == 1
    assert upkeep.forget(database) == 0


def test_writes_are_forgotten_a_month_after_they_were_made(database: Database) -> None:
    with database.begin() as session:
        old, young = now(session) - OLD, now(session) - YOUNG
        row = {"model": "m", "operation": "set_tag", "arguments": {}}
        session.add(OutboxRow(**row, created_at=old, done_at=old))
        session.add(OutboxRow(**row, created_at=old, done_at=young))
        session.add(OutboxRow(**row, created_at=old, next_try_at=old))
        session.add(OutboxRow(**row, created_at=old, last_error="refused for good"))
    assert upkeep.forget(database) == 1
    with database.read() as session:
        assert len(outbox.pending(session)) == 1


def test_an_idempotency_key_is_free_again_after_a_month(database: Database) -> None:
    with database.begin() as session:
        row = {"principal": "p", "body_digest": "d", "status": 201, "answer": {}}
        session.add(IdempotentAnswer(**row, key="old", created_at=now(session) - OLD))
        session.add(IdempotentAnswer(**row, key="young", created_at=now(session) - YOUNG))
    assert upkeep.forget(database) == 1
    with database.read() as session:
        assert principals.answer(session, "p", "old") is None
        assert principals.answer(session, "p", "young") is not None


def test_a_poll_forgets(database: Database, tmp_path: Path) -> None:
    world = World(database, tmp_path)
    add_deliveries(database, 1, OLD)
    Desk(world.core, world.plant, world.runner, "worker-1", ("http://headgate/webhooks/mlflow", "secret"), 30).poll()
    assert not is_known(database, "31-True-0")
