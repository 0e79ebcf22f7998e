"""Intake under any order of events, against an oracle: people, webhooks, polls, workers and the outbox take turns."""

import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from sqlalchemy import select

from app.db import registry, releases
from app.db.models import OutboxRow, Promotion
from app.db.outbox import pending as unsent
from app.db.session import Database, now
from app.domain.canary import Sample
from app.domain.errors import Transient
from app.domain.policy import Approvals, Rollout, default_policy
from app.domain.promotion import ACTIVE, ENDED
from app.domain.registry import ASK_TAG, ModelView, diff, interpret
from app.services import history, intake, outbox, promotions, trail
from app.services.writeback import SET_TAG
from tests.fakes import FakeRegistry
from tests.plant import MODEL, World

VERSIONS = st.sampled_from(["1", "2", "3"])
ENVIRONMENTS = st.sampled_from(["production", "staging"])
STAGES = st.sampled_from(["None", "Staging", "Production", "Archived"])
VIA = st.sampled_from([intake.WEBHOOK, intake.POLL])
POLICY = default_policy(MODEL)
POLICY = replace(
    POLICY,
    environments={
        name: replace(rules, approvals=Approvals(required=0), rollout=Rollout(soak=timedelta(0)))
        for name, rules in POLICY.environments.items()
    },
)


@dataclass
class StumblingRegistry(FakeRegistry):
    """Every third call fails while it `stumbles`."""

    stumbles: bool = False
    calls: int = 0

    def _reach(self) -> None:
        super()._reach()
        self.calls += 1
        if self.stumbles and self.calls % 3 == 0:
            raise Transient("MLflow answered 503.", "")


