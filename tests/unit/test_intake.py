"""Intake against a registry that holds whatever people put there: no request is lost, no model hides another one."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from app.db.models import Setting
from app.db.session import Database
from app.domain.errors import Invalid, Transient
from app.domain.policy import Approvals, Policy, Rollout, Triggers, default_policy
from app.domain.registry import ModelView
from app.services import history, intake, outbox, promotions
from app.services.intake import Call
from tests.fakes import quick
from tests.plant import MODEL, World

NO_SOAK = Rollout(soak=timedelta(0))
LAST = "zebra"  # a poll reads models in the order of their names


@pytest.fixture
def world(database: Database, tmp_path: Path) -> World:
    made = World(database, tmp_path)
    made.policies.known[MODEL] = quick(default_policy(MODEL), "staging", rollout=NO_SOAK)
    made.registry.register(LAST, "1")
    intake.poll(made.core)
    return made


def asked_for(world: World) -> list[tuple[str, str, str]]:
    """(model, version, environment) of all promotions, oldest first."""
    items: list[dict[str, Any]] = history.search(world.database, None, None, None, None)["items"]
    return [(row["model"], row["version"], row["environment"]) for row in reversed(items)]


def ask_for_the_last(world: World) -> None:
    world.registry.change(LAST, aliases={"to-production": "1"})


@pytest.mark.parametrize(
    "change",
    [
        {"aliases": {"a" * 255: "1"}},
        {"asks": {"1": "x" * 5000}},
        {"asks": {"1": "a\0b"}},
        {"asks": {"1": "\N{PILE OF POO}" * 300}},
    ],
)
def test_odd_values_are_seen_and_stop_nothing(world: World, change: dict[str, dict[str, str]]) -> None:
    world.registry.change(MODEL, **change)
    ask_for_the_last(world)
    assert intake.poll(world.core) == 2
    assert asked_for(world) == [(LAST, "1", "production")]
    assert len(history.changes(world.database, MODEL, None)["items"]) == 1
    assert intake.poll(world.core) == 0


@pytest.mark.parametrize("name", ["m" * 256, "m" * 1024, "\N{PILE OF POO}" * 1000, "a\0b"])
def test_a_model_whose_name_nobody_can_keep_stops_no_other(world: World, name: str) -> None:
    world.registry.register(name, "1")
    world.registry.change(name, aliases={"to-production": "1"})
    ask_for_the_last(world)
    intake.poll(world.core)
    assert (LAST, "1", "production") in asked_for(world)
    assert intake.receive(world.core, Call("mlflow", "an-id", "model_version_alias.created", name))
    intake.poll(world.core)


def test_a_defect_over_one_model_stops_no_other(world: World) -> None:
    class Odd:
        """Stands for anything that nobody has thought of."""

        def policy(self, model: str) -> Policy:
            if model == MODEL:
                raise RecursionError("too deep")
            return world.policies.policy(model)

    core = type(world.core)(world.database, world.registry, Odd(), world.queue, "http://headgate", world.signer)
    world.registry.change(MODEL, aliases={"to-production": "1"})
    ask_for_the_last(world)
    intake.poll(core)
    assert asked_for(world) == [(LAST, "1", "production")]
    intake.poll(world.core)  # it was put off, not forgotten
    assert (MODEL, "1", "production") in asked_for(world)


def test_stages_are_history_until_every_model_has_been_seen_once(world: World) -> None:
    # Given a fresh installation whose first poll could not read one of the models,
    with world.database.begin() as session:
        session.query(Setting).delete()
    world.registry.register("old", "1")
    world.registry.change("old", stages={"1": "Production"})
    read = world.registry.read_model

    def broken(name: str) -> ModelView | None:
        if name == "old":
            raise Transient("MLflow's answer broke off.", "")
        return read(name)

    world.registry.read_model = broken  # type: ignore[method-assign]
    intake.poll(world.core)
    # when the next one can,
    world.registry.read_model = read  # type: ignore[method-assign]
    intake.poll(world.core)
    # then what was in production for years is still no request.
    assert asked_for(world) == []
    world.registry.change("old", stages={})
    intake.poll(world.core)
    world.registry.change("old", stages={"1": "Production"})
    intake.poll(world.core)
    assert asked_for(world) == [("old", "1", "production")]


def go_live(world: World, version: str) -> int:
    """Version goes live in staging, asked for over REST; the policy wants no approval there."""
    row = promotions.request(world.core, MODEL, version, "staging", "", "ada")
    assert world.run(row.id)["state"] == "LIVE"
    return row.id


def observed(world: World) -> list[int]:
    return intake.observe(world.core, MODEL, intake.WEBHOOK)


def aliases(world: World) -> dict[str, str]:
    return dict(world.registry.models[MODEL].aliases)


def set_alias(world: World, alias: str, version: str) -> None:
    world.registry.change(MODEL, aliases={**aliases(world), alias: version})


def test_asking_for_what_serves_is_answered_and_can_be_asked_again(world: World) -> None:
    go_live(world, "1")
    set_alias(world, "to-staging", "1")
    assert observed(world) == []
    outbox.deliver(world.core, "worker-1")
    assert aliases(world) == {"staging": "1"}
    # An alias that stayed would be no change when it is set again: that request would be lost.
    go_live(world, "2")
    set_alias(world, "to-staging", "1")
    assert len(observed(world)) == 1


def test_at_the_end_every_question_for_the_version_is_gone(world: World) -> None:
    row = promotions.request(world.core, MODEL, "1", "staging", "", "ada")
    set_alias(world, "to-staging", "1")
    world.registry.change(MODEL, asks={"1": "staging", "2": "production"})
    opened = observed(world)
    assert asked_for(world)[1:] == [(MODEL, "2", "production")] and len(opened) == 1
    assert world.run(row.id)["state"] == "LIVE"
    assert aliases(world) == {"staging": "1"}
    assert world.registry.models[MODEL].asks == {"2": "production"}


def test_a_question_that_a_newer_promotion_answers_is_left_alone(world: World) -> None:
    # Given a promotion that has been superseded and not yet ended, when its version is asked for again,
    set_alias(world, "to-production", "1")
    (first,) = observed(world)
    world.runner.advance(first)
    set_alias(world, "to-production", "2")
    observed(world)
    set_alias(world, "to-production", "1")
    (third,) = observed(world)
    # then its end does not take the new request away, which can still be taken back.
    assert world.run(first)["state"] == "SUPERSEDED"
    assert aliases(world) == {"to-production": "1"}
    world.registry.change(MODEL, aliases={})
    observed(world)
    assert world.run(third)["state"] == "CANCELLED"


def test_taking_back_is_not_taken_for_our_own_clean_up_of_another_version(world: World) -> None:
    # Given a promotion that has ended, whose tag and alias are not yet taken away,
    world.registry.change(MODEL, asks={"1": "staging"})
    (first,) = observed(world)
    promotions.cancel(world.core, first, "", "ada")
    # when another version is asked for, by a tag or by moving the alias, and that is taken back,
    world.registry.change(MODEL, asks={"1": "staging", "2": "staging"})
    (second,) = observed(world)
    world.registry.change(MODEL, asks={"1": "staging"})
    observed(world)
    # then that counts.
    assert world.show(second)["state"] == "CANCELLED"
    set_alias(world, "to-production", "1")
    (third,) = observed(world)
    promotions.cancel(world.core, third, "", "ada")
    set_alias(world, "to-production", "2")
    (fourth,) = observed(world)
    world.registry.change(MODEL, aliases={})
    observed(world)
    assert world.show(fourth)["state"] == "CANCELLED"


def test_archiving_the_version_before_does_not_overwrite_what_a_person_has_made_of_it(world: World) -> None:
    world.policies.known[MODEL] = quick(default_policy(MODEL), approvals=Approvals(required=0), rollout=NO_SOAK)
    for version in ("1", "2"):
        row = promotions.request(world.core, MODEL, version, "production", "", "ada")
        world.runner.advance(row.id)
        assert world.show(row.id)["state"] == "LIVE"
        if version == "1":
            outbox.deliver(world.core, "worker-1")
            observed(world)
            world.registry.change(MODEL, stages={"1": "Staging"})  # a person asks for it elsewhere
            assert len(observed(world)) == 1
    outbox.deliver(world.core, "worker-1")
    assert world.registry.models[MODEL].stages == {"1": "Staging", "2": "Production"}


def test_an_environment_that_the_policy_does_not_know_is_answered_on_the_version(world: World) -> None:
    world.registry.change(MODEL, asks={"1": "prodution"})
    assert observed(world) == []
    outbox.deliver(world.core, "worker-1")
    assert "no environment 'prodution'" in world.tags("1")["headgate.reason"]
    assert "production, staging" in world.tags("1")["headgate.reason"]
    world.registry.change(MODEL, asks={"1": "production"})
    assert len(observed(world)) == 1


@pytest.mark.parametrize("ask", [{"aliases": {"to-moon": "1"}}, {"asks": {"1": "moon"}}])
def test_a_request_under_a_malformed_policy_is_never_overlooked(world: World, ask: dict[str, dict[str, str]]) -> None:
    known = quick(default_policy(MODEL), "staging", rollout=NO_SOAK)
    world.policies.known[MODEL] = Invalid("airbnb-price.yaml", "line 3: unknown key")
    world.registry.change(MODEL, **ask)
    (promotion_id,) = observed(world)
    outbox.deliver(world.core, "worker-1")
    assert world.show(promotion_id)["state"] == "FAILED"
    assert "line 3: unknown key" in world.tags("1")["headgate.reason"]
    world.policies.known[MODEL] = known
    with pytest.raises(Invalid, match="no environment 'moon'"):
        promotions.retry(world.core, promotion_id, "ada")
    world.policies.known[MODEL] = replace(known, environments={"moon": known.environments["staging"]})
    promotions.retry(world.core, promotion_id, "ada")
    assert world.run(promotion_id)["state"] == "LIVE"


def test_what_is_taken_back_by_one_mark_and_asked_for_by_another_is_asked_for(world: World) -> None:
    world.registry.change(MODEL, stages={"1": "Staging"})
    (first,) = observed(world)
    world.registry.change(MODEL, stages={}, aliases={"to-staging": "1"})
    (second,) = observed(world)
    assert world.show(first)["state"] == "CANCELLED"
    assert world.run(second)["state"] == "LIVE"


def test_a_clean_up_that_is_overtaken_by_a_new_request_is_left_out(world: World) -> None:
    set_alias(world, "to-production", "1")
    (first,) = observed(world)
    promotions.cancel(world.core, first, "", "ada")
    second = promotions.request(world.core, MODEL, "1", "production", "", "ada").id
    outbox.deliver(world.core, "worker-1")
    assert aliases(world) == {"to-production": "1"}
    world.run(second)
    assert world.show(second)["state"] == "APPROVAL"


def test_a_stage_that_is_taken_back_is_not_taken_for_our_own_return_of_another_one(world: World) -> None:
    world.registry.change(MODEL, stages={"1": "Production"})
    observed(world)
    world.registry.change(MODEL, stages={"1": "Staging"})  # which takes the first request back
    (second,) = observed(world)
    world.registry.change(MODEL, stages={})
    observed(world)
    assert world.show(second)["state"] == "CANCELLED"


def test_a_stage_that_is_asked_for_again_is_not_returned_for_the_request_before(world: World) -> None:
    world.registry.change(MODEL, stages={"1": "Production"})
    observed(world)
    world.registry.change(MODEL, stages={})
    observed(world)
    world.registry.change(MODEL, stages={"1": "Production"})
    (second,) = observed(world)
    outbox.deliver(world.core, "worker-1")
    assert world.registry.models[MODEL].stages == {"1": "Production"}
    world.registry.change(MODEL, stages={})
    observed(world)
    assert world.show(second)["state"] == "CANCELLED"


@pytest.mark.parametrize("meddled", [{"staging": "2"}, {}])
def test_an_environments_own_alias_is_put_back(world: World, meddled: dict[str, str]) -> None:
    go_live(world, "1")
    world.registry.change(MODEL, aliases=meddled)
    assert observed(world) == []
    outbox.deliver(world.core, "worker-1")
    assert aliases(world) == {"staging": "1"}
    back, moved = history.changes(world.database, MODEL, None)["items"][:2]
    assert (back["via"], back["after"], back["note"]) == ("headgate", "1", "")
    assert (moved["via"], moved["after"]) == ("webhook", meddled.get("staging"))
    assert moved["note"] == "only Headgate moves this alias: it goes back to version 1, which serves"
    assert observed(world) == []


def test_somebody_who_insists_on_an_environments_alias_is_not_fought_forever(world: World) -> None:
    go_live(world, "1")
    for _ in range(20):  # a second Headgate, or a script in a loop
        world.registry.change(MODEL, aliases={"staging": "2"})
        observed(world)
        outbox.deliver(world.core, "worker-1")
        if aliases(world) == {"staging": "2"}:
            break
    assert aliases(world) == {"staging": "2"}
    assert "somebody goes on moving it" in history.changes(world.database, MODEL, None)["items"][0]["note"]
    go_live(world, "3")
    assert aliases(world) == {"staging": "3"}


def test_an_alias_does_not_go_back_to_a_version_that_is_gone(world: World) -> None:
    go_live(world, "1")
    del world.registry.versions[(MODEL, "1")]  # MLflow takes a version's aliases away with it
    world.registry.change(MODEL, aliases={})
    assert observed(world) == []
    assert "gone from MLflow" in history.changes(world.database, MODEL, None)["items"][0]["note"]
    world.registry.register(LAST, "2")
    world.registry.models.pop(MODEL)
    assert observed(world) == []
    assert outbox.deliver(world.core, "worker-1") == 0


def test_an_answer_for_a_version_that_went_meanwhile_holds_nothing_up(world: World) -> None:
    row = promotions.request(world.core, MODEL, "1", "staging", "", "ada")
    world.runner.advance(row.id)
    del world.registry.versions[(MODEL, "1")]
    outbox.deliver(world.core, "worker-1")
    assert aliases(world) == {}
    go_live(world, "2")
    assert aliases(world) == {"staging": "2"}


def test_a_stage_of_a_model_with_an_environment_of_that_name_moves_no_alias(world: World) -> None:
    known = default_policy(MODEL).environments["staging"]
    world.policies.known[MODEL] = Policy(MODEL, {"stage": replace(known, rollout=NO_SOAK, triggers=Triggers("to-it"))})
    row = promotions.request(world.core, MODEL, "1", "stage", "", "ada")
    assert world.run(row.id)["state"] == "LIVE"
    world.registry.change(MODEL, stages={"2": "Archived"})
    observed(world)
    assert history.changes(world.database, MODEL, None)["items"][0]["note"] == ""


def test_an_alias_of_an_environment_where_nothing_serves_is_nobodys_lie(world: World) -> None:
    world.registry.change(MODEL, aliases={"production": "2"})
    assert observed(world) == []
    outbox.deliver(world.core, "worker-1")
    assert aliases(world) == {"production": "2"}
