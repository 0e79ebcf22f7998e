"""Telling MLflow: in order, once it is back, and never twice by two workers; our own writes are told from people's."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import select, update

from app.db import outbox as queue
from app.db.models import NamedLease, OutboxRow
from app.db.session import Database, now
from app.domain.errors import Fault, Transient
from app.domain.permissions import Caller
from app.services import approvals, outbox
from examples.airbnb.stage import wait
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

    during_the_first_write(world, lambda: deny_and_tell(world, promotion_id))
    # when another one has sent that and what came after it,
    outbox.deliver(world.core, "worker-1")
    # then the first one does not put the old words back.
    assert world.tags("1")["headgate.status"] == "denied"


def deny_and_tell(world: World, promotion_id: int) -> None:
    """The promotion goes on, and another worker tells MLflow so: the lease of the first one is over."""
    digest = world.show(promotion_id)["digest"]
    approvals.decide(world.core, promotion_id, REVIEWER, "reject", digest, "no")
    world.runner.advance(promotion_id)
    with world.database.begin() as session:
        session.execute(update(NamedLease).values(until=now(session), owner="nobody"))
    outbox.deliver(world.core, "worker-2")


@pytest.mark.parametrize("answer", ["heard", "away", "refused"])
def test_a_word_that_comes_after_newer_ones_is_put_right(world: World, answer: str) -> None:
    # Given a sender that is held up in the middle of a write, until others have told MLflow what came afterwards,
    promotion_id = world.ask("1")
    world.runner.advance(promotion_id)
    set_tag, late = world.registry.set_version_tag, list[str]()

    def slow(model: str, version: str, key: str, value: str) -> None:
        if key == "headgate.status" and not late:
            late.append(value)
            deny_and_tell(world, promotion_id)
            assert world.tags("1")["headgate.status"] == "denied"
            set_tag(model, version, key, value)
            if answer == "away":
                raise Transient("MLflow did not answer in time.", "")
            if answer == "refused":
                raise Fault("MLflow answered 500.", "")
        else:
            set_tag(model, version, key, value)

    world.registry.set_version_tag = slow  # type: ignore[method-assign]
    outbox.deliver(world.core, "worker-1")
    assert (late, world.tags("1")["headgate.status"]) == (["approval"], "approval")
    # when the next one looks, then MLflow hears the newest word again, and only that.
    assert outbox.deliver(world.core, "worker-2") == 1
    assert world.tags("1")["headgate.status"] == "denied"
    assert [row.operation for row in rows(world) if row.done_at is None] == []


def test_a_newer_word_that_is_under_way_at_that_moment_is_said_again_too(world: World) -> None:
    # Given a sender that is held up, and another one that says the newest word just when the first one goes on,
    promotion_id = world.ask("1")
    world.runner.advance(promotion_id)
    set_tag, said = world.registry.set_version_tag, list[str]()
    first_goes_on, second_may_record = threading.Event(), threading.Event()

    def slow(model: str, version: str, key: str, value: str) -> None:
        if key == "headgate.status":
            said.append(value)
            if said == ["approval"]:
                assert first_goes_on.wait(30)
        set_tag(model, version, key, value)
        if key == "headgate.status" and value == "denied" and said.count("denied") == 1:
            first_goes_on.set()
            assert second_may_record.wait(30)

    world.registry.set_version_tag = slow  # type: ignore[method-assign]
    with ThreadPoolExecutor() as pool:
        first = pool.submit(outbox.deliver, world.core, "worker-1")
        wait(lambda: said, 30, "the first word")
        second = pool.submit(deny_and_tell, world, promotion_id)
        first.result(30)
        second_may_record.set()
        second.result(30)
    # then MLflow hears it once more.
    assert said.count("denied") == 2
    assert world.tags("1")["headgate.status"] == "denied"


def test_a_stage_that_a_person_asks_for_again_is_not_taken_back_by_a_late_sender(world: World) -> None:
    world.ask("1")
    with world.database.begin() as session:
        queue.add(session, MODEL, [("set_stage", {"version": "1", "stage": "None", "only_from": ["Production"]})])
    last = rows(world)[-1]
    with world.database.begin() as session:
        queue.leave_out(session, last.id)
        queue.say_again(session, last, ("version",))
    assert rows(world)[-1].next_try_at is None


def test_a_sender_that_fails_lets_the_next_one_in_at_once(world: World) -> None:
    world.runner.advance(world.ask("1"))

    def die() -> None:
        raise KeyboardInterrupt

    during_the_first_write(world, die)
    with pytest.raises(KeyboardInterrupt):
        outbox.deliver(world.core, "worker-1")
    assert outbox.deliver(world.core, "worker-2") > 0
