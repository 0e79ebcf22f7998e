"""Who may decide, what is taken back, what is frozen, the emergency way, what voids an approval: on a whole flow."""

import logging
import re
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from app.db import promotions as rows
from app.db.models import Approval, Principal, Promotion, StepRun
from app.db.session import Database
from app.domain.errors import Conflict, Forbidden
from app.domain.freeze import DAYS, Freeze
from app.domain.permissions import Caller
from app.domain.policy import Approvals, BreakGlass, Rollout, default_policy
from app.services import approvals, principals, promotions, trail
from tests.fakes import quick
from tests.plant import MODEL, World

RITA, ROB = Caller("rita", "reviewer"), Caller("rob", "reviewer")
ALWAYS = (Freeze("the holidays", "Europe/Berlin", DAYS),)
NO_SOAK, SLOW = Rollout(soak=timedelta(0)), Rollout(soak=timedelta(hours=1))


@pytest.fixture
def world(database: Database, tmp_path: Path) -> World:
    made = World(database, tmp_path)
    rules(made)
    return made


def rules(world: World, **changes: Any) -> None:
    world.policies.known[MODEL] = quick(default_policy(MODEL), **{"rollout": NO_SOAK, **changes})


def waiting(world: World, version: str = "1") -> tuple[int, str]:
    """A promotion that waits for approval, and its digest."""
    number = world.ask(version)
    shown = world.run(number)
    assert shown["state"] == "APPROVAL"
    return number, shown["digest"]


def approve(world: World, number: int, who: Caller = RITA) -> int:
    return approvals.decide(world.core, number, who, "approve", world.show(number)["digest"], "it is good")


def in_canary(world: World) -> int:
    """Version 2 at 10 % of the traffic, next to version 1, approved by rita."""
    first, _ = waiting(world)
    approve(world, first)
    assert world.run(first)["state"] == "LIVE"
    rules(world, rollout=SLOW)
    number, _ = waiting(world, "2")
    approve(world, number)
    world.runner._timing = replace(world.runner._timing, tick=timedelta(hours=1))
    assert world.run(number)["state"] == "ROLLOUT"
    assert world.router.routes[(MODEL, "production")].weight == 10
    return number


def look(world: World, number: int) -> dict[str, Any]:
    with world.database.begin() as session:
        rows.wake(session, number)
    return world.run(number)


def kinds(world: World, number: int) -> list[str]:
    leaves = trail.page(world.database, 0, 1000)
    return [leaf["kind"] for leaf in leaves if leaf["body"].get("promotion") == number]


@pytest.mark.parametrize(
    ("who", "words"),
    [
        (Caller("Trainer@example.org", "reviewer"), "trained this version"),
        (Caller("robot", "reviewer", machine=True), "machines never decide"),
        (Caller("anna", "admin"), "asks for a reviewer; anna is admin"),
    ],
)
def test_who_is_excluded_is_told_at_once(world: World, who: Caller, words: str) -> None:
    number, digest = waiting(world)
    for decision in ("approve", "reject"):
        with pytest.raises(Forbidden, match=words):
            approvals.decide(world.core, number, who, decision, digest, "me")
    assert "trainer" in world.show(number)["approval"]["excluded"]
    assert world.show(number)["approvals"] == []


def test_the_requester_is_known_by_every_name(world: World) -> None:
    row = promotions.request(world.core, MODEL, "1", "production", "", "ada-laptop", person="ada")
    world.run(row.id)
    for name, person in (("ada-phone", "ada"), ("ada-laptop", "")):
        with pytest.raises(Forbidden, match="requested this promotion"):
            approve(world, row.id, Caller(name, "reviewer", person=person))
    assert set(world.show(row.id)["approval"]["excluded"]) == {"ada", "ada-laptop", "trainer"}


