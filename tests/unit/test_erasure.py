"""Forgetting a person, and finding out late that two identities are one person: what is left, and what still counts."""

import json
from pathlib import Path

import pytest
from sqlalchemy import text

from app.db import openings
from app.db.columns import Base
from app.db.session import Database
from app.domain.errors import Conflict, NotFound, Unauthorized
from app.domain.permissions import Caller
from app.domain.policy import Approvals, default_policy
from app.services import approvals, erasure, evidence, principals, promotions, tokens, trail
from app.services.tokens import Wanted
from app.verifier.headgate_verify import check_pack, parse_key
from tests.fakes import quick
from tests.plant import MODEL, World

RITA = Caller("rita.smith", "reviewer", person="rita.smith")


@pytest.fixture
def world(database: Database, tmp_path: Path) -> World:
    return World(database, tmp_path)


def everything(world: World) -> str:
    """All that the database holds."""
    with world.database.read() as session:
        rows = [session.execute(text(f"SELECT * FROM {name}")).all() for name in Base.metadata.tables]
    return json.dumps(rows, default=str)


def test_a_person_who_is_forgotten_is_nowhere_and_nothing_breaks(world: World) -> None:
    number = world.ask("1")
    principals.create(world.database, "rita.smith", "reviewer", "ada")
    tokens.issue(world.database, Wanted("rita-phone", "reviewer", person="rita.smith"), "ada")
    tokens.issue(world.database, Wanted("nightly", "ci", person="rita.smith"), "ada")
    approvals.decide(world.core, number, RITA, "approve", world.run(number)["digest"], "Bob asked me to")
    assert world.run(number)["state"] == "LIVE"
    second = world.ask("2")
    approvals.decide(world.core, second, RITA, "reject", world.run(second)["digest"], "Bob was wrong")
    assert "rita.smith" in world.run(second)["reason"]
    asked = promotions.request(world.core, MODEL, "3", "staging", "for Bob", "rita-phone", person="rita.smith")
    promotions.cancel(world.core, asked.id, "Bob changed his mind", "rita.smith")
    world.run(asked.id)
    exported = "".join(trail.export(world.core)).splitlines()[-1]

    told = erasure.erase(world.database, "rita-phone", "ada")

    assert told["names"] == 2 and str(told["person"]).startswith("erased-")
    with world.database.begin() as session:
        session.execute(text("DELETE FROM outbox WHERE done_at IS NOT NULL"))  # as upkeep does after thirty days
    left = everything(world)
    for personal in ("rita", "Bob"):
        assert personal not in left
    assert exported in "".join(trail.export(world.core))
    assert trail.verify(world.database).verified
    assert "person.erased" in {leaf["kind"] for leaf in trail.page(world.database, 0, 1000)}
    # What was decided still shows, by somebody who has no name.
    (word,) = world.show(number)["approvals"]
    assert (word["decision"], word["principal"], word["reason"]) == ("approve", told["person"], "(erased)")
    assert world.show(second)["state"] == "DENIED" and str(told["person"]) in world.show(second)["reason"]
    keys = [parse_key(key) for key in trail.checkpoint(world.core)["keys"]]
    assert check_pack(evidence.pack(world.core, world.store, number), keys)


def test_tokens_go_machines_stay_and_a_name_is_free_again(world: World) -> None:
    token = principals.create(world.database, "rita.smith", "reviewer", "ada")
    machine = tokens.issue(world.database, Wanted("nightly", "ci", person="rita.smith"), "ada")
    with world.database.begin() as session:
        before = openings.person(session, "rita.smith")
    erasure.erase(world.database, "rita.smith", "ada")
    with pytest.raises(Unauthorized):
        principals.authenticate(world.database, token)
    assert principals.authenticate(world.database, str(machine["token"])).person == "nightly"
    principals.create(world.database, "rita.smith", "reviewer", "ada")
    with world.database.begin() as session:
        assert openings.person(session, "rita.smith") != before


def test_who_cannot_be_forgotten(world: World) -> None:
    principals.create(world.database, "ada", "admin", "ada")
    tokens.issue(world.database, Wanted("nightly", "ci"), "ada")
    for name, words in (("nightly", "machine"), ("ada", "Nobody erases himself")):
        with pytest.raises(Conflict, match=words):
            erasure.erase(world.database, name, "ada")
    with pytest.raises(NotFound):
        erasure.erase(world.database, "nobody", "ada")


def test_two_who_turn_out_to_be_one_count_once_whenever_that_is_found_out(world: World) -> None:
    world.policies.known[MODEL] = quick(default_policy(MODEL), approvals=Approvals(required=3))
    for name in ("rita", "rob", "rita-phone"):
        principals.create(world.database, name, "reviewer", "ada")
    number = world.ask("1")
    digest = world.run(number)["digest"]
    for name in ("rita", "rita-phone"):
        approvals.decide(world.core, number, Caller(name, "reviewer"), "approve", digest, "good")
    principals.link(world.database, "rita-phone", "rita", "ada")
    approvals.decide(world.core, number, Caller("rob", "reviewer"), "approve", digest, "good")
    shown = world.run(number)
    assert (shown["state"], shown["approval"]["missing"]) == ("APPROVAL", 1)


def test_a_requester_who_turns_out_to_be_the_approver_does_not_count(world: World) -> None:
    world.policies.known[MODEL] = quick(default_policy(MODEL), approvals=Approvals(required=2))
    for name in ("ada", "rob", "rita"):
        principals.create(world.database, name, "reviewer", "boss")
    row = promotions.request(world.core, MODEL, "1", "production", "", "ada")
    digest = world.run(row.id)["digest"]
    approvals.decide(world.core, row.id, Caller("rita", "reviewer"), "approve", digest, "good")
    principals.link(world.database, "ada", "rita", "boss")
    approvals.decide(world.core, row.id, Caller("rob", "reviewer"), "approve", digest, "good")
    shown = world.run(row.id)
    assert (shown["state"], shown["approval"]["missing"]) == ("APPROVAL", 1)
