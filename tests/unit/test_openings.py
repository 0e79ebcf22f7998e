"""Personal data stays out of audit leaves: what stands there instead, who can open it, and what erasing leaves."""

import hashlib
import hmac
import threading
from pathlib import Path

import pytest

from app.db import audit, openings
from app.db.session import Database
from app.domain.permissions import Caller
from app.services import approvals, history, promotions, trail
from tests.plant import MODEL, World

RITA = Caller("rita.smith@example.org", "reviewer")


@pytest.fixture
def world(database: Database, tmp_path: Path) -> World:
    return World(database, tmp_path)


def leaves(world: World) -> str:
    return "".join(trail.export(world.core))


def approved(world: World) -> int:
    promotions.request(world.core, MODEL, "1", "production", "Bob's wedding model", "bob.jones")
    number = history.search(world.database, MODEL, None, None, None)["items"][0]["id"]
    shown = world.run(number)
    approvals.decide(world.core, number, RITA, "approve", shown["digest"], "Bob asked me nicely")
    world.run(number)
    return int(number)


def test_no_leaf_has_a_name_or_what_somebody_typed(world: World) -> None:
    approved(world)
    text = leaves(world)
    for personal in ("rita", "bob", "Bob", "wedding", "nicely"):
        assert personal not in text
    assert '"by":"person:' in text and '"reason":"said:' in text


def test_words_of_reviewers_and_of_those_who_cancel_are_personal_too(world: World) -> None:
    number = world.ask("1")
    shown = world.run(number)
    approvals.decide(world.core, number, RITA, "reject", shown["digest"], "Bob never tests")
    assert "rita.smith@example.org" in world.run(number)["reason"]
    second = world.ask("2")
    promotions.cancel(world.core, second, "ask Alice first", "carol")
    world.run(second)
    text = leaves(world)
    for personal in ("rita", "Bob", "Alice", "carol"):
        assert personal not in text


def test_what_a_leaf_holds_can_be_opened_and_checked(world: World) -> None:
    approved(world)
    with world.database.read() as session:
        leaf = next(leaf for leaf in audit.leaves(session) if leaf.kind == "approval")
        found = {opening.value: opening for opening in openings.of(session, [leaf.body])}
    assert set(found) == {"rita.smith@example.org", "Bob asked me nicely"}
    name = found["rita.smith@example.org"]
    hashed = hmac.new(bytes.fromhex(name.salt), name.value.encode(), hashlib.sha256).hexdigest()
    assert leaf.body["by"] == name.token == f"person:{hashed}"


def test_the_same_words_look_different_each_time_and_the_same_person_does_not(world: World) -> None:
    with world.database.begin() as session:
        assert openings.said(session, "fine", "rita") != openings.said(session, "fine", "rita")
        assert openings.person(session, "rita") == openings.person(session, "rita")
        assert openings.person(session, "rita") != openings.person(session, "rob")


def test_a_person_who_is_new_to_many_at_once_is_one(world: World) -> None:
    seen: list[str] = []

    def meet() -> None:
        with world.database.begin() as session:
            seen.append(openings.person(session, "rita"))

    threads = [threading.Thread(target=meet) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 8 and len(set(seen)) == 1


def test_erasing_a_person_breaks_nothing(world: World) -> None:
    number = approved(world)
    before = leaves(world)
    with world.database.begin() as session:
        assert openings.erase(session, "rita.smith@example.org") == 2
    assert leaves(world) == before
    assert trail.verify(world.database).verified
    with world.database.read() as session:
        leaf = next(leaf for leaf in audit.leaves(session) if leaf.kind == "approval")
        assert openings.of(session, [leaf.body]) == []
        assert openings.opened(session, leaf.body) == leaf.body
    assert trail.proof(world.core, leaf.seq)["seq"] == leaf.seq
    assert number == leaf.body["promotion"]
