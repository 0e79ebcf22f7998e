"""When a step that failed runs again, and when its promotion gives up.

There are three kinds of failure and each is counted by itself: that MLflow was away eleven times says nothing about a
step that broke once. All counts begin anew when the step gets on.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Any

MAX_PAUSE = timedelta(minutes=1)
MAX_NAMED = 5


class Kind(StrEnum):
    """What happened: an outside part was away, something of ours broke, or the worker died in the middle."""

    TRANSIENT = "transient"
    FAULT = "fault"
    CRASH = "crash"


# With the pauses below, 66 tries are an hour in which an outside part did not once answer.
LIMITS: Mapping[Kind, int] = {Kind.TRANSIENT: 66, Kind.FAULT: 3, Kind.CRASH: 4}

SUSPECT = 2
"""From so many crashes on, a step runs only in a worker that runs no other such step: a worker that dies leaves all
behind that it had in hand, and only one of them is to blame."""


@dataclass(frozen=True)
class Again:
    """The step runs again after `pause`."""

    pause: timedelta


@dataclass(frozen=True)
class GiveUp:
    """The promotion fails; `reason` says after how much."""

    reason: str


def backoff(times: int) -> timedelta:
    """The pause after the `times`-th failure: 1, 2, 4 ... seconds, at most a minute."""
    return min(MAX_PAUSE, timedelta(seconds=2 ** min(10, max(0, times - 1))))


def decide(kind: Kind, counts: Mapping[Kind, int]) -> Again | GiveUp:
    """What follows a failure of `kind`, which `counts` includes already. The other kinds have no say in it."""
    times = counts.get(kind, 0)
    if times < LIMITS[kind]:
        # A crash was found out by a lease that had run out, which was pause enough.
        return Again(timedelta(0) if kind is Kind.CRASH else backoff(times))
    match kind:
        case Kind.TRANSIENT:
            return GiveUp(f"given up after {times} tries in about an hour")
        case Kind.FAULT:
            return GiveUp(f"given up after {times} tries")
        case Kind.CRASH:
            return GiveUp(f"ended its worker {times} times without a word and was quarantined")


def note(failures: Mapping[str, Any] | None, kind: Kind, at: str, worker: str, error: str) -> dict[str, Any]:
    """The record of the present step's failures (JSON values) with one more: how often, when and where."""
    before = dict(failures or {})
    known: Mapping[str, Any] = before.get(kind.value, {"times": 0, "first_at": at, "workers": []})
    others: Sequence[str] = [name for name in known["workers"] if name != worker]
    before[kind.value] = {
        "times": known["times"] + 1,
        "first_at": known["first_at"],
        "last_at": at,
        "workers": [*others, worker][-MAX_NAMED:],
        "error": error,
    }
    return before


def counts(failures: Mapping[str, Any] | None) -> dict[Kind, int]:
    """How often each kind is in a record."""
    return {Kind(kind): int(found["times"]) for kind, found in (failures or {}).items()}
