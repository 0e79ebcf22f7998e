"""The program `score`: an ONNX model that Headgate made before, measured by itself.

Nothing of the model's own format is loaded here: what came with it into `convert` cannot have its say on the numbers.
Inputs: `onnx`, the model's file; the rows' file that `request["rows"]["file"]` names, or `served`, the V2 rows that
`convert` left, where `rows.file` is None. Request: `rows` as for `convert`, with `texts` (columns that slices need) and
`complete` (columns that must have a value), `batches` (sizes to time), `slices` (lists of columns), `nudges`, and
whether to `check` the model's file, with `support` as for `convert`: what `convert` said of it was said beside code
that came with the model.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from . import measure, metrics, noise, onnx_check, slices
from .refusal import Refused
from .rows import Rows, draw
from .runner import load
from .tensors import KINDS, Matrix, Signature, Table


def run(request: dict[str, Any], inputs: Path, _output: Path) -> dict[str, Any]:
    """`{"metrics", "slices", "noise", "latency_ms", "latency_samples_ms", "inputs", "outputs", "rows", ...}`.

    Raises:
        Refused: there are no rows, they do not fit the model, or it fails on them.
    """
    data = (inputs / "onnx").read_bytes()
    if request["check"]:
        onnx_check.check(onnx_check.parse(data), request.get("support"))
    runner = load(data)
    signature = _relaxed(runner.signature())
    rows = draw(request, inputs, signature, lambda: _served(inputs / "served", signature))
    outputs = runner.answers(rows.table)
    labels = rows.labels
    return {
        "metrics": metrics.score(outputs[0], labels) if labels else {},
        "slices": [slices.measure(outputs[0], labels, rows.texts, by) for by in request["slices"] if labels],
        "noise": [noise.measure(runner, rows.table, nudge, request["rows"]["seed"]) for nudge in request["nudges"]],
        **measure.timings(runner, rows.table, request["batches"]),
        **runner.describe(),
        "rows": rows.count,
        "rows_from": rows.source,
        "rows_dropped": rows.dropped,
    }


def _relaxed(signature: Signature) -> Signature:
    """An ONNX model does not say which of its columns may lack values: the request does. Whole numbers never do."""
    if isinstance(signature, Matrix):
        return signature
    return tuple(replace(c, required=c.type not in ("float", "double", "string")) for c in signature)


def _served(file: Path, signature: Signature) -> Rows:
    """The rows of a V2 request.

    Raises:
        Refused: it has none, or they are not what the model takes.
    """
    tensors = {tensor["name"]: tensor for tensor in json.loads(file.read_text())["inputs"]}
    columns = [signature] if isinstance(signature, Matrix) else signature
    try:
        table: Table = {
            column.name: np.array(tensors[column.name]["data"], dtype=KINDS[column.type].dtype).reshape(
                (-1, *column.shape) if isinstance(column, Matrix) else -1
            )
            for column in columns
        }
    except (KeyError, ValueError, TypeError) as error:
        raise Refused("bad-example", f"The rows do not fit the model: {error}", "Log the model again.") from error
    if not len(next(iter(table.values()))):
        remedy = "Log the model with an input example of finite values, or name data in the policy."
        raise Refused("no-rows", "There is no row to measure the model on.", remedy)
    return Rows(table, None, "input example")