def test_two_identities_of_one_person_count_once(world: World) -> None:
    rules(world, approvals=Approvals(required=2))
    number, _ = waiting(world)
    approve(world, number, Caller("ada-laptop", "reviewer", person="ada"))
    with pytest.raises(Conflict, match="ada has already decided"):
        approve(world, number, Caller("ada-phone", "reviewer", person="ada"))
    shown = look(world, number)
    assert (shown["approval"]["missing"], shown["approval"]["approved_by"]) == (1, ["ada"])


def test_a_fresh_login_is_asked_for(world: World) -> None:
    rules(world, approvals=Approvals(fresh=timedelta(minutes=15)))
    number, _ = waiting(world)
    now = datetime.now(UTC)
    for at in (None, now - timedelta(minutes=20)):
        with pytest.raises(Forbidden, match="at most 0:15:00 old") as caught:
            approve(world, number, replace(RITA, authenticated_at=at))
        assert caught.value.remedy == "Log in anew."
    approve(world, number, replace(RITA, authenticated_at=now - timedelta(minutes=1)))
    assert world.run(number)["state"] == "LIVE"


def test_roles_have_their_minimum(world: World) -> None:
    by_role = {"reviewer": 1, "admin": 1}
    rules(world, approvals=Approvals(roles=("reviewer", "admin"), by_role=by_role))
    number, _ = waiting(world)
    for who in (RITA, ROB):
        approve(world, number, who)
    shown = look(world, number)
    assert (shown["state"], shown["progress"]["missing_roles"]) == ("APPROVAL", {"admin": 1})
    approve(world, number, Caller("anna", "admin"))
    assert world.run(number)["state"] == "LIVE"


def test_the_parts_of_the_digest_are_shown_and_in_the_trail(world: World) -> None:
    number, digest = waiting(world)
    parts = world.show(number)["digest_parts"]
    assert (parts["model"], parts["version"], parts["environment"]) == (MODEL, "1", "production")
    (leaf,) = [leaf for leaf in trail.page(world.database, 0, 1000) if leaf["body"].get("to") == "APPROVAL"]
    assert (leaf["body"]["digest"], leaf["body"]["parts"]) == (digest, parts)


def change(state: str, **values: Any) -> Callable[[World, int], None]:
    """Somebody with access to the database changes what a step has recorded."""

    def apply(world: World, number: int) -> None:
        with world.database.begin() as session:
            for step in session.query(StepRun).where(StepRun.promotion_id == number, StepRun.state == state):
                step.evidence = {**step.evidence, **values}

    return apply


def change_row(**values: Any) -> Callable[[World, int], None]:
    def apply(world: World, number: int) -> None:
        with world.database.begin() as session:
            session.execute(update(Promotion).where(Promotion.id == number).values(**values))

    return apply


def loosen(world: World, number: int) -> None:
    change_row(policy={**world.show(number)["policy"], "gates": []})(world, number)


@pytest.mark.parametrize(
    ("tamper", "told"),
    [
        (change("SCAN", scanned=4), r"evidence \(SCAN\)$"),
        (change("SNAPSHOT", tree="sha256:other"), r"tree, evidence \(SNAPSHOT\)$"),
        (change("CONVERT", onnx="sha256:other"), r"onnx, evidence \(CONVERT\)$"),
        (change("BUILD", config="sha256:other"), r"config, evidence \(BUILD\)$"),
        (change("BUILD", image="sha256:other"), r"image, evidence \(BUILD\)$"),
        (change_row(version="3"), r"version$"),
        (loosen, r"policy$"),
    ],
)
def test_what_changed_after_approval_voids_it_and_is_named(
    world: World, tamper: Callable[[World, int], None], told: str
) -> None:
    number, _ = waiting(world)
    approve(world, number)
    tamper(world, number)
    shown = world.run(number)
    assert shown["state"] == "FAILED"
    assert re.search(f"changed since then: {told}", shown["reason"]), shown["reason"]
    assert world.router.history == []


