"""The promotion's states, its legal transitions, and what a step may answer."""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import Any


class State(StrEnum):
    """Where a promotion stands; a working state is named after the step that runs in it."""

    REQUESTED = "REQUESTED"
    SNAPSHOT = "SNAPSHOT"
    SCAN = "SCAN"
    CONVERT = "CONVERT"
    GATES = "GATES"
    BUILD = "BUILD"
    PROVE = "PROVE"
    APPROVAL = "APPROVAL"
    ROLLOUT = "ROLLOUT"
    LIVE = "LIVE"
    REJECTED = "REJECTED"
    DENIED = "DENIED"
    EXPIRED = "EXPIRED"
    CANCELLED = "CANCELLED"
    SUPERSEDED = "SUPERSEDED"
    ROLLED_BACK = "ROLLED_BACK"
    FAILED = "FAILED"

    @property
    def label(self) -> str:
        """The state as MLflow tags and people read it: lower case with hyphens."""
        return self.value.lower().replace("_", "-")


FLOW: tuple[State, ...] = (
    State.REQUESTED,
    State.SNAPSHOT,
    State.SCAN,
    State.CONVERT,
    State.GATES,
    State.BUILD,
    State.PROVE,
    State.APPROVAL,
    State.ROLLOUT,
    State.LIVE,
)
ENDED: frozenset[State] = frozenset(State) - frozenset(FLOW[:-1])
"""States that a promotion never leaves (only `retry` reopens FAILED)."""
ACTIVE: frozenset[State] = frozenset(FLOW[1:-1])
"""States in which a promotion occupies its (model, environment); REQUESTED waits outside."""
OPEN: frozenset[State] = ACTIVE | {State.REQUESTED}
"""States of a promotion that has not ended."""

_ANYWHERE = {State.CANCELLED, State.SUPERSEDED, State.FAILED}
_LEAVES: Mapping[State, set[State]] = {
    State.REQUESTED: {State.REJECTED},
    State.SNAPSHOT: {State.REJECTED},
    State.SCAN: {State.REJECTED},
    State.CONVERT: {State.REJECTED},
    State.GATES: {State.REJECTED},
    State.BUILD: {State.REJECTED},
    State.PROVE: {State.REJECTED},
    State.APPROVAL: {State.DENIED, State.EXPIRED},
    State.ROLLOUT: {State.ROLLED_BACK},
}
TRANSITIONS: Mapping[State, frozenset[State]] = {
    **{here: frozenset({after} | _LEAVES[here] | _ANYWHERE) for here, after in itertools.pairwise(FLOW)},
    **{leaf: frozenset() for leaf in ENDED},
    State.FAILED: frozenset({State.REQUESTED}),
}


def may_follow(before: State, after: State) -> bool:
    """Say whether a promotion may go from `before` to `after` in one transition."""
    return after in TRANSITIONS[before]


def next_state(state: State) -> State:
    """The state that follows when the step of `state` is done.

    Raises:
        ValueError: `state` has no step after it.
    """
    if state in ENDED:
        raise ValueError(f"{state} is an end")
    return FLOW[FLOW.index(state) + 1]


@dataclass(frozen=True)
class Done:
    """The step finished; `evidence` (JSON values only) is stored under the step's name, and `note` is what people are
    told of it at once, where there is something to tell."""

    evidence: Mapping[str, Any] = field(default_factory=dict)
    note: str = ""


@dataclass(frozen=True)
class Wait:
    """The step has to look again after `delay`; `progress` (JSON values) is shown to whoever watches."""

    delay: timedelta
    progress: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class End:
    """The promotion ends in `state` for a reason that people will read; where a person gave it, `by` names her."""

    state: State
    reason: str
    evidence: Mapping[str, Any] = field(default_factory=dict)
    by: str | None = None


Outcome = Done | Wait | End
