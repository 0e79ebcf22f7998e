"""What MLflow's webhooks said against what the readings showed: which came, and which never did."""

from datetime import datetime, timedelta

from sqlalchemy.orm import Session

from app.db import registry
from app.db.session import now
from app.domain.registry import OWN, POLL, WEBHOOK

# MLflow tries a delivery four times within 8 s or so. What has not come after GRACE counts as missing; one that comes
# later than LATE, if there ever is one, is not looked for any more.
GRACE, LATE = timedelta(seconds=30), timedelta(minutes=10)
LATELY = timedelta(hours=1)


def match(session: Session, model: str, moment: datetime) -> None:
    """The reading of `model` that began at `moment` covers the deliveries received until then: note each with the
    change that it announced, be that one of this reading's or one that a poll saw before the delivery came."""
    for delivery in registry.cover(session, model, moment):
        registry.match(session, delivery, now(session) - LATE)


def counts(session: Session, model: str | None) -> dict[str, int]:
    """How changes were seen, for how many of them MLflow has a webhook (`announced`), and how many never came."""
    seen = {WEBHOOK: 0, POLL: 0, OWN: 0, **registry.count_changes(session, model)}
    missing = registry.count_due(session, model, None, now(session) - GRACE)
    return {**seen, "announced": registry.count_webhooks(session, model), "missing": missing}


def healthy(session: Session) -> bool:
    """Whether webhooks can be relied on: some came lately, and none that was due is missing."""
    moment = now(session)
    last = registry.last_delivery(session)
    if last is None or last < moment - LATELY:
        return False
    return registry.count_due(session, None, moment - LATELY, moment - GRACE) == 0
