"""REQUESTED: wait until no other promotion occupies the model and environment."""

from app.domain.promotion import Done, Outcome, Wait
from workers.context import Context


def run(context: Context) -> Outcome:
    """Go on when the place is free; the end of the other promotion wakes this one."""
    if context.blocked_by is None:
        return Done()
    return Wait(context.timing.tick, {"waiting_for": context.blocked_by})
