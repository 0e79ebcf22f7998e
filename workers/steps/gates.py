"""GATES: judge the measurements by the policy, beside the live version on the same rows."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from app.domain.errors import Fault, Rejected
from app.domain.gates import GateResult, Measurements, Rank, Verdict, judge
from app.domain.promotion import Done, End, Outcome, State
from app.ports import SandboxJob
from workers.context import Context
from workers.steps.convert import rows_input, rows_request

TIMEOUT = timedelta(minutes=5)


def run(context: Context) -> Outcome:
    """Reject what a gate fails; what could not be measured is a Fault, never a pass."""
    measured = _measurements(context)
    verdict = judge(measured, context.policy)
    evidence = {"results": [_as_json(result) for result in verdict.results], "champion": measured.champion}
    if verdict.rank is Rank.FAIL:
        return End(State.REJECTED, "; ".join(_reasons(verdict, Rank.FAIL)), evidence)
    if verdict.rank is Rank.ERROR:
        raise Fault("; ".join(_reasons(verdict, Rank.ERROR)), "Mend the policy or its data, then `headgate retry`.")
    return Done(evidence)


def _measurements(context: Context) -> Measurements:
    converted = context.step(State.CONVERT)
    chosen = next(rung for rung in converted["rungs"] if rung["name"] == converted["chosen"])
    return Measurements(
        rows=int(chosen["rows"]),
        wrong_rows=int(chosen["wrong_rows"]),
        largest_error=float(chosen["largest_error"]),
        metrics={name: float(value) for name, value in converted["metrics"].items()},
        champion=_champion_metrics(context),
        latency_ms={int(batch): float(value) for batch, value in converted["latency_ms"].items()},
    )


def _champion_metrics(context: Context) -> Mapping[str, float] | None:
    """The live version's metrics on the very rows that the new one is judged on; None where nothing is live."""
    if context.champion is None or not any(gate.kind == "champion" for gate in context.policy.gates):
        return None
    store = context.plant.store
    live = context.champion[State.CONVERT.value]
    inputs = {"onnx": store.file(live["onnx"]), **rows_input(context)}
    request = {"rows": rows_request(context), "inputs": live["inputs"], "batches": []}
    try:
        with context.scratch("champion") as output:
            result = context.plant.sandbox.run(SandboxJob("score", inputs, request, output, TIMEOUT))
    except Rejected as error:
        # The live model is not on trial: if it cannot be measured, the comparison is what failed.
        raise Fault(f"The live version could not be scored: {error.reason}", "See the policy's data.") from error
    if "refused" in result:
        raise Fault(f"The live version could not be scored: {result['refused']['reason']}", "See the policy's data.")
    return {name: float(value) for name, value in result["metrics"].items()}


def _reasons(verdict: Verdict, rank: Rank) -> list[str]:
    return [result.reason for result in verdict.results if result.rank is rank]


def _as_json(result: GateResult) -> dict[str, Any]:
    return {
        "gate": result.gate,
        "verdict": result.rank.name.lower(),
        "measured": result.measured,
        "limit": result.limit,
        "reason": result.reason,
    }
