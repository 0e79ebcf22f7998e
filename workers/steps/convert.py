"""CONVERT: turn the model into ONNX in the sandbox; the first rung of the ladder that agrees on real rows wins."""

from collections.abc import Mapping
from datetime import timedelta
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from app.domain.onnx_support import Support, of_image, of_runtime
from app.domain.promotion import Done, End, Outcome, State
from app.ports import SandboxJob
from workers.context import Context

TIMEOUT = timedelta(minutes=10)
SEED = 20240229
INPUT_EXAMPLE_ROWS = 5000


def run(context: Context) -> Outcome:
    """Reject a model that the sandbox refuses, or that no rung converts without changing its numbers. Judging rows that
    it cannot be judged on are not its fault: then the promotion fails, at once, for a later try finds the same rows."""
    parity = context.policy.parity
    inputs = {"model": context.plant.store.tree(context.step(State.SNAPSHOT)["tree"]), **rows_input(context)}
    request = {
        "rows": rows_request(context),
        "rtol": parity.rtol,
        "atol": parity.atol,
        "max_wrong_rows": parity.max_wrong_rows,
        "batches": batches(context),
        "support": support(context).as_json(),
    }
    with context.scratch("convert") as output:
        result = dict(context.plant.sandbox.run(SandboxJob("convert", inputs, request, output, TIMEOUT)))
        return _judged(result, context, output)


def _judged(result: Mapping[str, Any], context: Context, output: Path) -> Outcome:
    refused = result.get("refused")
    if refused and refused.get("code") in _POLICYS_FAULT:
        field = f"environments.{context.environment}.data"
        remedy = f"Mend {field} in the policy of {context.model}, then `headgate retry`."
        return End(State.FAILED, f"{field}: {refused['reason']} {remedy}", {"refused": refused, "field": field})
    if refused:
        return End(State.REJECTED, f"{refused['reason']} {refused.get('remedy', '')}".strip(), {"refused": refused})
    if result.get("chosen") is None:
        return End(State.REJECTED, _no_rung(result), result)
    files = {name: context.plant.store.put_file(output / file) for name, file in _FILES.items()}
    return Done({**result, **files})


_POLICYS_FAULT = frozenset({"missing-columns", "bad-rows", "no-judging-rows"})
_FILES = {"onnx": "model.onnx", "served_rows": "rows.json", "parity_pairs": "parity.json"}


def _no_rung(result: Mapping[str, Any]) -> str:
    tried = "; ".join(
        f"{rung['name']}: {rung.get('error') or str(rung['wrong_rows']) + ' of ' + str(rung['rows']) + ' rows differ'}"
        for rung in result["rungs"]
    )
    return f"No conversion to ONNX gives the model's own numbers ({tried}). Use an estimator that converts exactly."


def rows_input(context: Context) -> dict[str, Path]:
    """The judging rows as a sandbox input; none where the input example serves."""
    data = context.step(State.SNAPSHOT).get("data")
    return {"rows": context.plant.store.file(data)} if data else {}


def rows_request(context: Context) -> dict[str, Any]:
    """Which rows every program draws: the same ones for the same policy, whatever the model."""
    data = context.policy.data
    if data is None:
        return {"file": None, "label": None, "count": INPUT_EXAMPLE_ROWS, "seed": SEED}
    return {"file": "rows", "label": data.label, "count": data.rows, "seed": SEED}


def support(context: Context) -> Support:
    """What the ONNX Runtime of the target loads. Apart from NVIDIA's images every target has the one that is here."""
    target = context.policy.target
    in_image = (target.kind or context.plant.default_target) == "docker"
    image = context.plant.base_images.get(target.instance, "") if in_image else ""
    return of_image(image) or of_runtime(_installed_runtime())


def _installed_runtime() -> str:
    try:
        return version("onnxruntime")
    except PackageNotFoundError:
        return version("onnxruntime-gpu")  # the extra `gpu` takes its place


def batches(context: Context) -> list[int]:
    """The batch sizes whose latency the policy asks about."""
    return sorted({1, *(gate.batch for gate in context.policy.gates if gate.kind == "latency")})