def test_a_digest_that_stood_before_says_what_changed(world: World) -> None:
    number, seen = waiting(world)
    change("SCAN", scanned=4)(world, number)
    assert look(world, number)["state"] == "FAILED"
    rules(world, rollout=SLOW)
    promotions.retry(world.core, number, "ada")
    assert world.run(number)["state"] == "APPROVAL"
    with pytest.raises(Conflict, match=r"stood here before; changed since then: .*policy"):
        approvals.decide(world.core, number, RITA, "approve", seen, "what I saw")


def test_another_promotions_digest_is_recognised(world: World) -> None:
    other, digest = waiting(world)
    promotions.cancel(world.core, other, "", "ada")
    world.run(other)
    number, _ = waiting(world, "2")
    with pytest.raises(Conflict, match=f"that of promotion {other}"):
        approvals.decide(world.core, number, RITA, "approve", digest, "what I saw")


def test_an_approval_that_is_taken_back_stops_counting_and_can_be_given_again(world: World) -> None:
    rules(world, approvals=Approvals(required=2))
    number, _ = waiting(world)
    approve(world, number)
    with pytest.raises(Forbidden, match="only what rob approved"):
        approvals.revoke(world.core, number, ROB, "hm", "rita")
    with pytest.raises(Conflict, match="no approval"):
        approvals.revoke(world.core, number, ROB, "hm")
    approvals.revoke(world.core, number, RITA, "I looked again")
    shown = look(world, number)
    assert (shown["state"], shown["approval"]["missing"]) == ("APPROVAL", 2)
    assert shown["approvals"][0]["revoked_by"] == "rita"
    assert "approval.revoked" in kinds(world, number)
    for who in (RITA, ROB):
        approve(world, number, who)
    assert world.run(number)["state"] == "LIVE"


def test_taking_an_approval_back_in_mid_canary_brings_traffic_back(world: World) -> None:
    number = in_canary(world)
    approvals.revoke(world.core, number, Caller("anna", "admin"), "complaints", "rita")
    shown = world.run(number)
    assert shown["state"] == "ROLLED_BACK"
    assert shown["reason"] == "anna took back an approval, and the rest is not enough: complaints"
    route = world.router.routes[(MODEL, "production")]
    assert route.canary is None and route.stable is not None and route.stable.release.startswith("1@")
    with pytest.raises(Conflict, match="ROLLED_BACK"):
        approvals.revoke(world.core, number, RITA, "again")


def test_a_canary_goes_on_where_the_rest_is_enough(world: World) -> None:
    rules(world, rollout=SLOW)
    number, _ = waiting(world)
    for who in (RITA, ROB):
        approve(world, number, who)
    world.runner._timing = replace(world.runner._timing, tick=timedelta(hours=1))
    assert world.run(number)["state"] == "ROLLOUT"
    approvals.revoke(world.core, number, ROB, "not needed")
    assert look(world, number)["state"] == "ROLLOUT"


def test_who_loses_the_role_in_mid_canary_counts_no_more(world: World) -> None:
    principals.create(world.database, "rita", "reviewer", "test")
    number = in_canary(world)
    with world.database.begin() as session:
        session.execute(update(Principal).where(Principal.name == "rita").values(role="auditor"))
    shown = look(world, number)
    assert shown["state"] == "ROLLED_BACK" and "no longer approved" in shown["reason"]
    assert world.router.routes[(MODEL, "production")].canary is None


