"""What a promotion would do if it were asked for now. Nothing is written, and nobody is told."""

from datetime import datetime
from typing import Any

from sqlalchemy.orm import Session

from app.db import promotions, releases
from app.db.models import Promotion, Release
from app.db.session import now
from app.domain.digests import digest_json
from app.domain.errors import NotFound
from app.domain.freeze import frozen
from app.domain.policy import EnvironmentPolicy
from app.domain.promotion import FLOW
from app.parts import Core
from app.policy_files import freeze
from app.services.promotions import occupied, rules_for


def plan(core: Core, model: str, version: str, environment: str) -> dict[str, Any]:
    """The states it would go through, gates with their limits, rows with their digest where that is known, approvals,
    freezes, rollout, target, what serves now, what it would supersede, and in `refused` why nothing would be opened.

    Raises:
        NotFound: MLflow has no such version.
        Invalid: the policy is malformed, or knows no such environment.
    """
    policy = rules_for(core.policies.policy(model), environment)
    rules = freeze(policy)
    found = core.registry.version(model, version)
    if found is None:
        raise NotFound(f"MLflow has no version {version} of a model named {model!r}.", "Check both in MLflow's UI.")
    with core.db.read() as session:
        older = promotions.unfinished(session, model, environment)
        stable = releases.in_role(session, model, environment, releases.STABLE)
        return {
            "model": model,
            "version": version,
            "environment": environment,
            "refused": occupied(version, older, stable),
            "ready": found.ready,
            "states": [state.value for state in FLOW],
            "policy_digest": digest_json(rules),
            "data": _data(session, model, environment, rules["data"]),
            "parity": rules["parity"],
            "gates": rules["gates"],
            "approvals": rules["approvals"],
            "freeze": rules["freeze"],
            "frozen": _frozen(policy, now(session)),
            "break_glass": rules["break_glass"],
            "rollout": {**rules["rollout"], "steps": rules["rollout"]["steps"] if stable else [100]},
            "target": rules["target"],
            "serves_now": _serving(stable),
            "supersedes": [_named(row) for row in older],
        }


def _frozen(policy: EnvironmentPolicy, moment: datetime) -> dict[str, Any] | None:
    """What keeps traffic from being moved at this moment."""
    found = frozen(policy.freeze, moment)
    return {"reason": found.reason, "until": found.until and found.until.isoformat()} if found is not None else None


def _data(session: Session, model: str, environment: str, data: dict[str, Any] | None) -> dict[str, Any] | None:
    """The judging rows; their digest is what the policy demands, else what that place held at the last promotion."""
    if data is None:
        return None
    pinned = data["digest"] is not None
    seen = None if pinned else promotions.last_rows(session, model, environment, data["uri"])
    return {**data, "digest": data["digest"] or seen, "digest_from": "policy" if pinned else seen and "last promotion"}


def _serving(stable: Release | None) -> dict[str, Any] | None:
    if stable is None:
        return None
    since = stable.stable_at.isoformat() if stable.stable_at else None
    return {"version": stable.version, "digest": stable.digest, "promotion_id": stable.promotion_id, "since": since}


def _named(row: Promotion) -> dict[str, Any]:
    return {"id": row.id, "version": row.version, "state": row.state}
