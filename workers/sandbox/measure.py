"""How long one inference takes."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .runner import Runner
from .tensors import Table

MAX_CALLS, MAX_SECONDS, WARM_UP = 2000, 0.8, 20
KEPT_SAMPLES = 200
_FEEDS = 64


def latency(runner: Runner, table: Table, batches: Sequence[int]) -> Mapping[int, list[float]]:
    """Milliseconds of single calls with each batch size, in the order of the calls; rows are taken in turn."""
    return {batch: _calls(runner, table, batch) for batch in batches}


def timings(runner: Runner, table: Table, batches: Sequence[int]) -> dict[str, Any]:
    """`latency_ms` (p99 by batch size) and `latency_samples_ms` (some of the calls behind it)."""
    samples = latency(runner, table, batches)
    return {
        "latency_ms": {str(batch): p99(values) for batch, values in samples.items()},
        "latency_samples_ms": {str(batch): thin(values) for batch, values in samples.items()},
    }


def p99(samples: Sequence[float]) -> float:
    """The value that 99 of 100 samples do not exceed."""
    return float(np.quantile(samples, 0.99, method="higher"))


def thin(samples: Sequence[float]) -> list[float]:
    """At most KEPT_SAMPLES of the samples, evenly spread over the run, in milliseconds with 4 digits."""
    step = -(-len(samples) // KEPT_SAMPLES)
    return [round(value, 4) for value in samples[::step]]


def _calls(runner: Runner, table: Table, batch: int) -> list[float]:
    rows = len(next(iter(table.values())))
    feeds = [runner.feed(_turn(table, start * batch, batch, rows)) for start in range(_FEEDS)]
    for number in range(WARM_UP):
        runner.call(feeds[number % _FEEDS])
    samples: list[float] = []
    stop = time.perf_counter() + MAX_SECONDS
    while len(samples) < MAX_CALLS and (before := time.perf_counter()) < stop:
        runner.call(feeds[len(samples) % _FEEDS])
        samples.append((time.perf_counter() - before) * 1000)
    return samples


def _turn(table: Table, start: int, batch: int, rows: int) -> Table:
    picked = np.arange(start, start + batch) % rows
    return {name: values[picked] for name, values in table.items()}
