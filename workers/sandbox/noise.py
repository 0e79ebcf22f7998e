"""How far answers move when inputs move a little, and whether they stay finite when inputs are extreme."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from .runner import Runner
from .tensors import Array, Table

MAX_ROWS = 1000
TRIES = 8
FAR = 10.0
"""Extreme inputs lie so many standard deviations beyond the smallest and the largest value of their column."""


def measure(runner: Runner, table: Table, nudge: float, seed: int) -> dict[str, Any]:
    """Move every floating-point value of the first rows up or down, by chance, by `nudge` of its column's standard
    deviation, TRIES times, and say how the first output moves (see app.domain.measured.Noise for the words).

    Raises:
        Refused: the model fails on what it is asked.
    """
    table = {name: values[:MAX_ROWS] for name, values in table.items()}
    moving = {name: values for name, values in table.items() if values.dtype.kind == "f"}
    chance = np.random.default_rng(seed)
    tries = [{name: _nudged(values, nudge, chance) for name, values in moving.items()} for _ in range(TRIES)]
    before = runner.answers(table)
    nudged = [runner.answers({**table, **moved}) for moved in tries] if moving else []
    extreme = [
        runner.answers({**table, **{name: _far(values, far) for name, values in moving.items()}})
        for far in ((-FAR, FAR) if moving else ())
    ]
    was_finite = _finite(before)
    asked = [*nudged, *extreme]
    changes = [_change(before[0][was_finite], after[0][was_finite]) for after in nudged]
    return {
        "nudge": nudge,
        "columns": sum(values.shape[1] if values.ndim == 2 else 1 for values in moving.values()),
        "classes": before[0].dtype.kind != "f",
        "change": None if None in changes or not changes else float(np.mean(np.array(changes, dtype=float))),
        "asked": len(asked) * int(np.count_nonzero(was_finite)),
        "not_finite": sum(int(np.count_nonzero(was_finite & ~_finite(answer))) for answer in asked),
    }


def _nudged(values: Array, nudge: float, chance: np.random.Generator) -> Array:
    signs = chance.choice([-1.0, 1.0], size=values.shape)
    moved: Array = values.astype(np.float64) + signs * nudge * _spread(values)
    return moved.astype(values.dtype)


def _spread(values: Array) -> Any:
    """The standard deviation of each column over what is finite in it; 0 where nothing is."""
    finite = np.where(np.isfinite(values), values.astype(np.float64), np.nan)
    counted = np.maximum(np.count_nonzero(~np.isnan(finite), axis=0), 1)
    mean = np.nansum(finite, axis=0) / counted
    return np.sqrt(np.nansum((finite - mean) ** 2, axis=0) / counted)


def _far(values: Array, far: float) -> Array:
    """Every value so many standard deviations beyond the edge of its column, on the side of the sign of `far`."""
    finite = np.where(np.isfinite(values), values.astype(np.float64), 0.0)
    edge = finite.max(axis=0) if far > 0 else finite.min(axis=0)
    moved: Array = np.broadcast_to(edge + far * _spread(values), values.shape)
    return moved.astype(values.dtype)


def _finite(answer: Sequence[Array]) -> Array:
    """Which rows have only finite numbers in their answer."""
    finite = np.ones(len(answer[0]), dtype=bool)
    for values in answer:
        if values.dtype.kind == "f":
            finite &= np.isfinite(values).reshape(len(values), -1).all(axis=1)
    return finite


def _change(before: Array, after: Array) -> float | None:
    """The mean move in standard deviations of `before`, or the share of other classes; None without a scale. What is
    not finite afterwards is counted elsewhere."""
    if before.dtype.kind != "f":
        return float(np.mean(before != after)) if len(before) else None
    spread = float(np.std(before.astype(np.float64))) if len(before) else 0.0
    moved = np.abs(after.astype(np.float64) - before.astype(np.float64))
    moved = moved[np.isfinite(moved)]
    return float(np.mean(moved)) / spread if spread > 0 and len(moved) else None
