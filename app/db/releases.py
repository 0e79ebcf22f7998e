"""All SQL about releases: what serves, what is on its way in, and what served when."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import bindparam, or_, select, update
from sqlalchemy.orm import Session

from app.db.models import Release
from app.db.session import now

CANARY, STABLE, RETIRED = "canary", "stable", "retired"
# The roles are part of the statement: only then a planner sees that the partial index holds all that is asked for, and
# does not read through all that has retired.
_SERVES = Release.role.in_(bindparam("roles", [CANARY, STABLE], expanding=True, literal_execute=True))


def of_promotion(session: Session, promotion_id: int) -> Release | None:
    query = select(Release).where(Release.promotion_id == promotion_id)
    return session.scalars(query.execution_options(populate_existing=True)).one_or_none()


def of_promotion_or_raise(session: Session, promotion_id: int) -> Release:
    """The release of a promotion that must have one; its absence is a defect."""
    row = of_promotion(session, promotion_id)
    if row is None:
        raise LookupError(f"promotion {promotion_id} has no release")
    return row


def add_canary(
    session: Session, promotion: tuple[int, str, str, str], digest: str, name: str, spec: Mapping[str, Any]
) -> None:
    """Record the release of `promotion` (id, model, version, environment) as a canary without traffic; a promotion
    that is tried again takes its old row."""
    promotion_id, model, version, environment = promotion
    moment = now(session)
    row = of_promotion(session, promotion_id) or Release(
        promotion_id=promotion_id, model=model, version=version, environment=environment
    )
    row.digest, row.name, row.spec = digest, name, dict(spec)
    row.role, row.weight, row.endpoint = CANARY, 0, None
    row.created_at, row.stable_at, row.retired_at, row.lease_until = moment, None, None, None
    session.add(row)
    session.flush()


def set_canary(session: Session, promotion_id: int, weight: int, endpoint: Mapping[str, Any]) -> None:
    values = {"weight": weight, "endpoint": dict(endpoint)}
    _update(session, Release.promotion_id == promotion_id, values)


def renew_lease(session: Session, promotion_id: int, until: datetime) -> None:
    """The controller vouches for the canary until then; afterwards the router gives it no traffic."""
    _update(session, Release.promotion_id == promotion_id, {"lease_until": until})


def make_stable(session: Session, release: Release) -> None:
    """The canary becomes the stable release; the stable one before it retires."""
    moment = now(session)
    same = _SERVES & (Release.model == release.model) & (Release.environment == release.environment)
    _update(session, same & (Release.role == STABLE), {"role": RETIRED, "weight": 0, "retired_at": moment})
    values = {"role": STABLE, "weight": 100, "stable_at": moment, "lease_until": None}
    _update(session, Release.id == release.id, values)


def retire(session: Session, promotion_id: int) -> None:
    """Take the canary of a promotion that ended out of service."""
    canary = (Release.promotion_id == promotion_id) & (Release.role == CANARY)
    _update(session, canary, {"role": RETIRED, "weight": 0, "retired_at": now(session), "lease_until": None})


def set_stable_endpoint(session: Session, release_id: int, endpoint: Mapping[str, Any]) -> bool:
    """Record where a stable release listens; False where it is stable no more."""
    query = update(Release).where(Release.id == release_id, Release.role == STABLE).values(endpoint=dict(endpoint))
    recorded = query.returning(Release.id).execution_options(synchronize_session=False)
    return session.execute(recorded).first() is not None


def _update(session: Session, where: Any, values: Mapping[str, Any]) -> None:
    session.execute(update(Release).where(where).values(**values).execution_options(synchronize_session=False))


def in_role(session: Session, model: str, environment: str, role: str) -> Release | None:
    """What serves as `canary` or as `stable`."""
    query = select(Release).where(Release.model == model, Release.environment == environment)
    query = query.where(_SERVES, Release.role == role)
    return session.scalars(query.execution_options(populate_existing=True)).one_or_none()


def serving(session: Session) -> Sequence[Release]:
    """All stable and canary releases."""
    query = select(Release).where(_SERVES).order_by(Release.model, Release.environment)
    return session.scalars(query.execution_options(populate_existing=True)).all()


def search(session: Session, model: str | None, environment: str | None, at: datetime | None) -> Sequence[Release]:
    """What serves now, or was stable at `at`."""
    query = select(Release).order_by(Release.model, Release.environment, Release.id)
    if model is not None:
        query = query.where(Release.model == model)
    if environment is not None:
        query = query.where(Release.environment == environment)
    if at is None:
        return session.scalars(query.where(_SERVES)).all()
    query = query.where(Release.stable_at <= at, or_(Release.retired_at.is_(None), Release.retired_at > at))
    return session.scalars(query).all()


def retired_specs(session: Session, model: str, environment: str) -> Sequence[dict[str, Any]]:
    """The latest releases that serve no more, of which a process may still run."""
    query = select(Release.spec).where(Release.model == model, Release.environment == environment)
    return session.scalars(query.where(Release.role == RETIRED).order_by(Release.id.desc()).limit(20)).all()
