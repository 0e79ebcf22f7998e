"""What a step gets to see: values read in one transaction, and the outside parts it may use."""

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from app.db import principals, promotions, releases
from app.db.models import Promotion
from app.db.promotions import Claim
from app.db.session import now
from app.domain.errors import LostLease
from app.domain.policy import EnvironmentPolicy
from app.domain.promotion import State
from app.parts import Core, Plant, Timing
from app.policy_files import thaw
from app.ports import Registry, Route
from app.services import releases as release_service
from app.services.digest import of_evidence

Evidence = Mapping[str, Any]


@dataclass(frozen=True)
class Decision:
    """One recorded decision of a person on this promotion; `weight` is the one that an asking canary stood at."""

    principal: str
    role: str
    decision: str
    digest: str
    weight: int | None


@dataclass(frozen=True)
class Context:
    """One look at one promotion. `evidence` is by state; `champion` is that of the live release, if any; `leftovers`
    are (target, name) of releases that should no longer run. `hold` raises LostLease where another worker has the
    promotion now, and is asked before anything is moved; `vouch` does so, too, and renews the canary's lease.
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
    digest_now: str | None
    decisions: Sequence[Decision]
    blocked_by: int | None
    routes: list[Route]
    route: Route
    leftovers: Sequence[tuple[str, str]]
    fence: int
    taken_over: bool
    hold: Callable[[], None]
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


def load(session: Session, core: Core, plant: Plant, timing: Timing, row: Promotion, held: Claim) -> Context:
    """Read all that the step of `row` may need."""
    steps = promotions.steps(session, row.id)
    evidence = promotions.evidence_of(steps)
    active = promotions.active_for(session, row.model, row.environment)
    serving = releases.serving(session)
    routes = release_service.routes_of(serving)
    stable = releases.in_role(session, row.model, row.environment, releases.STABLE)

    def prolong(session: Session) -> None:
        if not promotions.renew(session, held, timing.lease):
            raise LostLease(f"promotion {held.id} is no longer held by this worker")

    def hold() -> None:
        with core.db.begin() as session:
            prolong(session)

    def vouch() -> None:
        with core.db.begin() as session:
            prolong(session)
            releases.renew_lease(session, row.id, now(session) + timing.canary_lease)

    return Context(
        promotion_id=row.id,
        model=row.model,
        version=row.version,
        environment=row.environment,
        state=State(row.state),
        policy=thaw(row.policy),
        evidence=evidence,
        champion=promotions.evidence(session, stable.promotion_id) if stable else None,
        progress=row.progress,
        entered_at=steps[-1].entered_at,
        now=now(session),
        digest=row.digest,
        digest_now=_digest_now(row, evidence) if row.digest else None,
        decisions=[
            Decision(a.principal, a.role, a.decision, a.digest, a.weight) for a in principals.approvals(session, row.id)
        ],
        blocked_by=active.id if active is not None and active.id != row.id else None,
        routes=routes,
        route=release_service.route_of(routes, row.model, row.environment),
        leftovers=_leftovers(session, row, evidence, {release.name for release in serving}),
        fence=held.epoch,
        taken_over=row.crashes > 0,
        hold=hold,
        vouch=vouch,
        registry=core.registry,
        plant=plant,
        timing=timing,
    )


def _digest_now(row: Promotion, evidence: Mapping[str, Evidence]) -> str:
    """The digest that what is recorded now has; of a record with holes in it none, which no approval can match."""
    try:
        return of_evidence(row, evidence)
    except (KeyError, TypeError):
        return ""


def _leftovers(
    session: Session, row: Promotion, evidence: Mapping[str, Evidence], serving: Set[str]
) -> list[tuple[str, str]]:
    """What may still run for this promotion, or for those that it replaced, and serves no more."""
    found = [(spec["target"], spec["name"]) for spec in releases.retired_specs(session, row.model, row.environment)]
    build = evidence.get(State.BUILD.value)
    if build is not None and "name" in build and row.state != State.LIVE.value:  # a BUILD that failed has none
        found.append((build["target"], build["name"]))
    return [(target, name) for target, name in dict.fromkeys(found) if name not in serving]
