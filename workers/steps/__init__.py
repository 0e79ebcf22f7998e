"""The steps: plain functions run(context) -> Outcome, one file for each state of the flow."""

from collections.abc import Callable, Mapping

from app.domain.promotion import ENDED, Outcome, State
from workers.context import Context
from workers.steps import approval, build, cleanup, convert, gates, prove, requested, rollout, scan, snapshot

STEPS: Mapping[State, Callable[[Context], Outcome]] = {
    State.REQUESTED: requested.run,
    State.SNAPSHOT: snapshot.run,
    State.SCAN: scan.run,
    State.CONVERT: convert.run,
    State.GATES: gates.run,
    State.BUILD: build.run,
    State.PROVE: prove.run,
    State.APPROVAL: approval.run,
    State.ROLLOUT: rollout.run,
    **dict.fromkeys(ENDED, cleanup.run),
}


def undo(context: Context) -> None:
    """Take back what the step of the present state did outside, before the promotion ends. Only ROLLOUT moves
    traffic; what the others leave (files, images, a stopped server) is harmless and cleaned up at the end."""
    if context.state is State.ROLLOUT:
        rollout.undo(context)