class IntakeMachine(RuleBasedStateMachine):
    """One model with three versions, two environments, and everybody at once."""

    def __init__(self, new_database: Callable[[], str]) -> None:
        super().__init__()
        self._folder = tempfile.TemporaryDirectory()
        self.database = Database(new_database())
        self.registry = StumblingRegistry()
        self.world = World(self.database, Path(self._folder.name), self.registry)
        self.world.policies.known[MODEL] = POLICY
        self.asked: set[tuple[str, str]] = set()
        self.touched: set[tuple[str, str | None]] = set()

    @initialize()
    def start(self) -> None:
        assert self.registry.models[MODEL] == ModelView(MODEL)

    # What people do in MLflow.

    @rule(environment=ENVIRONMENTS, version=VERSIONS)
    def set_alias(self, environment: str, version: str) -> None:
        self.asked.add((version, environment))
        self.touched.add((f"alias:to-{environment}", None))
        aliases = {**self.view.aliases, f"to-{environment}": version}
        self.registry.change(MODEL, aliases=aliases)

    @rule(environment=ENVIRONMENTS)
    def delete_alias(self, environment: str) -> None:
        self.touched.add((f"alias:to-{environment}", None))
        aliases = {name: v for name, v in self.view.aliases.items() if name != f"to-{environment}"}
        self.registry.change(MODEL, aliases=aliases)

    @rule(version=VERSIONS, stage=STAGES)
    def set_stage(self, version: str, stage: str) -> None:
        environment = POLICY.environment_of_stage(stage)
        if environment is not None:
            self.asked.add((version, environment))
        self.touched.add(("stage", version))
        stages = {**self.view.stages, version: stage}
        self.registry.change(MODEL, stages={v: s for v, s in stages.items() if s != "None"})

    @rule(version=VERSIONS, environment=st.one_of(ENVIRONMENTS, st.just("moon")))
    def set_tag(self, version: str, environment: str) -> None:
        self.asked.add((version, environment))
        self.touched.add((f"tag:{ASK_TAG}", version))
        self.registry.change(MODEL, asks={**self.view.asks, version: environment})

    @rule(version=VERSIONS)
    def delete_tag(self, version: str) -> None:
        self.touched.add((f"tag:{ASK_TAG}", version))
        self.registry.change(MODEL, asks={v: e for v, e in self.view.asks.items() if v != version})

    @rule(environment=ENVIRONMENTS, version=st.one_of(VERSIONS, st.none()))
    def meddle_with_our_answer(self, environment: str, version: str | None) -> None:
        if environment not in self._serving():
            return  # where nothing serves an alias of that name is no answer of ours
        self.touched.add((f"alias:{environment}", None))
        aliases = {**self.view.aliases, environment: version}
        self.registry.change(MODEL, aliases={name: v for name, v in aliases.items() if v is not None})

    # What Headgate does, in whatever order.

    @rule(via=VIA)
    def observe(self, via: str) -> None:
        wanted, taken_back = self._net_requests()
        before, known = {row.id for row in self._promotions()}, len(self._ledger())
        if via == intake.POLL:
            intake.poll(self.world.core)
        else:
            intake.observe(self.world.core, MODEL, via)
        opened = [(row.version, row.environment) for row in self._promotions() if row.id not in before]
        # Whatever was opened, a person has asked for since the last look, and each request opens one at most;
        assert Counter(opened) <= Counter(wanted) and set(opened) <= self.asked, (opened, self.asked, wanted)
        # no request is lost, and none that was taken back goes on;
        for environment in {environment for _, environment in wanted}:
            versions = {version for version, asked in wanted if asked == environment}
            assert versions & self._on_its_way_or_serving(environment), (environment, versions)
        for row in self._promotions():
            goes_on = row.state not in ENDED and not row.stop and row.id in before
            assert not (goes_on and (row.version, row.environment, row.trigger["field"]) in taken_back), row.id
        # what Headgate wrote is never put down to somebody else; and nothing is overlooked.
        seen = self._ledger()[known:]
        assert {self._key(row) for row in seen if row["via"] != intake.OWN} <= self.touched
        assert self._seen() == self.view
        self.asked.clear()
        self.touched.clear()

    @rule()
    def deliver(self) -> None:
        outbox.deliver(self.world.core, "worker-1")

    @rule()
    def deliver_while_mlflow_is_away(self) -> None:
        self.registry.away = True
        outbox.deliver(self.world.core, "worker-1")
        self.registry.away = False

    @rule()
    def wait(self) -> None:
        with self.database.begin() as session:
            for row in session.scalars(select(OutboxRow).where(OutboxRow.next_try_at.is_not(None))):
                row.next_try_at = now(session)

    @rule()
    def deliver_while_mlflow_stumbles(self) -> None:
        self.registry.stumbles = True
        outbox.deliver(self.world.core, "worker-1")
        self.registry.stumbles = False

    @rule()
    def write_and_die_before_noting_it(self) -> None:
        with self.database.read() as session:
            rows = list(unsent(session))
        for row in [row for row in rows if row.operation != SET_TAG][:1]:
            outbox._send(self.world.core, row)

    @rule(healthy=st.booleans())
    def run_all(self, healthy: bool) -> None:
        self.world.metrics.seen = Sample(100, 0 if healthy else 100, 2.0)
        for row in [row for row in self._promotions() if row.next_run_at is not None]:
            self.world.runner.advance(row.id)

    @rule()
    def cancel_one(self) -> None:
        for row in [row for row in self._promotions() if row.state not in ENDED][-1:]:
            promotions.cancel(self.world.core, row.id, "", "ada")

    # What is true at any time.

    @invariant()
    def one_promotion_at_a_time(self) -> None:
        active = [(row.environment, row.state) for row in self._promotions() if row.state in ACTIVE]
        assert len(active) == len({environment for environment, _ in active}), active

    def teardown(self) -> None:
        try:
            self._settle()
        finally:
            self.database.close()
            self._folder.cleanup()

    def _settle(self) -> None:
        """Let everything come to rest: then MLflow tells the truth, nothing is asked, and nothing else runs."""
        self.observe(intake.WEBHOOK)
        for _ in range(20):
            for row in [row for row in self._promotions() if row.next_run_at is not None]:
                self.world.runner.advance(row.id)
            self.wait()
            if outbox.deliver(self.world.core, "worker-1") == 0 and self._seen() == self.view:
                break
        self.observe(intake.POLL)  # what is left of all this are our own writes, and they ask for nothing
        self._check_ledger()
        assert [row.state for row in self._promotions() if row.state not in ENDED or row.next_run_at] == []
        serving = self._serving()
        asked = {name: v for name, v in self.view.aliases.items() if name not in ("production", "staging")}
        answers = {name: v for name, v in self.view.aliases.items() if name in ("production", "staging")}
        assert asked == {}
        assert answers == serving
        assert set(self.view.asks.values()) <= {"moon"}
        for version, label in self._last_words().items():
            assert self.world.tags(version)["headgate.status"] == label
        names = {row["name"] for row in history.serving(self.database, MODEL, None, None)}
        assert set(self.world.server.names()) == names
        routed = {e: r.stable.release for (_, e), r in self.world.router.routes.items() if r.stable}
        assert {e: release.partition("@")[0] for e, release in routed.items()} == serving
        assert all(route.canary is None for route in self.world.router.routes.values())
        assert trail.verify(self.database).verified
        assert self.world.sandbox.jobs.count("scan") <= len(self._promotions())

    def _check_ledger(self) -> None:
        """What was before a change is what the change before it left, and the last one leaves what MLflow says now."""
        last: dict[tuple[str, str | None], str | None] = {}
        with self.database.read() as session:
            for row in reversed(registry.changes(session, MODEL, None, 100_000)):
                key = self._key({"field": row.field, "version": row.version})
                nothing = "None" if row.field == "stage" else None
                assert row.before == last.get(key, nothing), (row.id, key)
                last[key] = row.after
        now: dict[tuple[str, str | None], str] = {(f"alias:{name}", None): v for name, v in self.view.aliases.items()}
        now |= {("stage", version): stage for version, stage in self.view.stages.items()}
        now |= {(f"tag:{ASK_TAG}", version): ask for version, ask in self.view.asks.items()}
        assert {key: value for key, value in last.items() if value not in (None, "None")} == now

    # The oracle's own looks.

    @property
    def view(self) -> ModelView:
        return self.registry.models[MODEL]

    def _seen(self) -> ModelView | None:
        with self.database.read() as session:
            return registry.all_observed(session).get(MODEL)

    def _promotions(self) -> list[Any]:
        with self.database.read() as session:
            return list(session.scalars(select(Promotion).order_by(Promotion.id)))

    def _serving(self) -> dict[str, str]:
        with self.database.read() as session:
            return {row.environment: row.version for row in releases.serving(session) if row.role == releases.STABLE}

    def _last_words(self) -> dict[str, str]:
        """By version what the trail says last of it."""
        leaves = trail.page(self.database, 0, 100_000)
        bodies = [leaf["body"] for leaf in leaves if leaf["kind"].startswith("promotion.")]
        states = [(b["version"], b.get("to", "requested")) for b in bodies if "version" in b]
        return {version: state.lower().replace("_", "-") for version, state in states}

    def _ledger(self) -> list[dict[str, Any]]:
        with self.database.read() as session:
            rows = registry.changes(session, MODEL, None, 100_000)
            return [{"field": row.field, "version": row.version, "via": row.via} for row in reversed(rows)]

    @staticmethod
    def _key(row: dict[str, Any]) -> tuple[str, str | None]:
        return row["field"], None if row["field"].startswith("alias:") else row["version"]

    def _net_requests(self) -> tuple[list[tuple[str, str]], set[tuple[str, str, str]]]:
        """What the registry asks for now that it did not ask for when Headgate last looked, as (version, environment);
        and what it does not ask for any more, as (version, environment, field)."""
        meanings = [interpret(change, POLICY) for change in diff(self._seen(), self.view)]
        wanted = [(ask.version, ask.environment) for _, ask in meanings if ask is not None]
        gone = {(back.version, back.environment, back.change.field) for back, _ in meanings if back is not None}
        return wanted, {key for key in gone if key[:2] not in wanted}

    def _on_its_way_or_serving(self, environment: str) -> set[str]:
        rows = [row for row in self._promotions() if row.environment == environment and row.state not in ENDED]
        under_way = {row.version for row in rows if not row.stop}
        serves = self._serving().get(environment)
        return under_way or ({serves} if serves else set())


def test_no_order_of_events_loses_or_makes_up_a_request(new_database: Callable[[], str]) -> None:
    class Machine(IntakeMachine):
        """Hypothesis makes one for each example, from a class without arguments."""

        def __init__(self) -> None:
            super().__init__(new_database)

    quick = settings(
        max_examples=20,
        stateful_step_count=50,
        deadline=None,
        derandomize=True,
        phases=[Phase.generate],  # shrinking would run for minutes; the failing steps are printed as they are
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(Machine, settings=quick)
