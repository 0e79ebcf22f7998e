"""The flow on fakes and a real database: what a promotion does, and what MLflow is told."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from app.db.session import Database
from app.domain.canary import Sample
from app.domain.errors import Conflict, Fault, Forbidden, Invalid, Rejected, Transient
from app.domain.permissions import Caller
from app.domain.policy import Approvals, MetricGate, Rollout, default_policy
from app.ports import Route, SandboxJob, Written
from app.services import approvals, history, intake, outbox, promotions, trail
from tests.fakes import quick
from tests.plant import MODEL, World

REVIEWER = Caller("rita", "reviewer")
NO_SIGNATURE = {"code": "no-signature", "reason": "No signature.", "remedy": "Log one."}
NO_SOAK = Rollout(soak=timedelta(0))


@pytest.fixture
def world(database: Database, tmp_path: Path) -> World:
    made = World(database, tmp_path)
    made.policies.known[MODEL] = quick(quick(default_policy(MODEL), rollout=NO_SOAK), "staging", rollout=NO_SOAK)
    return made


def approve(world: World, promotion_id: int) -> None:
    digest = world.show(promotion_id)["digest"]
    approvals.decide(world.core, promotion_id, REVIEWER, "approve", digest, "looks right")


def go_live(world: World, version: str) -> int:
    promotion_id = world.ask(version)
    assert world.run(promotion_id)["state"] == "APPROVAL"
    approve(world, promotion_id)
    assert world.run(promotion_id)["state"] == "LIVE"
    return promotion_id


def test_an_alias_becomes_a_live_release_and_mlflow_tells_the_truth(world: World) -> None:
    promotion_id = world.ask("1")
    shown = world.run(promotion_id)
    assert shown["state"] == "APPROVAL"
    assert world.tags("1")["headgate.status"] == "approval"
    assert world.tags("1")["headgate.digest"] == shown["digest"]
    assert "production" not in world.registry.models[MODEL].aliases

    approve(world, promotion_id)
    shown = world.run(promotion_id)

    assert shown["state"] == "LIVE"
    assert [step["state"] for step in shown["steps"]][-2:] == ["ROLLOUT", "LIVE"]
    view = world.registry.models[MODEL]
    assert view.aliases == {"production": "1"}
    assert view.stages == {"1": "Production"}
    assert world.tags("1")["headgate.status"] == "live"
    route = world.router.routes[(MODEL, "production")]
    assert route.stable is not None and route.stable.release.startswith("1@")
    assert route.canary is None


def test_a_second_version_takes_over_in_steps_and_the_first_is_stopped(world: World) -> None:
    go_live(world, "1")
    first = world.server.names()
    go_live(world, "2")
    weights = [route.weight for route in world.router.history if route.canary is not None]
    assert weights == [100, 10, 50, 100]  # the first release takes all traffic at once
    assert world.registry.models[MODEL].aliases == {"production": "2"}
    assert world.registry.models[MODEL].stages == {"1": "Archived", "2": "Production"}
    assert len(world.server.names()) == 1
    assert world.server.names() != first
    assert [r["version"] for r in history.serving(world.database, MODEL, "production", None)] == ["2"]


def test_our_own_writes_never_open_a_promotion(world: World) -> None:
    go_live(world, "1")
    go_live(world, "2")
    intake.poll(world.core)
    intake.observe(world.core, MODEL, intake.WEBHOOK)
    assert len(history.search(world.database, None, None, None, None)["items"]) == 2


def test_own_stage_write_seen_before_it_is_noted_is_no_request(world: World) -> None:
    promotion_id = world.ask("1")
    world.run(promotion_id)
    approve(world, promotion_id)
    world.runner.advance(promotion_id)  # LIVE, the outbox not yet sent
    world.registry.set_stage(MODEL, "1", "Production", archive=False)  # the sender wrote, then died
    assert intake.observe(world.core, MODEL, intake.POLL) == []
    ledger = history.changes(world.database, MODEL, None)["items"]
    assert ledger[0]["via"] == "headgate"


def test_a_refused_stage_request_goes_back(world: World) -> None:
    world.registry.change(MODEL, stages={"1": "Staging", "2": "None"})
    intake.poll(world.core)
    world.sandbox.results["scan"] = {
        "findings": [{"file": "model.pkl", "severity": "CRITICAL", "reason": "os.system", "scanner": "modelscan"}],
        "errors": [],
        "scanned": 1,
        "alone": {"modelscan": 1},
    }
    world.registry.change(MODEL, stages={"1": "Production"})
    (promotion_id,) = intake.observe(world.core, MODEL, intake.POLL)
    shown = world.run(promotion_id)
    assert shown["state"] == "REJECTED"
    assert "os.system" in shown["reason"] and "model.pkl" in shown["reason"]
    assert world.registry.models[MODEL].stages == {"1": "Staging"}
    assert intake.observe(world.core, MODEL, intake.POLL) == []


def test_what_was_asked_again_after_the_end_is_a_new_request(world: World) -> None:
    world.policies.known[MODEL] = quick(default_policy(MODEL), gates=(MetricGate("rmse", max=0.1),))
    world.sandbox.results["score"]["metrics"] = {"rmse": 0.7}
    first = world.ask("1")
    assert world.run(first)["state"] == "REJECTED"
    assert "to-production" not in world.registry.models[MODEL].aliases
    assert "rmse 0.7 is above 0.1" in world.tags("1")["headgate.reason"]
    second = world.ask("1")  # no reading of MLflow came between the end and this
    assert second != first


def test_asking_for_what_serves_already_is_answered(world: World) -> None:
    go_live(world, "1")
    world.registry.change(MODEL, aliases={"production": "1", "to-production": "1"})
    assert intake.observe(world.core, MODEL, intake.WEBHOOK) == []
    outbox.deliver(world.core, "worker-1")
    assert world.registry.models[MODEL].aliases == {"production": "1"}
    assert "already serves in production" in world.tags("1")["headgate.reason"]
    assert world.tags("1")["headgate.status"] == "live"


def test_going_live_in_staging_leaves_production_its_stage(world: World) -> None:
    world.policies.known[MODEL] = quick(
        quick(default_policy(MODEL), rollout=NO_SOAK), "staging", rollout=NO_SOAK, approvals=Approvals(required=0)
    )
    go_live(world, "1")
    for version in ("1", "2"):
        assert world.run(world.ask(version, "staging"))["state"] == "LIVE"
    view = world.registry.models[MODEL]
    assert view.aliases == {"production": "1", "staging": "2"}
    assert view.stages == {"1": "Production", "2": "Staging"}
    assert intake.observe(world.core, MODEL, intake.POLL) == []


def test_a_request_is_gone_before_mlflow_says_how_it_ended(world: World) -> None:
    # Whoever reads the answer may ask for the next version at once; a late delete would take that request with it.
    seen: list[dict[str, str]] = []
    set_alias = world.registry.set_alias

    def look(model: str, alias: str, version: str) -> Written:
        seen.append(dict(world.registry.models[model].aliases))
        return set_alias(model, alias, version)

    world.registry.set_alias = look  # type: ignore[method-assign]
    go_live(world, "1")
    assert seen == [{}]


def test_the_requester_cannot_approve(world: World) -> None:
    row = promotions.request(world.core, MODEL, "1", "production", "now", "rita")
    world.run(row.id)
    with pytest.raises(Forbidden, match="rita requested"):
        approve(world, row.id)


def test_a_stale_digest_does_not_count(world: World) -> None:
    promotion_id = world.ask("1")
    world.run(promotion_id)
    with pytest.raises(Conflict, match="not the one that waits"):
        approvals.decide(world.core, promotion_id, REVIEWER, "approve", "sha256:" + "1" * 64, "hm")
    assert world.run(promotion_id)["state"] == "APPROVAL"


def test_a_rejection_denies_and_nothing_ran(world: World) -> None:
    promotion_id = world.ask("1")
    digest = world.run(promotion_id)["digest"]
    approvals.decide(world.core, promotion_id, REVIEWER, "reject", digest, "not now")
    assert world.run(promotion_id)["state"] == "DENIED"
    assert world.server.names() == []
    assert world.router.history == []


def test_two_approvals_take_two_people(world: World) -> None:
    world.policies.known[MODEL] = quick(default_policy(MODEL), approvals=Approvals(required=2), rollout=NO_SOAK)
    promotion_id = world.ask("1")
    world.run(promotion_id)
    approve(world, promotion_id)
    assert world.run(promotion_id)["state"] == "APPROVAL"
    with pytest.raises(Conflict, match="already decided"):
        approve(world, promotion_id)
    digest = world.show(promotion_id)["digest"]
    approvals.decide(world.core, promotion_id, Caller("rob", "reviewer"), "approve", digest, "ok")
    assert world.run(promotion_id)["state"] == "LIVE"


def test_nobody_decides_and_it_expires(world: World) -> None:
    world.policies.known[MODEL] = quick(default_policy(MODEL), approvals=Approvals(expires=timedelta(0)))
    promotion_id = world.ask("1")
    assert world.run(promotion_id)["state"] == "EXPIRED"


def test_a_broken_guardrail_rolls_back_to_the_stable_release(world: World) -> None:
    go_live(world, "1")
    world.metrics.seen = Sample(100, 30, 2.0)
    promotion_id = world.ask("2")
    world.run(promotion_id)
    approve(world, promotion_id)
    shown = world.run(promotion_id)
    assert shown["state"] == "ROLLED_BACK"
    assert "30 of 100 requests failed at 10 %" in world.tags("2")["headgate.reason"]
    route = world.router.routes[(MODEL, "production")]
    assert route.canary is None and route.stable is not None and route.stable.release.startswith("1@")
    assert world.registry.models[MODEL].aliases == {"production": "1"}
    assert len(world.server.names()) == 1


def test_cancelling_a_rollout_first_brings_traffic_back(world: World) -> None:
    world.policies.known[MODEL] = quick(default_policy(MODEL), rollout=NO_SOAK)
    go_live(world, "1")
    world.policies.known[MODEL] = quick(default_policy(MODEL), rollout=Rollout(soak=timedelta(hours=1)))
    slow = World.worker(world, "worker-1")
    slow._timing = replace(slow._timing, tick=timedelta(hours=1))
    world.runner = slow
    promotion_id = world.ask("2")
    world.run(promotion_id)
    approve(world, promotion_id)
    assert world.run(promotion_id)["state"] == "ROLLOUT"
    assert world.router.routes[(MODEL, "production")].weight == 10
    promotions.cancel(world.core, promotion_id, "a bad day", "ada")
    assert world.run(promotion_id)["state"] == "CANCELLED"
    assert world.router.routes[(MODEL, "production")].canary is None


def test_an_end_waits_until_the_router_could_be_told(world: World) -> None:
    go_live(world, "1")
    world.metrics.seen = Sample(100, 30, 2.0)
    promotion_id = world.ask("2")
    world.run(promotion_id)
    approve(world, promotion_id)
    moves = len(world.router.history)
    apply = world.router.apply

    def once(routes: list[Route], change: Route, fence: int) -> None:
        apply(routes, change, fence)
        world.router.away = True

    world.router.apply = once  # type: ignore[method-assign]
    shown = world.run(promotion_id)
    assert shown["state"] == "ROLLOUT"
    assert "cannot undo ROLLOUT yet" in shown["last_error"]
    assert len(world.router.history) == moves + 1


def test_a_newer_request_supersedes_an_older_one(world: World) -> None:
    older = world.ask("1")
    world.run(older)
    newer = world.ask("2")
    world.runner.advance(newer)
    assert world.show(newer)["state"] == "REQUESTED"  # the place is still taken
    assert world.run(older)["state"] == "SUPERSEDED"
    assert world.run(newer)["state"] == "APPROVAL"
    assert world.tags("1")["headgate.status"] == "superseded"
    assert world.registry.models[MODEL].aliases == {"to-production": "2"}


def test_taking_the_alias_away_takes_the_request_back(world: World) -> None:
    promotion_id = world.ask("1")
    world.run(promotion_id)
    world.registry.change(MODEL, aliases={})
    intake.observe(world.core, MODEL, intake.WEBHOOK)
    shown = world.run(promotion_id)
    assert shown["state"] == "CANCELLED"
    assert "taken back" in shown["reason"]


@pytest.mark.parametrize(
    ("break_it", "state", "words"),
    [
        (lambda w: w.registry.versions.update({(MODEL, "1"): None}), "REJECTED", "artifacts are missing"),
        (lambda w: w.sandbox.results.update(convert={"refused": NO_SIGNATURE}),
         "REJECTED", "No signature. Log one."),
        (lambda w: w.sandbox.results["convert"].update(chosen=None), "REJECTED", "default: 1 of 3 rows differ"),
        (lambda w: setattr(w.client, "off", 0.5), "REJECTED", "differs from the native one on 3 of 3 rows"),
        (lambda w: setattr(w.client, "kind", "KIND_GPU"), "REJECTED", "asks for KIND_CPU, the server runs KIND_GPU"),
    ],
)  # fmt: skip
def test_the_models_own_fault_rejects_at_once(
    world: World, break_it: Callable[[World], None], state: str, words: str
) -> None:
    break_it(world)
    promotion_id = world.ask("1")
    shown = world.run(promotion_id)
    assert shown["state"] == state
    assert words in shown["reason"]
    assert words in world.tags("1")["headgate.reason"]


def test_our_fault_is_tried_again_then_fails_and_can_be_retried(world: World) -> None:
    world.server.broken = Fault("Triton does not start: no such library.", "See the log.")
    promotion_id = world.ask("1")
    shown = world.run(promotion_id)
    assert shown["state"] == "PROVE" and shown["attempt"] == 1
    assert "no such library" in shown["last_error"]
    for _ in range(2):
        make_due(world, promotion_id)
        shown = world.run(promotion_id)
    assert shown["state"] == "FAILED"
    assert "no such library" in world.tags("1")["headgate.reason"]
    world.server.broken = None
    promotions.retry(world.core, promotion_id, "ada")
    assert world.run(promotion_id)["state"] == "APPROVAL"
    assert world.tags("1")["headgate.reason"] == ""


def make_due(world: World, promotion_id: int) -> None:
    from app.db import promotions as rows

    with world.database.begin() as session:
        rows.wake(session, promotion_id)


def test_mlflow_away_is_waited_out(world: World) -> None:
    promotion_id = world.ask("1")
    world.registry.away = True
    world.runner.advance(promotion_id)
    assert world.show(promotion_id)["state"] == "SNAPSHOT"
    world.registry.away = False
    make_due(world, promotion_id)
    assert world.run(promotion_id)["state"] == "APPROVAL"


def test_a_defect_in_a_step_fails_one_promotion_and_not_the_worker(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    def explode(job: SandboxJob) -> None:
        raise ZeroDivisionError("oops")

    world.sandbox.before = explode
    promotion_id = world.ask("1")
    for _ in range(3):
        shown = world.run(promotion_id)
        make_due(world, promotion_id)
    assert world.run(promotion_id)["state"] == "FAILED"
    assert "SCAN broke: ZeroDivisionError" in shown["last_error"] + world.show(promotion_id)["reason"]


def test_a_malformed_policy_fails_the_request_visibly(world: World) -> None:
    world.policies.known[MODEL] = Invalid("airbnb-price.yaml", "line 3: unknown key")
    promotion_id = world.ask("1")
    outbox.deliver(world.core, "worker-1")
    assert world.show(promotion_id)["state"] == "FAILED"
    assert "line 3: unknown key" in world.tags("1")["headgate.reason"]
    del world.policies.known[MODEL]
    promotions.retry(world.core, promotion_id, "ada")
    assert world.run(promotion_id)["state"] == "APPROVAL"


def test_stages_set_before_the_first_look_are_history(database: Database, tmp_path: Path) -> None:
    world = World.__new__(World)
    World.__init__(world, database, tmp_path)
    world.registry.register("old", "1")
    world.registry.change("old", stages={"1": "Production"}, aliases={"to-production": "1"})
    with database.begin() as session:
        from app.db.models import Setting

        session.query(Setting).delete()
    opened = intake.observe(world.core, "old", intake.POLL)
    assert len(opened) == 1  # the alias is for us, the stage is not
    notes = [row["note"] for row in history.changes(database, "old", None)["items"]]
    assert any("history" in note for note in notes)


def test_the_trail_holds_and_a_changed_leaf_is_named(world: World) -> None:
    go_live(world, "1")
    assert trail.verify(world.database).verified
    from app.db.models import AuditLeaf

    with world.database.begin() as session:
        leaf = session.get_one(AuditLeaf, 5)
        leaf.body = {**leaf.body, "reason": "nothing to see here"}
    verdict = trail.verify(world.database)
    assert (verdict.verified, verdict.first_bad) == (False, 5)


def test_a_worker_that_lost_its_lease_writes_nothing(world: World) -> None:
    promotion_id = world.ask("1")
    other = world.worker("worker-2")
    taken: list[str] = []

    def lose(job: SandboxJob) -> None:
        if job.program == "scan" and not taken:
            taken.append("scan")
            expire_lease(world, promotion_id)
            other.advance(promotion_id)

    world.sandbox.before = lose
    world.runner.advance(promotion_id)
    shown = world.show(promotion_id)
    assert shown["state"] == "APPROVAL"
    assert [step["state"] for step in shown["steps"]].count("SCAN") == 1
    assert trail.verify(world.database).verified


def expire_lease(world: World, promotion_id: int) -> None:
    from app.db.models import Promotion

    with world.database.begin() as session:
        row = session.get_one(Promotion, promotion_id)
        row.lease_until = row.created_at - timedelta(hours=1)


def test_a_step_that_kills_its_worker_is_quarantined(world: World) -> None:
    class Killed(BaseException):
        """Stands for kill -9: nothing after it runs."""

    def die(job: SandboxJob) -> None:
        raise Killed

    world.sandbox.before = die
    promotion_id = world.ask("1")
    for _ in range(6):
        try:
            world.runner.advance(promotion_id)
        except Killed:
            expire_lease(world, promotion_id)
    shown = world.show(promotion_id)
    assert shown["state"] == "FAILED"
    assert "quarantined" in shown["reason"]


def test_unknown_versions_and_environments_are_named(world: World) -> None:
    with pytest.raises(Invalid, match="no environment 'moon'"):
        promotions.request(world.core, MODEL, "1", "moon", "", "ada")
    with pytest.raises(Exception, match="no version 99"):
        promotions.request(world.core, MODEL, "99", "production", "", "ada")
    world.registry.away = True
    with pytest.raises(Transient):
        promotions.request(world.core, MODEL, "1", "production", "", "ada")
    assert Rejected("a").reason == "a"
