"""Judging a model: measurements and policy in, a verdict with reasons out. The worst gate wins."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from app.domain.measured import Measurements, Noise, Slices
from app.domain.policy import (
    ChampionGate,
    EnvironmentPolicy,
    Gate,
    LatencyGate,
    MetricGate,
    OwnGate,
    Parity,
    RobustnessGate,
    SchemaGate,
    SlicesGate,
)
from app.domain.schema import differences

HIGHER_IS_BETTER = frozenset({"r2", "accuracy", "f1_macro"})
WORST = 1e6
"""Stands for a ratio without a number: JSON has no word for infinity."""


class Rank(IntEnum):
    """How a gate came out; a higher rank is worse. ERROR is "could not measure", never "measured bad", and INCONCLUSIVE
    is "measured, and it proves nothing": then a person has to approve, whatever the policy asks for otherwise."""

    PASS = 0
    INCONCLUSIVE = 1
    ERROR = 2
    FAIL = 3


@dataclass(frozen=True)
class GateResult:
    """One gate's answer: what was measured, against which limit, and a sentence for people."""

    gate: str
    rank: Rank
    measured: float | None
    limit: float | None
    reason: str

    def as_json(self) -> dict[str, Any]:
        """As it is kept with the promotion."""
        return {
            "gate": self.gate,
            "verdict": self.rank.name.lower(),
            "measured": self.measured,
            "limit": self.limit,
            "reason": self.reason,
        }


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


OwnJudge = Callable[[OwnGate, Measurements], GateResult]


def not_here(gate: OwnGate, _measured: Measurements) -> GateResult:
    """The judge of own gates where there are none."""
    return GateResult(f"own {gate.name}", Rank.ERROR, None, None, f"the gate {gate.name} cannot be run here")


def judge(measured: Measurements, policy: EnvironmentPolicy, own: OwnJudge = not_here) -> Verdict:
    """Judge the measurements by the policy's gates; parity is always the first of them, `own` judges own gates."""
    gates = (_judge_gate(gate, measured, own) for gate in policy.gates)
    return Verdict((judge_parity(measured, policy.parity), *gates))


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


def _judge_gate(gate: Gate, measured: Measurements, own: OwnJudge) -> GateResult:
    match gate:
        case MetricGate():
            return _judge_metric(gate, measured.metrics)
        case ChampionGate():
            return _judge_champion(gate, measured)
        case LatencyGate():
            return judge_latency(gate, measured.latency_ms)
        case SlicesGate():
            return _judge_slices(gate, measured)
        case SchemaGate():
            return _judge_schema(measured)
        case RobustnessGate():
            return _judge_robustness(gate, measured.noise)
        case OwnGate():
            return own(gate, measured)


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


def _judge_champion(gate: ChampionGate, measured: Measurements) -> GateResult:
    name, metrics, champion = f"champion {gate.name}", measured.metrics, measured.champion
    if champion is None and measured.live_schema is not None:
        return GateResult(name, Rank.ERROR, None, None, "the live version was not measured")
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


def judge_latency(gate: LatencyGate, latency_ms: Mapping[int, float]) -> GateResult:
    """Judge the p99 of the gate's batch size; `latency_ms` is by batch size."""
    name = f"latency batch {gate.batch}"
    value = latency_ms.get(gate.batch)
    if value is None:
        return GateResult(name, Rank.ERROR, None, gate.p99_ms, f"latency of batch {gate.batch} was not measured")
    rank = Rank.PASS if value <= gate.p99_ms else Rank.FAIL
    relation = "is within" if rank is Rank.PASS else "is above"
    return GateResult(name, rank, value, gate.p99_ms, f"p99 {value:.3g} ms {relation} {gate.p99_ms:g} ms")


