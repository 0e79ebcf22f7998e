"""What webhooks said against what was seen: which never came, and which requests our own clean-up swallowed."""

import itertools
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from app.db.models import ChangeRow, Delivery
from app.db.session import Database
from app.domain.registry import ASK_TAG, Event, ModelView
from app.ports import Written
from app.services import deliveries, history, intake, outbox, promotions
from app.services.intake import Call
from tests.fakes import FakeRegistry
from tests.plant import MODEL, World

ALIAS = "alias:to-production"
numbers = itertools.count()


@dataclass
class HastyRegistry(FakeRegistry):
    """`meanwhile` is what a person does between our look at a mark and its deletion, as the deletion leaves it."""

    meanwhile: list[dict[str, dict[str, str]]] = field(default_factory=list)

    def delete_alias(self, model: str, alias: str, version: str) -> Written:
        found = super().delete_alias(model, alias, version)
        return self._then(model, found)

    def delete_version_tag(self, model: str, version: str, key: str, value: str) -> Written:
        found = super().delete_version_tag(model, version, key, value)
        return self._then(model, found)

    def _then(self, model: str, found: Written) -> Written:
        if found is Written.DONE:
            while self.meanwhile:
                self.change(model, **self.meanwhile.pop(0))
        return found


@pytest.fixture
def world(database: Database, tmp_path: Path) -> World:
    return World(database, tmp_path, HastyRegistry())


def tell(world: World, name: str, value: str | None, version: str | None = None) -> None:
    """MLflow's webhook comes."""
    number = next(numbers)
    kind = f"model_version_alias.{'created' if value else 'deleted'}"
    sent = datetime(2030, 1, 1, tzinfo=UTC) + timedelta(seconds=number)
    assert intake.receive(world.core, Call("mlflow", f"id-{number}", kind, MODEL, Event(name, version, value), sent))


def counts(world: World) -> dict[str, int]:
    found: dict[str, int] = history.changes(world.database, None, None)["counts"]
    return found


def minutes_pass(world: World, minutes: float) -> None:
    """Everything in the ledger, and every delivery, is that much older."""
    with world.database.begin() as session:
        for table, column in ((ChangeRow, "seen_at"), (Delivery, "received_at"), (Delivery, "observed_at")):
            for row in session.query(table):
                if getattr(row, column) is not None:
                    setattr(row, column, getattr(row, column) - timedelta(minutes=minutes))


def set_alias(world: World, version: str | None) -> None:
    aliases = {name: v for name, v in world.registry.models[MODEL].aliases.items() if name != "to-production"}
    world.registry.change(MODEL, aliases={**aliases, "to-production": version} if version else aliases)


def test_a_change_whose_webhook_never_came_is_missing_after_a_while(world: World) -> None:
    set_alias(world, "1")
    intake.poll(world.core)
    assert counts(world) == {"webhook": 0, "poll": 1, "headgate": 0, "announced": 1, "missing": 0}
    minutes_pass(world, 1)
    assert counts(world)["missing"] == 1


def test_a_webhook_that_comes_after_the_poll_is_late_and_not_missing(world: World) -> None:
    set_alias(world, "1")
    intake.poll(world.core)
    minutes_pass(world, 1)
    tell(world, ALIAS, "1")
    intake.poll(world.core)
    assert (counts(world)["announced"], counts(world)["missing"]) == (1, 0)


def test_each_webhook_announces_one_change_and_an_old_one_none(world: World) -> None:
    # Given a mark that was set, removed and set again between two looks, of which each was told,
    set_alias(world, "1")
    for value in ("1", None, "1"):
        tell(world, ALIAS, value)
    intake.observe(world.core, MODEL, intake.WEBHOOK)
    # when it is removed and set once more and nobody is told,
    for version in (None, "1"):
        set_alias(world, version)
        intake.poll(world.core)
    minutes_pass(world, 1)
    # then both are missing: those that were told before belong to what was seen before.
    assert counts(world) == {"webhook": 1, "poll": 2, "headgate": 0, "announced": 3, "missing": 2}


