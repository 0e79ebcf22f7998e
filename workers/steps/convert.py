"""CONVERT: turn the model into ONNX in the sandbox; the first rung of the ladder that agrees on real rows wins."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from app.domain.errors import Rejected
from app.domain.promotion import Done, End, Outcome, State, Wait
from app.ports import SandboxJob
from workers.context import Context
from workers.steps import converted, environment, support
from workers.steps.rows import refused_end, rows_input, rows_request

TIMEOUT = timedelta(minutes=10)


def run(context: Context) -> Outcome:
    """Reject a model that the sandbox refuses, or that no rung converts without changing its numbers."""
    loading = environment.of_model(context)
    if isinstance(loading, Wait):
        return loading
    parity = context.policy.parity
    inputs = {"model": context.plant.store.tree(context.step(State.SNAPSHOT)["tree"]), **rows_input(context)}
    request = {
        "rows": rows_request(context),
        "rtol": parity.rtol,
        "atol": parity.atol,
        "max_wrong_rows": parity.max_wrong_rows,
        "support": support.of_target(context).as_json(),
    }
    with context.scratch("convert") as output:
        job = SandboxJob("convert", inputs, request, output, TIMEOUT, environment=loading.folder)
        answer = context.plant.sandbox.run(job)
        converted.check(answer)
        return _judged({**answer, "environment": dict(loading.evidence)}, context, output)


def _judged(result: Mapping[str, Any], context: Context, output: Path) -> Outcome:
    refused = result.get("refused")
    if refused is not None:
        end = refused_end(context, refused)
        return replace(end, evidence={**end.evidence, "environment": result["environment"]})
    if result.get("chosen") is None:
        return End(State.REJECTED, _no_rung(result), result)
    for file in _FILES.values():
        if not (output / file).is_file():
            raise Rejected(
                f"The conversion left no {file}.", "Log the model again; look at what runs when it is loaded."
            )
    converted.check_rows(output / "rows.json")
    files = {name: context.plant.store.put_file(output / file) for name, file in _FILES.items()}
    return Done({**result, **files, "sandbox": context.plant.sandbox.layer()})


_FILES = {"onnx": "model.onnx", "served_rows": "rows.json", "parity_pairs": "parity.json"}


def _no_rung(result: Mapping[str, Any]) -> str:
    tried = "; ".join(
        f"{rung['name']}: {rung.get('error') or str(rung['wrong_rows']) + ' of ' + str(rung['rows']) + ' rows differ'}"
        for rung in result["rungs"]
    )
    return f"No conversion to ONNX gives the model's own numbers ({tried}). Use an estimator that converts exactly."
