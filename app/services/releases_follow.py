"""How releases follow their promotions: each transition's effect on who serves."""

from sqlalchemy.orm import Session

from app.db import promotions, releases
from app.db.models import Promotion
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
