"""Releases: the routes that the database implies, the canary's lease, and keeping what serves alive."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from app.db import fences, promotions, releases
from app.db.models import Release
from app.db.session import Database, now
from app.domain.digests import short
from app.domain.errors import HeadgateError, LostLease
from app.parts import Plant
from app.ports import Endpoint, ReleaseSpec, Route, Server, TrafficRouter
from app.services.singly import holding

log = logging.getLogger(__name__)


def server_of(row: Release) -> Server | None:
    """The router's view of a release; None while it has no endpoint."""
    if row.endpoint is None:
        return None
    return Server(f"{row.version}@{short(row.digest)}", Endpoint(**row.endpoint))


def spec_of(plant: Plant, build: Mapping[str, Any]) -> ReleaseSpec:
    """What to start, from what BUILD recorded. The repository is read as a whole: what is served is what was approved,
    to the byte. Raises Fault where it was changed."""
    plant.store.verify(build["repository"])
    repository: Path = plant.store.tree(build["repository"])
    return ReleaseSpec(build["name"], build["model"], repository, build["image"], build["instance"])


def routes(session: Session) -> list[Route]:
    """Where all traffic goes, as the database has it."""
    return routes_of(releases.serving(session))


def routes_of(serving: Sequence[Release]) -> list[Route]:
    """The same, given all releases that serve."""
    found: dict[tuple[str, str], dict[str, Release]] = {}
    for row in serving:
        found.setdefault((row.model, row.environment), {})[row.role] = row
    return [_route(model, environment, roles) for (model, environment), roles in sorted(found.items())]


def _route(model: str, environment: str, roles: Mapping[str, Release]) -> Route:
    stable, canary = roles.get(releases.STABLE), roles.get(releases.CANARY)
    return Route(
        model,
        environment,
        server_of(stable) if stable else None,
        server_of(canary) if canary else None,
        canary.weight if canary else 0,
    )


def route_of(routes: Sequence[Route], model: str, environment: str) -> Route:
    """The route of one model, which may be empty."""
    known = (route for route in routes if (route.model, route.environment) == (model, environment))
    return next(known, Route(model, environment, None))


def canary_lease_holds(db: Database, model: str, environment: str) -> bool:
    """Whether a controller vouches for the canary at this moment: the router asks this before it sends traffic."""
    with db.read() as session:
        row = releases.in_role(session, model, environment, releases.CANARY)
        if row is None:
            # At the end of a rollout the canary's slot empties while the same server goes on as stable.
            return releases.in_role(session, model, environment, releases.STABLE) is not None
        return row.lease_until is not None and row.lease_until > now(session)


def tend(db: Database, plant: Plant, owner: str) -> list[str]:
    """Start again what should serve and does not run, and have the router follow; returns the names started.

    A worker may have died after starting a server, or after recording where it listens: whatever is missing is done.
    """
    with holding(db, "tend", owner) as mine:
        if not mine:
            return []
        with db.read() as session:
            serving = [row for row in releases.serving(session) if row.role == releases.STABLE and row.endpoint]
        return [row.name for row in serving if _tend_or_log(db, plant, row)]


def _tend_or_log(db: Database, plant: Plant, row: Release) -> bool:
    """Tend one release; whatever is wrong with it must not keep others from being tended."""
    try:
        return _tend_one(db, plant, row)
    except LostLease as error:
        # A promotion has moved on meanwhile and sees to its servers itself; what it leaves is found the next time.
        log.warning("release.tend_overtaken", extra={"release": row.name, "reason": error.reason})
        with db.begin() as session:
            fences.catch_up(session, row.model, row.environment, error.seen)
    except HeadgateError as error:
        log.error("release.tend_failed", extra={"release": row.name, "reason": error.reason})
    except Exception:
        log.exception("release.tend_defect", extra={"release": row.name})
    return False


def _tend_one(db: Database, plant: Plant, row: Release) -> bool:
    server = plant.servers[row.spec["target"]]
    with db.read() as session:
        fence = fences.current(session, row.model, row.environment)
        stable = releases.in_role(session, row.model, row.environment, releases.STABLE)
    if stable is None or stable.id != row.id:
        return False
    found = server.find(row.name)
    endpoint = found or server.start(spec_of(plant, row.spec), fence)
    with db.begin() as session:
        # The token comes before what it vouches for: whatever changes afterwards, changes under a higher one.
        fence = fences.current(session, row.model, row.environment)
        held = promotions.moves_traffic(session, row.model, row.environment)
        serves = releases.set_stable_endpoint(session, row.id, vars(endpoint))
        every = routes(session)
        mine = route_of(every, row.model, row.environment)
        moving = releases.in_role(session, row.model, row.environment, releases.CANARY) is not None
    if not serves:
        if found is None:
            server.stop(row.name, fence)  # it was replaced meanwhile, and cleaned up after before this start
        return False
    if held:
        # That worker has this very token and knows of moves that are not recorded yet: the next round looks again.
        return found is None
    if found is None or vars(found) != row.endpoint or not _follows(plant.router, mine, moving):
        plant.router.apply(every, mine, fence)
        log.warning("release.routed", extra={"release": row.name, "started": found is None})
    return found is None


def _follows(router: TrafficRouter, route: Route, moving: bool) -> bool:
    """Whether the router sends traffic to stable, and none to a canary that is not recorded. While a rollout is under
    way, the rollout sees to its canary."""
    seen = router.status(route.model, route.environment)
    return bool(seen.up.get("stable")) and (moving or "canary" not in seen.weights)
