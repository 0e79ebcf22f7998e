"""The program `convert`: a logged model becomes an ONNX model that gives the same answers, measured on real rows.

Inputs: `model`, the artifacts as MLflow stores them; the CSV file that `request["rows"]["file"]` names, where it does.
Request: `rows` {file, label, count, seed}, `rtol`, `atol`, `max_wrong_rows`, `model_name`, `support` (what the target's
ONNX Runtime loads, as `onnx_check.check` takes it). How good and how fast the model is, `score` measures later: code
that came with the model must not have its say on that.
Files: `model.onnx`; `rows.json`, V2 inputs and native outputs of at most 500 rows and of those made to hurt;
`parity.json`, pairs to plot.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from . import climb, flavors, onnx_check, served, trial
from .mlmodel import Card, no_signature, read_card
from .parity import compare
from .rows import Rows, draw, from_example
from .runner import load
from .tensors import Array, Matrix, Signature

PLOTTED_PAIRS = 2000


def run(request: dict[str, Any], inputs: Path, output: Path) -> dict[str, Any]:
    """The measurements; `chosen` is None where no rung agrees, and there are no files then.

    Raises:
        Refused: the model is at fault.
    """
    card = read_card(inputs / "model")
    return _as_it_is(card, request, inputs, output) if card.flavor == "onnx" else _ladder(card, request, inputs, output)


def _ladder(card: Card, request: dict[str, Any], inputs: Path, output: Path) -> dict[str, Any]:
    if card.signature is None:
        raise no_signature()
    rows = _rows(card, card.signature, request, inputs)
    native = flavors.load(card, card.signature)
    answers = native.predict(rows)
    demands = climb.Demands(request["rtol"], request["atol"], request["max_wrong_rows"], request.get("support"))
    tried, chosen = climb.climb(native, card.signature, rows, answers, demands, request.get("model_name", "model"))
    result = {
        "flavor": card.flavor,
        "native": native.title,
        "rungs": [attempt.report for attempt in tried],
        "warnings": native.warnings,
        "optional": _optional(card.signature),
        **_about(rows),
    }
    return {**result, "chosen": None} if chosen is None else {**result, **_finish(chosen, answers, rows, output)}


def _as_it_is(card: Card, request: dict[str, Any], inputs: Path, output: Path) -> dict[str, Any]:
    """An ONNX model stays byte for byte what it is; its native runtime is ONNX Runtime, so parity is with itself."""
    data = card.file.read_bytes()
    onnx_check.check(onnx_check.parse(data), request.get("support"))
    runner = load(data)
    runner.describe()  # Refuses outputs that no V2 answer can carry, before they are looked at.
    rows = _rows(card, runner.signature(), request, inputs)
    answers = runner.answers(rows.table)
    comparison = compare(answers, runner.answers(rows.table), request["rtol"], request["atol"])
    zero_rows = trial.zero_rows(runner, rows.table)
    rung = {"name": "as-is", "options": {}, "status": "agrees", **climb.measured(comparison), "zero_rows": zero_rows}
    chosen = climb.Chosen("as-is", data, runner, answers, comparison)
    native = "ONNX Runtime: the model is ONNX already, so there is nothing else to compare it with"
    result = {"flavor": card.flavor, "native": native, "rungs": [rung], "warnings": [], "optional": [], **_about(rows)}
    return {**result, **_finish(chosen, answers, rows, output)}


def _rows(card: Card, signature: Signature, request: dict[str, Any], inputs: Path) -> Rows:
    example = (lambda: from_example(card, signature)) if card.example else None
    return draw(request, inputs, signature, example)


def _about(rows: Rows) -> dict[str, Any]:
    return {"rows": rows.count, "rows_from": rows.source, "rows_dropped": rows.dropped}


def _optional(signature: Signature) -> list[str]:
    """The columns that may lack a value."""
    return [] if isinstance(signature, Matrix) else [column.name for column in signature if not column.required]


def _finish(chosen: climb.Chosen, answers: Sequence[Array], rows: Rows, output: Path) -> dict[str, Any]:
    described = chosen.runner.describe()
    (output / "model.onnx").write_bytes(chosen.model)
    served_rows = served.document(described, rows.table, answers, chosen.questions)
    (output / "rows.json").write_text(json.dumps(served_rows, allow_nan=False))
    _write_pairs(output / "parity.json", described, answers, chosen.outputs)
    return {
        "chosen": chosen.name,
        "opset": onnx_check.default_opset(onnx_check.parse(chosen.model)),
        **described,
    }


def _write_pairs(file: Path, described: dict[str, Any], answers: Sequence[Array], outputs: Sequence[Array]) -> None:
    """Native and ONNX values side by side: of the first numeric output, its last column."""
    at = next((n for n, values in enumerate(answers) if values.dtype.kind == "f"), None)
    pairs: dict[str, Any] = {"output": None, "native": [], "onnx": []}
    if at is not None:
        native, other = (
            values.reshape(len(values), -1)[:PLOTTED_PAIRS, -1].astype(float) for values in (answers[at], outputs[at])
        )
        finite = np.isfinite(native) & np.isfinite(other)
        pairs = {
            "output": described["outputs"][at]["name"],
            "native": native[finite].tolist(),
            "onnx": other[finite].tolist(),
        }
    file.write_text(json.dumps(pairs, allow_nan=False))
