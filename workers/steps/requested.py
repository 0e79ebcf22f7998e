"""REQUESTED: wait until no other promotion occupies the model and environment."""

from datetime import timedelta

from app.domain.promotion import Done, Outcome, Wait
from workers.context import Context

# The end of the other promotion wakes this one at once; this only bounds what a lost wake-up costs.
_LOOK_AGAIN = timedelta(seconds=10)


def run(context: Context) -> Outcome:
    """Go on when the place is free; the end of the other promotion wakes this one."""
    if context.blocked_by is None:
        return Done()
    return Wait(_LOOK_AGAIN, {"waiting_for": context.blocked_by})
