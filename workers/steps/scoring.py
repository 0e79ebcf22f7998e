"""Measuring a release and the live one, each by itself in a sandbox that never sees what the model came as."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from app.domain.errors import Fault, Rejected
from app.domain.measured import Measurements, Noise, Schema, Slices, Tensor
from app.domain.promotion import State
from app.ports import SandboxJob
from workers.context import Context
from workers.steps import support
from workers.steps.converted import check_refused
from workers.steps.rows import rows_input, rows_request

TIMEOUT = timedelta(minutes=5)


@dataclass(frozen=True)
class Scored:
    """What the program `score` says, as far as it is used."""

    metrics: Mapping[str, float]
    slices: tuple[Slices, ...]
    noise: tuple[Noise, ...]
    latency_ms: Mapping[int, float]
    latency_samples_ms: Mapping[int, tuple[float, ...]]
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]


@dataclass(frozen=True)
class Refused:
    """The program measured nothing: `words` has its code, reason and remedy."""

    words: Mapping[str, Any]


_SCORED = TypeAdapter(Scored)


def score(context: Context) -> Scored | Refused:
    """The new release on all that the policy asks about.

    Raises:
        Rejected: the sandbox was broken, or what came out of it makes no sense.
    """
    gates = context.policy.gates
    more = {
        "check": True,
        "support": support.of_target(context).as_json(),
        "batches": sorted({1, *(gate.batch for gate in gates if gate.kind == "latency")}),
        "slices": sorted({gate.by for gate in gates if gate.kind == "slices"}),
        "nudges": sorted({gate.nudge for gate in gates if gate.kind == "robustness"}),
    }
    converted = context.step(State.CONVERT)
    store = context.plant.store
    inputs = {"onnx": store.file(converted["onnx"]), "served": store.file(converted["served_rows"])}
    return _run(context, "score", inputs, more)


def champion_metrics(context: Context) -> Mapping[str, float] | None:
    """The live version's metrics on the very rows that the new one is judged on; None where nothing is live, and
    nothing in them where there are no labelled rows.

    Raises:
        Fault: it could not be measured.
    """
    if context.champion is None or not any(gate.kind == "champion" for gate in context.policy.gates):
        return None
    if context.policy.data is None:
        return {}
    inputs = {"onnx": context.plant.store.file(context.champion[State.CONVERT.value]["onnx"])}
    nothing: dict[str, Any] = {"check": False, "batches": [], "slices": [], "nudges": []}
    try:
        found = _run(context, "champion", inputs, nothing)
    except Rejected as error:
        # The live model is not on trial: if it cannot be measured, the comparison is what failed.
        raise Fault(f"The live version could not be scored: {error.reason}", "See the policy's data.") from error
    if isinstance(found, Refused):
        raise Fault(f"The live version could not be scored: {found.words['reason']}", "See the policy's data.")
    return found.metrics


def _run(context: Context, what: str, inputs: Mapping[str, Path], more: Mapping[str, Any]) -> Scored | Refused:
    texts = sorted({column for by in more["slices"] for column in by})
    rows = {**rows_request(context), "texts": texts, "complete": _complete(context)}
    job_inputs = {**inputs, **rows_input(context)}
    with context.scratch(what) as output:
        result = context.plant.sandbox.run(SandboxJob("score", job_inputs, {**more, "rows": rows}, output, TIMEOUT))
    if "refused" in result:
        check_refused(result["refused"])
        return Refused(result["refused"])
    try:
        return _SCORED.validate_python(dict(result))
    except ValidationError as error:
        where = ".".join(str(part) for part in error.errors()[0]["loc"])
        raise Rejected(f"The sandboxed score left a result that makes no sense at {where}.") from error


def _complete(context: Context) -> list[str]:
    """The numeric columns that the new version or the live one cannot do without: both are judged on the same rows."""
    found = {name for evidence in (context.evidence, context.champion or {}) for name in _needed(evidence)}
    return sorted(found)


def _needed(evidence: Mapping[str, Mapping[str, Any]]) -> set[str]:
    converted = evidence.get(State.CONVERT.value, {})
    numbers = {tensor["name"] for tensor in converted.get("inputs", ()) if tensor["datatype"] != "BYTES"}
    return numbers - set(converted.get("optional", ()))


def measurements(context: Context, scored: Scored) -> Measurements:
    """All that the gates judge."""
    converted = context.step(State.CONVERT)
    chosen = next(rung for rung in converted["rungs"] if rung["name"] == converted["chosen"])
    return Measurements(
        rows=int(chosen["rows"]),
        wrong_rows=int(chosen["wrong_rows"]),
        largest_error=float(chosen["largest_error"]),
        metrics=scored.metrics,
        champion=champion_metrics(context),
        latency_ms=scored.latency_ms,
        slices=scored.slices,
        noise=scored.noise,
        schema=Schema(scored.inputs, scored.outputs),
        live_schema=_live_schema(context),
    )


def _live_schema(context: Context) -> Schema | None:
    if context.champion is None:
        return None
    live = context.champion[State.CONVERT.value]
    inputs, outputs = (
        tuple(Tensor(t["name"], t["datatype"], tuple(t["shape"])) for t in live[role]) for role in ("inputs", "outputs")
    )
    return Schema(inputs, outputs)