def _judge_slices(gate: SlicesGate, measured: Measurements) -> GateResult:
    name = f"slices {gate.name} by {', '.join(gate.by)}"
    whole = measured.metrics.get(gate.name)
    found = next((slices for slices in measured.slices if slices.by == gate.by), None)
    if whole is None or found is None:
        why = "could not be measured: set data.label" if whole is None else "was not measured"
        reason = f"{gate.name} by {', '.join(gate.by)} {why}"
        return GateResult(name, Rank.ERROR, None, gate.max_ratio, reason)
    if found.left_out:
        reason = f"there are {found.left_out} groups too many to measure: choose columns with fewer values"
        return GateResult(name, Rank.ERROR, None, gate.max_ratio, reason)
    return _judge_groups(gate, name, whole, found)


def _judge_groups(gate: SlicesGate, name: str, whole: float, found: Slices) -> GateResult:
    large = [group for group in found.groups if group.rows >= gate.min_rows and gate.name in group.metrics]
    small = f"{len(found.groups) - len(large)} of {len(found.groups)} groups have fewer than {gate.min_rows} rows"
    if not large:
        return GateResult(name, Rank.INCONCLUSIVE, None, gate.max_ratio, f"no group can be judged: {small}")
    worst = max(large, key=lambda group: _ratio(gate.name, group.metrics[gate.name], whole))
    ratio = _ratio(gate.name, worst.metrics[gate.name], whole)
    rank = Rank.PASS if ratio <= gate.max_ratio else Rank.FAIL
    where = f"{' / '.join(worst.key) or '(empty)'}, {worst.rows} rows"
    reason = (
        f"{gate.name} {worst.metrics[gate.name]:.4g} of the worst group ({where}) is {ratio:.3g} times as bad as the "
        f"whole's {whole:.4g} (limit {gate.max_ratio:g}; {small})"
    )
    return GateResult(name, rank, ratio, gate.max_ratio, reason)


def _ratio(metric: str, group: float, whole: float) -> float:
    """How many times as bad as the whole a group is; WORST where there is no number for it."""
    better, worse = (group, whole) if metric in HIGHER_IS_BETTER else (whole, group)
    if worse == better:
        return 1.0
    return min(worse / better, WORST) if better > 0 else WORST


def _judge_schema(measured: Measurements) -> GateResult:
    if measured.schema is None:
        return GateResult("schema", Rank.ERROR, None, None, "the inputs and outputs were not recorded")
    if measured.live_schema is None:
        return GateResult("schema", Rank.PASS, None, None, "nothing is live yet, so nobody relies on a schema")
    found = differences(measured.schema, measured.live_schema)
    if found:
        reason = f"callers of the live version would break: {'; '.join(found)}"
        return GateResult("schema", Rank.FAIL, len(found), 0, reason)
    return GateResult("schema", Rank.PASS, 0, 0, "whoever calls the live version can call this one")


def _judge_robustness(gate: RobustnessGate, measured: Sequence[Noise]) -> GateResult:
    limit = gate.max_change
    noise = next((noise for noise in measured if noise.nudge == gate.nudge), None)
    if noise is None:
        return GateResult("robustness", Rank.ERROR, None, limit, "robustness was not measured")
    if not noise.columns:
        reason = "the model takes no floating-point input that could be nudged"
        return GateResult("robustness", Rank.INCONCLUSIVE, None, limit, reason)
    if noise.not_finite:
        reason = f"{noise.not_finite} of {noise.asked} answers to moved and to extreme inputs are not finite"
        return GateResult("robustness", Rank.FAIL, noise.not_finite, 0, reason)
    if noise.change is None:
        reason = "all predictions are the same, so that a change has no scale"
        return GateResult("robustness", Rank.INCONCLUSIVE, None, limit, reason)
    relation = "moves" if noise.change <= limit else "moves too far:"
    what = f"the average answer {relation} by {noise.change:.3g} of the predictions' spread"
    if noise.classes:
        what = f"{noise.change:.3g} of the answers change their class"
    reason = f"{what} when {noise.columns} inputs move by {gate.nudge:g} of theirs (limit {limit:g})"
    return GateResult("robustness", Rank.PASS if noise.change <= limit else Rank.FAIL, noise.change, limit, reason)
