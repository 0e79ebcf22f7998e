"""Releases: the routes that the database implies, the canary's lease, and keeping what serves alive."""

import logging
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from app.db import outbox, releases
from app.db.models import Release
from app.db.session import Database, now
from app.domain.digests import short
from app.domain.errors import Fault, Transient
from app.parts import Plant
from app.ports import Endpoint, ReleaseSpec, Route, Server

log = logging.getLogger(__name__)


def server_of(row: Release) -> Server | None:
    """The router's view of a release; None while it has no endpoint."""
    if row.endpoint is None:
        return None
    return Server(f"{row.version}@{short(row.digest)}", Endpoint(**row.endpoint))


def spec_of(plant: Plant, build: Mapping[str, Any]) -> ReleaseSpec:
    """What to start, from what BUILD recorded; the repository is checked against its digest on the way."""
    repository: Path = plant.store.tree(build["repository"])
    return ReleaseSpec(build["name"], build["model"], repository, build["image"], build["instance"])


def routes(session: Session) -> list[Route]:
    """Where all traffic goes, as the database has it."""
    found: dict[tuple[str, str], dict[str, Release]] = {}
    for row in releases.serving(session):
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


def route_of(session: Session, model: str, environment: str) -> Route:
    """The route of one model, which may be empty."""
    known = (route for route in routes(session) if (route.model, route.environment) == (model, environment))
    return next(known, Route(model, environment, None))


def renew_canary_lease(db: Database, promotion_id: int, ttl: timedelta) -> None:
    """Vouch for the canary for another `ttl`."""
    with db.begin() as session:
        releases.renew_lease(session, promotion_id, now(session) + ttl)


def canary_lease_holds(db: Database, model: str, environment: str) -> bool:
    """Whether a controller vouches for the canary at this moment: the router asks this before it sends traffic."""
    with db.read() as session:
        row = releases.in_role(session, model, environment, releases.CANARY)
        if row is None:
            # At the end of a rollout the canary's slot empties while the same server goes on as stable.
            return releases.in_role(session, model, environment, releases.STABLE) is not None
        return row.lease_until is not None and row.lease_until > now(session)


def tend(db: Database, plant: Plant, owner: str) -> list[str]:
    """Start again what should serve and does not run, and have the router follow; returns the names started."""
    with db.begin() as session:
        if not outbox.take_lease(session, "tend", owner, timedelta(seconds=60)):
            return []
        serving = [row for row in releases.serving(session) if row.role == releases.STABLE and row.endpoint]
    started = []
    try:
        for row in serving:
            if _revive(db, plant, row):
                started.append(row.name)
    finally:
        with db.begin() as session:
            outbox.drop_lease(session, "tend", owner)
    return started


def _revive(db: Database, plant: Plant, row: Release) -> bool:
    server = plant.servers[row.spec["target"]]
    if server.find(row.name) is not None:
        return False
    try:
        endpoint = server.start(spec_of(plant, row.spec))
    except (Fault, Transient) as error:
        log.error("release.revive_failed", extra={"release": row.name, "reason": error.reason})
        return False
    with db.begin() as session:
        releases.set_endpoint(session, row.id, vars(endpoint))
        every, mine = routes(session), route_of(session, row.model, row.environment)
    plant.router.apply(every, mine)
    log.warning("release.revived", extra={"release": row.name})
    return True
