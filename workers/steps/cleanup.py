"""After the end: stop what still runs and no longer serves. Traffic has left it before."""

from app.domain.promotion import Done, Outcome
from workers.context import Context


def run(context: Context) -> Outcome:
    """Safe to repeat: stopping what does not run is fine."""
    for target, name in context.leftovers:
        context.plant.servers[target].stop(name, context.fence)
    return Done()