def test_a_freeze_holds_what_is_approved_until_the_glass_is_broken(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    rules(world, freeze=ALWAYS)
    number, digest = waiting(world)
    approve(world, number)
    shown = world.run(number)
    assert shown["state"] == "APPROVAL"
    assert shown["progress"]["frozen"] == {"reason": "the holidays", "until": None}
    approvals.break_glass(world.core, number, RITA, digest, "customers cannot pay")
    assert look(world, number)["break_glass"]["open"] is False
    approvals.break_glass(world.core, number, ROB, digest, "I see it, too")
    shown = world.run(number)
    assert (shown["state"], shown["break_glass"]["by"]) == ("LIVE", ["rita", "rob"])
    assert kinds(world, number).count("break-glass") == 2
    assert [r.levelno for r in caplog.records if r.message == "break-glass"] == [logging.WARNING, logging.ERROR]
    assert world.tags("1")["headgate.break-glass"].startswith(f"promotion {number} to production: rita and rob, until ")


def test_broken_glass_replaces_missing_approvals(world: World) -> None:
    rules(world, approvals=Approvals(required=3))
    number, digest = waiting(world)
    for who in (RITA, ROB):
        approvals.break_glass(world.core, number, who, digest, "an emergency")
    shown = world.run(number)
    assert (shown["state"], shown["evidence"]["approval"]["missing"]) == ("LIVE", 3)


def test_what_breaking_the_glass_does_not_pass(world: World) -> None:
    number, digest = waiting(world)
    approvals.break_glass(world.core, number, RITA, digest, "an emergency")
    with pytest.raises(Conflict, match="rita has asked for break-glass already"):
        approvals.break_glass(world.core, number, RITA, digest, "an emergency")
    for who, words in [
        (Caller("robot", "reviewer", machine=True), "machines never decide"),
        (Caller("trainer", "admin"), "trained this version"),
        (Caller("aud", "auditor"), "may not break the glass"),
    ]:
        with pytest.raises(Forbidden, match=words):
            approvals.break_glass(world.core, number, who, digest, "an emergency")
    with pytest.raises(Conflict, match="not the one that waits"):
        approvals.break_glass(world.core, number, ROB, "sha256:" + "1" * 64, "an emergency")
    approvals.decide(world.core, number, Caller("cyd", "reviewer"), "reject", digest, "no")
    with pytest.raises(Conflict, match="denied"):
        approvals.break_glass(world.core, number, ROB, digest, "an emergency")
    assert world.run(number)["state"] == "DENIED"


def test_broken_glass_counts_within_its_time_box(world: World) -> None:
    rules(world, break_glass=BreakGlass(timedelta(minutes=30)))
    number, digest = waiting(world)
    approvals.break_glass(world.core, number, RITA, digest, "an emergency")
    with world.database.begin() as session:
        (said,) = session.query(Approval).where(Approval.promotion_id == number)
        said.at -= timedelta(minutes=31)
    approvals.break_glass(world.core, number, ROB, digest, "an emergency")
    shown = world.run(number)
    assert (shown["state"], shown["break_glass"]["by"]) == ("APPROVAL", ["rob"])
    approvals.break_glass(world.core, number, RITA, digest, "still")
    assert world.run(number)["state"] == "LIVE"


def test_a_policy_without_break_glass(world: World) -> None:
    rules(world, break_glass=None)
    number, digest = waiting(world)
    with pytest.raises(Forbidden, match="no break-glass"):
        approvals.break_glass(world.core, number, RITA, digest, "an emergency")


def test_an_approval_expires_with_the_question(world: World) -> None:
    rules(world, freeze=ALWAYS)
    number, digest = waiting(world)
    approve(world, number)
    with world.database.begin() as session:
        (step,) = session.query(StepRun).where(StepRun.promotion_id == number, StepRun.state == "APPROVAL")
        step.entered_at -= timedelta(hours=73)
        for said in session.query(Approval).where(Approval.promotion_id == number):
            said.at -= timedelta(hours=73)
    with pytest.raises(Conflict, match="expired"):
        approvals.decide(world.core, number, ROB, "approve", digest, "me, too")
    shown = look(world, number)
    assert (shown["state"], shown["reason"]) == (
        "EXPIRED",
        "after 3 days, 0:00:00, 1 of 1 approvals were missing or too old",
    )


def test_where_nobody_has_to_approve_a_freeze_is_waited_out(world: World) -> None:
    rules(world, freeze=ALWAYS, approvals=Approvals(required=0, expires=timedelta(0)))
    number, _ = waiting(world)
    assert look(world, number)["state"] == "APPROVAL"
