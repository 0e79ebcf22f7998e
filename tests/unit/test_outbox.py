"""Telling MLflow: in order, once it is back, and never twice by two workers; our own writes are told from people's."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from sqlalchemy import select, update

from app.db.models import NamedLease, OutboxRow
from app.db.session import Database, now
from app.domain.errors import Fault
from app.services import approvals, outbox
from app.services.approvals import Caller
from tests.plant import MODEL, World

REVIEWER = Caller("rita", "reviewer")


@pytest.fixture
def world(database: Database, tmp_path: Path) -> World:
    return World(database, tmp_path)


def rows(world: World) -> Sequence[OutboxRow]:
    with world.database.read() as session:
        return session.scalars(select(OutboxRow).order_by(OutboxRow.id)).all()


def let_time_pass(world: World) -> None:
    """Every write that waits for its next try is due."""
    with world.database.begin() as session:
        session.execute(update(OutboxRow).where(OutboxRow.next_try_at.is_not(None)).values(next_try_at=now(session)))


def test_however_long_mlflow_is_away_it_is_told_everything(world: World) -> None:
    world.runner.advance(world.ask("1"))
    world.registry.away = True
    for _ in range(outbox.MAX_REFUSALS + 5):
        let_time_pass(world)
        assert outbox.deliver(world.core, "worker-1") == 0
    world.registry.away = False
    let_time_pass(world)
    outbox.deliver(world.core, "worker-1")
    assert [row.operation for row in rows(world) if row.done_at is None] == []
    assert world.tags("1")["headgate.status"] == "approval"


def test_only_the_last_word_of_a_tag_is_sent(world: World) -> None:
    said: list[tuple[str, str]] = []
    set_tag = world.registry.set_version_tag

    def listen(model: str, version: str, key: str, value: str) -> None:
        said.append((key, value))
        set_tag(model, version, key, value)

    world.registry.set_version_tag = listen  # type: ignore[method-assign]  # the fake, with an ear
    world.runner.advance(world.ask("1"))
    outbox.deliver(world.core, "worker-1")
    assert sorted(key for key, _ in said) == sorted({key for key, _ in said})
    assert said[-1] == ("headgate.status", "approval")
    assert [row.id for row in rows(world) if row.done_at is None] == []


def test_a_write_that_failed_is_left_alone_until_its_time(world: World) -> None:
    world.runner.advance(world.ask("1"))
    world.registry.away = True
    outbox.deliver(world.core, "worker-1")
    world.registry.away = False
    # The rows behind it are due, but must not overtake it.
    assert outbox.deliver(world.core, "worker-1") == 0
    assert world.tags("1") == {}


def test_a_write_that_mlflow_refuses_for_good_does_not_hold_back_the_others_for_ever(world: World) -> None:
    def refuse(model: str, version: str, key: str, value: str) -> None:
        if key == "headgate.promotion":
            raise Fault("MLflow answered 400: no.", "See what MLflow says.")
        world.tags(version)[key] = value

    world.registry.set_version_tag = refuse  # type: ignore[method-assign]
    world.runner.advance(world.ask("1"))
    for _ in range(outbox.MAX_REFUSALS + 1):
        let_time_pass(world)
        outbox.deliver(world.core, "worker-1")
    assert world.tags("1")["headgate.status"] == "approval"
    assert "MLflow answered 400" in next(row.last_error for row in rows(world) if row.done_at is None)


def test_a_defect_in_one_write_holds_back_its_model_alone(world: World) -> None:
    world.registry.register("other", "1")
    world.registry.change("other", aliases={"to-staging": "1"})
    set_tag = world.registry.set_version_tag

    def explode(model: str, version: str, key: str, value: str) -> None:
        if model == MODEL:
            raise KeyError(version)
        set_tag(model, version, key, value)

    world.registry.set_version_tag = explode  # type: ignore[method-assign]
    world.ask("1")
    from app.services import intake

    intake.observe(world.core, "other", intake.POLL)
    outbox.deliver(world.core, "worker-1")
    assert world.registry.tags[("other", "1")]["headgate.status"] == "requested"


def during_the_first_write(world: World, happens: Callable[[], None]) -> None:
    set_tag, seen = world.registry.set_version_tag, list[str]()

    def slow(model: str, version: str, key: str, value: str) -> None:
        if not seen:
            seen.append(key)
            happens()
        set_tag(model, version, key, value)

    world.registry.set_version_tag = slow  # type: ignore[method-assign]


def test_a_sender_that_was_overtaken_sends_nothing_old(world: World) -> None:
    # Given a sender that MLflow keeps waiting until its lease is over,
    promotion_id = world.ask("1")
    world.runner.advance(promotion_id)

    def meanwhile() -> None:
        with world.database.begin() as session:
            session.execute(update(NamedLease).values(until=now(session)))
        digest = world.show(promotion_id)["digest"]
        approvals.decide(world.core, promotion_id, REVIEWER, "reject", digest, "no")
        world.runner.advance(promotion_id)
        outbox.deliver(world.core, "worker-2")

    during_the_first_write(world, meanwhile)
    # when another one has sent that and what came after it,
    outbox.deliver(world.core, "worker-1")
    # then the first one does not put the old words back.
    assert world.tags("1")["headgate.status"] == "denied"


def test_a_sender_that_fails_lets_the_next_one_in_at_once(world: World) -> None:
    world.runner.advance(world.ask("1"))

    def die() -> None:
        raise KeyboardInterrupt

    during_the_first_write(world, die)
    with pytest.raises(KeyboardInterrupt):
        outbox.deliver(world.core, "worker-1")
    assert outbox.deliver(world.core, "worker-2") > 0