@pytest.mark.parametrize("gone", ["a version", "the model"])
def test_what_mlflow_tells_nobody_is_not_missing(world: World, gone: str) -> None:
    set_alias(world, "1")
    tell(world, ALIAS, "1")
    world.registry.change(MODEL, stages={"2": "Archived"}, asks={"1": "moon"})
    tell(world, f"tag:{ASK_TAG}", "moon", "1")
    intake.poll(world.core)
    if gone == "a version":
        del world.registry.versions[(MODEL, "1")]
        world.registry.change(MODEL, aliases={}, asks={})
    else:
        world.registry.models["renamed"] = ModelView("renamed", {"to-production": "1"}, {"2": "Archived"}, {})
        del world.registry.models[MODEL]
    intake.poll(world.core)
    minutes_pass(world, 1)
    assert (counts(world)["announced"], counts(world)["missing"]) == (2, 0)


def test_our_own_writes_are_in_the_ledger_and_their_webhooks_are_due(world: World) -> None:
    promotions.cancel(world.core, world.ask("1"), "", "ada")
    tell(world, ALIAS, "1")
    intake.observe(world.core, MODEL, intake.WEBHOOK)
    outbox.deliver(world.core, "worker-1")
    own = history.changes(world.database, MODEL, None)["items"][0]
    assert (own["via"], own["field"], own["before"], own["after"]) == ("headgate", ALIAS, "1", None)
    minutes_pass(world, 1)
    assert counts(world)["missing"] == 1
    tell(world, ALIAS, None)
    intake.observe(world.core, MODEL, intake.WEBHOOK)
    assert counts(world) == {"webhook": 1, "poll": 0, "headgate": 1, "announced": 2, "missing": 0}


def test_a_tag_that_asks_for_nothing_is_no_reason_to_read_a_model_anew(world: World) -> None:
    assert intake.receive(world.core, Call("mlflow", "an-id", "model_version_tag.set", MODEL))
    assert world.queue.observed == []
    tell(world, f"tag:{ASK_TAG}", "moon", "1")
    assert world.queue.observed == [MODEL]


def swallowed(world: World, meanwhile: dict[str, dict[str, str]], mark: dict[str, dict[str, str]]) -> None:
    """Version 1 is asked for, ends, and its mark is taken away, just as a person makes something else of it."""
    assert isinstance(world.registry, HastyRegistry)
    world.registry.change(MODEL, **mark)
    (first,) = intake.observe(world.core, MODEL, intake.WEBHOOK)
    promotions.cancel(world.core, first, "", "ada")
    world.registry.meanwhile = [meanwhile]
    outbox.deliver(world.core, "worker-1")


def seen_by_poll(world: World) -> list[dict[str, Any]]:
    """Everything is told and settled; returns the promotions after the first, newest first."""
    intake.poll(world.core)
    minutes_pass(world, 0.2)
    intake.poll(world.core)
    intake.poll(world.core)
    items: list[dict[str, Any]] = history.search(world.database, None, None, None, None)["items"]
    return items[:-1]


def test_a_request_that_our_clean_up_swallowed_is_opened_by_its_webhook(world: World) -> None:
    swallowed(world, {"aliases": {}}, {"aliases": {"to-production": "1"}})
    tell(world, ALIAS, "2")
    tell(world, ALIAS, None)
    (opened,) = seen_by_poll(world)
    assert (opened["version"], opened["environment"], opened["state"]) == ("2", "production", "REQUESTED")
    assert world.queue.advanced[-1] == opened["id"]
    ledger = history.changes(world.database, MODEL, None)["items"]
    assert [(row["via"], row["before"], row["after"]) for row in reversed(ledger)] == [
        ("webhook", None, "1"),
        ("headgate", "1", None),
        ("webhook", None, "2"),
        ("headgate", "2", None),
    ]
    assert "Headgate took the mark of version 1 away" in ledger[1]["note"]


