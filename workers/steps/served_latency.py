"""How fast the release itself answers, over HTTP, and whether that is fast enough for the policy's latency gates."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from app.domain.gates import GateResult, Rank, judge_latency
from app.domain.policy import LatencyGate
from app.ports import Endpoint, ServingClient
from workers.context import Context

CALLS, WARM_UP = 200, 20
WINDOWS = 3
"""A machine that is busy with something else only ever makes a release slower: the best of so many windows counts."""


@dataclass(frozen=True)
class Served:
    """By batch size: the calls of the window that counts, in milliseconds, ascending; and what the gates say of it."""

    samples_ms: Mapping[int, list[float]]
    results: tuple[GateResult, ...]


def measure(context: Context, client: ServingClient, endpoint: Endpoint, rows: Sequence[Mapping[str, Any]]) -> Served:
    """Time calls of one row and of each batch that a latency gate names. `rows` are V2 input tensors with flat data,
    repeated where there are fewer than a batch has."""
    gates = [gate for gate in context.policy.gates if gate.kind == "latency"]
    limits = {gate.batch: min(g.p99_ms for g in gates if g.batch == gate.batch) for gate in gates}
    samples = {}
    for batch in sorted({1, *limits}):
        body = {"inputs": [_of_batch(tensor, batch) for tensor in rows]}
        windows = (_window(client, endpoint, context.model, body) for _ in range(WINDOWS))
        samples[batch] = _best(windows, limits.get(batch))
    return Served(samples, tuple(_judged(gate, samples) for gate in gates))


def p99(samples: Sequence[float]) -> float:
    """The 99th percentile of ascending samples."""
    return samples[int(len(samples) * 0.99)]


def _judged(gate: LatencyGate, samples: Mapping[int, Sequence[float]]) -> GateResult:
    found = judge_latency(gate, {gate.batch: p99(samples[gate.batch])})
    return GateResult(f"served {found.gate}", found.rank, found.measured, found.limit, f"as served, {found.reason}")


def failed(served: Served) -> list[str]:
    """The reasons of the gates that the release fails."""
    return [result.reason for result in served.results if result.rank is Rank.FAIL]


def _best(windows: Iterator[list[float]], limit: float | None) -> list[float]:
    """The first window within the limit, else the fastest of all; the first one where there is no limit."""
    best = next(windows)
    while limit is not None and p99(best) > limit and (window := next(windows, None)) is not None:
        best = min(best, window, key=p99)
    return best


def _window(client: ServingClient, endpoint: Endpoint, model: str, body: Mapping[str, Any]) -> list[float]:
    seconds = []
    for call in range(CALLS + WARM_UP):
        begin = time.perf_counter()
        client.infer(endpoint, model, body)
        if call >= WARM_UP:
            seconds.append(time.perf_counter() - begin)
    return sorted(value * 1000 for value in seconds)


def _of_batch(tensor: Mapping[str, Any], batch: int) -> dict[str, Any]:
    count, data = tensor["shape"][0], tensor["data"]
    width = len(data) // count
    picked = [value for row in range(batch) for value in data[row % count * width : (row % count + 1) * width]]
    return {**tensor, "shape": [batch, *tensor["shape"][1:]], "data": picked}
