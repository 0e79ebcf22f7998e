"""What a step gets to see: values read in one transaction, and the outside parts it may use."""

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from app.db import promotions, releases
from app.db.models import Promotion
from app.db.promotions import Claim
from app.db.session import now
from app.domain.approvals import Decision, Facts, Outcome, Verdict, judge
from app.domain.errors import LostLease
from app.domain.policy import EnvironmentPolicy
from app.domain.promotion import State
from app.parts import Core, Plant, Timing
from app.policy_files import thaw
from app.ports import Registry, Route
from app.services import digest, review
from app.services import releases as release_service
from app.services.effects import Effect
from app.services.effects import intend as announce

Evidence = Mapping[str, Any]


@dataclass(frozen=True)
class Context:
    """One look at one promotion. `evidence` is by state; `champion` is that of the live release, if any; `leftovers`
    are (target, name) of releases that should no longer run. `voided` says why the digest no longer stands for what is
    recorded, `verdict` whether people's words let it go on: both where it waits for approval or rolls out.

    `intend` is asked before anything is moved. It writes down in the audit trail what is about to be, and gives None
    where what allows it has changed since this look; it and `vouch`, which renews the canary's lease, raise LostLease
    where another worker has the promotion now. `effects` are those that were announced.
    `fence` is the token that goes with every call that changes a server or the router. `taken_over` says that an
    earlier holder of this step never gave it back: it may be dead, or stopped and about to go on."""

    promotion_id: int
    model: str
    version: str
    environment: str
    state: State
    policy: EnvironmentPolicy
    evidence: Mapping[str, Evidence]
    champion: Mapping[str, Evidence] | None
    progress: Evidence
    entered_at: datetime
    now: datetime
    digest: str | None
    voided: str
    verdict: Verdict | None
    decisions: Sequence[Decision]
    blocked_by: int | None
    routes: list[Route]
    route: Route
    leftovers: Sequence[tuple[str, str]]
    fence: int
    taken_over: bool
    intend: Callable[[Mapping[str, Any], bool], Effect | None]
    effects: Sequence[Effect]
    vouch: Callable[[], None]
    registry: Registry
    plant: Plant
    timing: Timing

    def step(self, state: State) -> Evidence:
        """What an earlier step left behind."""
        return self.evidence[state.value]

    @contextmanager
    def scratch(self, what: str) -> Iterator[Path]:
        """An empty folder for work in progress on this promotion; afterwards it is gone."""
        # With the token in its name: a holder that was overtaken must not write into, or remove, what its heir makes.
        folder = self.plant.store.scratch(f"promotion-{self.promotion_id}-{what}-{self.fence}")
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


@dataclass(frozen=True)
class _Hold:
    """What a step may do only while its worker holds the promotion: each asks first, in a transaction of its own."""

    core: Core
    timing: Timing
    row: Promotion
    held: Claim
    policy: EnvironmentPolicy
    facts: Facts
    effects: list[Effect]

    def intend(self, body: Mapping[str, Any], checked: bool) -> Effect | None:
        """As `Context` says; `checked`: it takes people's words, which are looked at again."""
        row = self.row
        with self.core.db.begin() as session:
            self._prolong(session)
            # The row is locked by now: an approval is taken back before this, or after the trail has it.
            verdict = review.again(session, row.id, self.policy, self.facts) if checked else None
            if verdict is not None and verdict.outcome is not Outcome.APPROVED:
                return None
            told = {"promotion": row.id, "model": row.model, "environment": row.environment, **body}
            self.effects.append(announce(session, told))
        return self.effects[-1]

    def vouch(self) -> None:
        """Renew the canary's lease."""
        with self.core.db.begin() as session:
            self._prolong(session)
            releases.renew_lease(session, self.row.id, now(session) + self.timing.canary_lease)

    def _prolong(self, session: Session) -> None:
        if not promotions.renew(session, self.held, self.timing.lease):
            raise LostLease(f"promotion {self.held.id} is no longer held by this worker")


def load(session: Session, core: Core, plant: Plant, timing: Timing, row: Promotion, held: Claim) -> Context:
    """Read all that the step of `row` may need."""
    steps = promotions.steps(session, row.id)
    evidence = promotions.evidence_of(steps)
    active = promotions.active_for(session, row.model, row.environment)
    serving = releases.serving(session)
    routes = release_service.routes_of(serving)
    stable = releases.in_role(session, row.model, row.environment, releases.STABLE)
    policy, facts, effects = thaw(row.policy), review.facts_of(session, row, steps), list[Effect]()
    waits = review.waits(row)
    decisions = review.decisions_of(session, row.id) if waits else []

    hold = _Hold(core, timing, row, held, policy, facts, effects)
    return Context(
        promotion_id=row.id,
        model=row.model,
        version=row.version,
        environment=row.environment,
        state=State(row.state),
        policy=policy,
        evidence=evidence,
        champion=promotions.evidence(session, stable.promotion_id) if stable else None,
        progress=row.progress,
        entered_at=steps[-1].entered_at,
        now=now(session),
        digest=row.digest,
        voided=digest.voided(session, row, steps) if waits else "",
        verdict=judge(policy, facts, decisions, now(session)) if waits else None,
        decisions=decisions,
        blocked_by=active.id if active is not None and active.id != row.id else None,
        routes=routes,
        route=release_service.route_of(routes, row.model, row.environment),
        leftovers=_leftovers(session, row, evidence, {release.name for release in serving}),
        fence=held.epoch,
        taken_over=row.crashes > 0,
        intend=hold.intend,
        effects=effects,
        vouch=hold.vouch,
        registry=core.registry,
        plant=plant,
        timing=timing,
    )


def _leftovers(
    session: Session, row: Promotion, evidence: Mapping[str, Evidence], serving: Set[str]
) -> list[tuple[str, str]]:
    """What may still run for this promotion, or for those that it replaced, and serves no more."""
    found = [(spec["target"], spec["name"]) for spec in releases.retired_specs(session, row.model, row.environment)]
    build = evidence.get(State.BUILD.value)
    if build is not None and "name" in build and row.state != State.LIVE.value:  # a BUILD that failed has none
        found.append((build["target"], build["name"]))
    return [(target, name) for target, name in dict.fromkeys(found) if name not in serving]
