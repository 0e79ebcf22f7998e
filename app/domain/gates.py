"""Judging a model: measurements and policy in, a verdict with reasons out. The worst gate wins."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum

from app.domain.policy import ChampionGate, EnvironmentPolicy, Gate, LatencyGate, MetricGate, Parity

LOWER_IS_BETTER = frozenset({"rmse", "mae", "log_loss"})
HIGHER_IS_BETTER = frozenset({"r2", "accuracy", "f1_macro"})


class Rank(IntEnum):
    """How a gate came out; a higher rank is worse. ERROR is "could not measure", never "measured bad"."""

    PASS = 0
    INCONCLUSIVE = 1
    ERROR = 2
    FAIL = 3


@dataclass(frozen=True)
class Measurements:
    """What the sandbox measured. `metrics` and `champion` map a metric's name to its value on the same rows;
    `latency_ms` maps a batch size to the p99 in milliseconds; `champion` is None where nothing is live yet."""

    rows: int
    wrong_rows: int
    largest_error: float
    metrics: Mapping[str, float] = field(default_factory=dict)
    champion: Mapping[str, float] | None = None
    latency_ms: Mapping[int, float] = field(default_factory=dict)


@dataclass(frozen=True)
class GateResult:
    """One gate's answer: what was measured, against which limit, and a sentence for people."""

    gate: str
    rank: Rank
    measured: float | None
    limit: float | None
    reason: str


@dataclass(frozen=True)
class Verdict:
    """All answers; `rank` is the worst of them."""

    results: tuple[GateResult, ...]

    @property
    def rank(self) -> Rank:
        return max((result.rank for result in self.results), default=Rank.ERROR)

    @property
    def reasons(self) -> tuple[str, ...]:
        return tuple(result.reason for result in self.results if result.rank is not Rank.PASS)


def judge(measured: Measurements, policy: EnvironmentPolicy) -> Verdict:
    """Judge the measurements by the policy's gates; parity is always the first of them."""
    results: Sequence[GateResult] = [judge_parity(measured, policy.parity)]
    return Verdict((*results, *(_judge_gate(gate, measured) for gate in policy.gates)))


def judge_parity(measured: Measurements, parity: Parity) -> GateResult:
    """ONNX must answer like the native model on every row, but for `max_wrong_rows`."""
    limit = parity.max_wrong_rows
    if measured.rows == 0:
        return GateResult("parity", Rank.ERROR, None, limit, "parity could not be measured: there were no rows")
    rank = Rank.PASS if measured.wrong_rows <= limit else Rank.FAIL
    reason = (
        f"{measured.wrong_rows} of {measured.rows} rows differ from the native model "
        f"(largest error {measured.largest_error:.3g}, allowed rows {limit})"
    )
    return GateResult("parity", rank, measured.wrong_rows, limit, reason)


def _judge_gate(gate: Gate, measured: Measurements) -> GateResult:
    match gate:
        case MetricGate():
            return _judge_metric(gate, measured.metrics)
        case ChampionGate():
            return _judge_champion(gate, measured.metrics, measured.champion)
        case LatencyGate():
            return _judge_latency(gate, measured.latency_ms)


def _judge_metric(gate: MetricGate, metrics: Mapping[str, float]) -> GateResult:
    name = f"metric {gate.name}"
    value = metrics.get(gate.name)
    limit = gate.max if gate.max is not None else gate.min
    if value is None:
        return GateResult(name, Rank.ERROR, None, limit, f"{gate.name} could not be measured: set data.label")
    if gate.max is not None and not value <= gate.max:
        return GateResult(name, Rank.FAIL, value, gate.max, f"{gate.name} {value:.4g} is above {gate.max:g}")
    if gate.min is not None and not value >= gate.min:
        return GateResult(name, Rank.FAIL, value, gate.min, f"{gate.name} {value:.4g} is below {gate.min:g}")
    return GateResult(name, Rank.PASS, value, limit, f"{gate.name} {value:.4g} is within its bounds")


def _judge_champion(
    gate: ChampionGate, metrics: Mapping[str, float], champion: Mapping[str, float] | None
) -> GateResult:
    name = f"champion {gate.name}"
    if champion is None:
        return GateResult(name, Rank.PASS, None, None, "nothing is live yet, so there is no champion to beat")
    mine, theirs = metrics.get(gate.name), champion.get(gate.name)
    if mine is None or theirs is None:
        return GateResult(name, Rank.ERROR, mine, theirs, f"{gate.name} could not be measured for both versions")
    slack = abs(theirs) * gate.max_regression
    limit = theirs - slack if gate.name in HIGHER_IS_BETTER else theirs + slack
    good = mine >= limit if gate.name in HIGHER_IS_BETTER else mine <= limit
    relation = "keeps up with" if good else "is worse than"
    reason = f"{gate.name} {mine:.4g} {relation} the live version's {theirs:.4g} (limit {limit:.4g})"
    return GateResult(name, Rank.PASS if good else Rank.FAIL, mine, limit, reason)


def _judge_latency(gate: LatencyGate, latency_ms: Mapping[int, float]) -> GateResult:
    name = f"latency batch {gate.batch}"
    value = latency_ms.get(gate.batch)
    if value is None:
        return GateResult(name, Rank.ERROR, None, gate.p99_ms, f"latency of batch {gate.batch} was not measured")
    rank = Rank.PASS if value <= gate.p99_ms else Rank.FAIL
    relation = "is within" if rank is Rank.PASS else "is above"
    return GateResult(name, rank, value, gate.p99_ms, f"p99 {value:.3g} ms {relation} {gate.p99_ms:g} ms")
