"""How releases follow their promotions: the effect of transitions, and of a rollout's progress, on who serves."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy.orm import Session

from app.db import audit, promotions, releases
from app.db.models import Promotion
from app.db.promotions import Claim
from app.domain.digests import short
from app.domain.promotion import ENDED, State


def follow(session: Session, row: Promotion, after: State) -> None:
    """Keep the release of a promotion in step with the state that it enters."""
    if after is State.ROLLOUT:
        build = promotions.evidence(session, row.id)[State.BUILD.value]
        who = (row.id, row.model, row.version, row.environment)
        releases.add_canary(session, who, row.digest or "", build["name"], build)
    elif after is State.LIVE:
        releases.make_stable(session, releases.of_promotion_or_raise(session, row.id))
    elif after in ENDED:
        releases.retire(session, row.id)


def follow_progress(session: Session, held: Claim, progress: Mapping[str, Any]) -> None:
    """Keep the canary's recorded weight and address in step with its rollout; each move of traffic is a decision."""
    if held.state is not State.ROLLOUT or "endpoint" not in progress:
        return
    release = releases.of_promotion_or_raise(session, held.id)
    if release.weight != progress["weight"]:
        body = {
            "promotion": held.id,
            "model": release.model,
            "environment": release.environment,
            "release": f"{release.version}@{short(release.digest)}",
            "weight": progress["weight"],
        }
        audit.append(session, "canary.weight", body)
    releases.set_canary(session, held.id, progress["weight"], progress["endpoint"])