def test_a_request_that_was_seen_and_then_swallowed_is_not_taken_for_withdrawn(world: World) -> None:
    set_alias(world, "1")
    (first,) = intake.observe(world.core, MODEL, intake.WEBHOOK)
    promotions.cancel(world.core, first, "", "ada")
    delete_alias = world.registry.delete_alias
    opened = []

    def delete_late(model: str, alias: str, version: str) -> Written:
        # Between our look and our deletion a person moves the alias, and a worker sees that.
        set_alias(world, "2")
        opened.extend(intake.observe(world.core, MODEL, intake.WEBHOOK))
        set_alias(world, "1")
        return delete_alias(model, alias, version)

    world.registry.delete_alias = delete_late  # type: ignore[method-assign]
    outbox.deliver(world.core, "worker-1")
    intake.observe(world.core, MODEL, intake.WEBHOOK)
    assert world.show(opened[0])["state"] == "REQUESTED"
    last = history.changes(world.database, MODEL, None)["items"][0]
    assert (last["via"], last["before"], last["after"]) == ("headgate", "2", None)


def test_a_tag_that_our_clean_up_swallowed_counts_too(world: World) -> None:
    swallowed(world, {"asks": {}}, {"asks": {"1": "production"}})
    tell(world, f"tag:{ASK_TAG}", "staging", "1")
    tell(world, f"tag:{ASK_TAG}", None, "1")
    (opened,) = seen_by_poll(world)
    assert (opened["version"], opened["environment"]) == ("1", "staging")


@pytest.mark.parametrize(
    "told",
    [
        ["2", None, None],  # one of the two deletions is a person's: that takes the request back
        ["2", "1", None],  # back to what it was
        [None],  # nothing but our own
        ["1", None],  # the very request that has ended
    ],
)
def test_what_a_person_took_back_himself_is_not_opened(world: World, told: list[str | None]) -> None:
    swallowed(world, {"aliases": {}}, {"aliases": {"to-production": "1"}})
    for value in told:
        tell(world, ALIAS, value)
    assert seen_by_poll(world) == []


def test_only_the_last_of_several_swallowed_requests_counts(world: World) -> None:
    swallowed(world, {"aliases": {}}, {"aliases": {"to-production": "1"}})
    for value in ("2", "3", None):
        tell(world, ALIAS, value)
    assert [row["version"] for row in seen_by_poll(world)] == ["3"]


def test_a_request_that_was_seen_standing_is_not_taken_for_a_swallowed_one(world: World) -> None:
    # Given a request that was told and withdrawn again before anybody looked,
    set_alias(world, "1")
    (first,) = intake.observe(world.core, MODEL, intake.WEBHOOK)
    tell(world, ALIAS, "2")
    tell(world, ALIAS, "1")
    intake.observe(world.core, MODEL, intake.WEBHOOK)
    with world.database.begin() as session:  # MLflow's clock and ours need not agree
        session.execute(update(Delivery).values(sent_at=datetime(2031, 1, 1, tzinfo=UTC)))
    # when our clean-up of the first one comes later, then it was not that which took the other away.
    promotions.cancel(world.core, first, "", "ada")
    outbox.deliver(world.core, "worker-1")
    assert seen_by_poll(world) == []


def test_clean_up_does_not_take_away_what_nobody_has_seen_yet(world: World) -> None:
    # Given a promotion that has ended, while its alias points to another version already,
    set_alias(world, "1")
    (first,) = intake.observe(world.core, MODEL, intake.WEBHOOK)
    promotions.cancel(world.core, first, "", "ada")
    set_alias(world, "2")
    (second,) = intake.observe(world.core, MODEL, intake.WEBHOOK)
    # when the first version is asked for again just before our clean-up,
    set_alias(world, "1")
    outbox.deliver(world.core, "worker-1")
    # then that is a new request.
    assert len(intake.observe(world.core, MODEL, intake.WEBHOOK)) == 1
    assert world.show(second)["state"] == "SUPERSEDED"


def test_webhooks_are_relied_on_while_they_come_and_none_is_missing(world: World) -> None:
    def healthy() -> bool:
        with world.database.read() as session:
            return deliveries.healthy(session)

    assert not healthy()
    set_alias(world, "1")
    tell(world, ALIAS, "1")
    intake.poll(world.core)
    assert healthy()
    set_alias(world, "2")
    intake.poll(world.core)
    minutes_pass(world, 1)
    assert not healthy()
    minutes_pass(world, 60)
    tell(world, "alias:other", "1")
    assert healthy()
    minutes_pass(world, 61)
    assert not healthy()
