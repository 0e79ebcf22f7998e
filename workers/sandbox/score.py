"""The program `score`: an ONNX model that Headgate made before, measured on the very rows of its challenger.

Inputs: `onnx`, the model's file; the CSV file that `request["rows"]["file"]` names. Request: `rows` as for `convert`,
and `batches` (sizes to time, may be empty). Nothing of the model's own format is loaded here.
"""

from pathlib import Path
from typing import Any

from . import measure, metrics
from .rows import draw
from .runner import Runner


def run(request: dict[str, Any], inputs: Path, _output: Path) -> dict[str, Any]:
    """`{"metrics", "latency_ms", "latency_samples_ms", "rows", "rows_from", "rows_dropped", "inputs", "outputs"}`.

    Raises:
        Refused: there are no rows, they do not fit the model, or it fails on them.
    """
    runner = Runner((inputs / "onnx").read_bytes())
    rows = draw(request, inputs, runner.signature())
    outputs = runner.answers(rows.table)
    return {
        "metrics": metrics.score(outputs[0], rows.labels) if rows.labels else {},
        **measure.timings(runner, rows.table, request.get("batches", [])),
        **runner.describe(),
        "rows": rows.count,
        "rows_from": rows.source,
        "rows_dropped": rows.dropped,
    }
