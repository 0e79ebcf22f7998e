"""What a group of benchmarks returns, and how figures of several rounds become one."""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Group:
    """One table: `rows` are texts under `columns`, `figures` the same as plain numbers, `notes` what a reader of the
    table must know about this very run."""

    name: str
    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str]
    figures: Mapping[str, Any] = field(default_factory=dict)


def in_turns(sides: Mapping[str, Callable[[], T]], rounds: int) -> dict[str, list[T]]:
    """Measure A B C, A B C ...: what else the machine does at a moment then falls on neighbours, not on one side."""
    found: dict[str, list[T]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, measure in sides.items():
            found[name].append(measure())
    return found


def ratio(these: Sequence[float], those: Sequence[float]) -> float:
    """The median of this / that within each round."""
    return statistics.median(this / that for this, that in zip(these, those, strict=True))


def percentile(values: Sequence[float], share: float) -> float:
    """The nearest-rank percentile: a value that really occurred."""
    return sorted(values)[max(0, math.ceil(len(values) * share) - 1)]


def number(value: float) -> str:
    """Three significant digits are as many as these figures are worth."""
    rounded = float(f"{value:.3g}")
    decimals = 2 - math.floor(math.log10(abs(rounded))) if rounded else 0
    return f"{rounded:,.{max(0, decimals)}f}"


def spread(values: Sequence[float]) -> str:
    """The median, and the least and the greatest of the rounds."""
    return f"{number(statistics.median(values))} ({number(min(values))}-{number(max(values))})"
