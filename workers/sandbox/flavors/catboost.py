"""CatBoost: models as cbm, converted by CatBoost itself, which computes on 32-bit numbers.

What it writes is one matrix in, and for classifiers a list of maps out, which no server carries: both are replaced.
"""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import onnx

from ..frames import given
from ..hurt import Place
from ..mlmodel import Card
from ..refusal import Refused
from ..rows import Rows
from ..tensors import Array, Signature
from . import Way
from .common import (
    IR_VERSION,
    OPSETS,
    answers,
    asking,
    input_name,
    loading,
    rename_input,
    rename_output,
    with_columns,
)

_KINDS = ("CatBoost", "CatBoostRegressor", "CatBoostClassifier", "CatBoostRanker")


def load(card: Card, signature: Signature) -> "Model":
    """The model of the class that MLmodel names.

    Raises:
        Refused: it cannot be loaded here.
    """
    kept: list[str] = []
    with loading(card, kept):
        import catboost

        kind, stored = card.settings.get("model_type", "CatBoost"), card.settings.get("save_format", "cbm")
        if kind not in _KINDS or stored not in ("cbm", "json"):
            reason = f"The model is a {kind!a} stored as {stored!a}."
            raise Refused("unsupported-estimator", reason, f"Supported are {', '.join(_KINDS)}, as cbm or json.")
        model = getattr(catboost, kind)()
        model.load_model(str(card.file), format=stored)
        return Model(model, signature, kept)


class Model:
    """A loaded model of CatBoost."""

    rungs: Sequence[Way] = (Way("catboost", {"arithmetic": "float"}),)

    def __init__(self, model: Any, signature: Signature, warnings: list[str]) -> None:
        self._model, self._signature, self.warnings = model, signature, warnings
        self.title = f"CatBoost, {type(model).__name__}"
        self._classifies = type(model).__name__ == "CatBoostClassifier"

    def predict(self, rows: Rows) -> list[Array]:
        """As `flavors.Model` says."""
        with asking():
            return answers(self._model, given(rows, self._signature), rows.count, self._classifies)

    def thresholds(self) -> Sequence[tuple[Place, float]]:
        """CatBoost tells borders of what it has binned, not what its trees use: its rows are nudged like any."""
        return []

    def convert(self, _rung: Way, name: str) -> bytes:
        """CatBoost's own export behind the signature's columns."""
        if self._model.get_cat_feature_indices() or self._model.get_text_feature_indices():
            raise ValueError("CatBoost writes no ONNX for features that are categories or text: encode them before")
        with TemporaryDirectory() as folder:
            file = Path(folder) / "model.onnx"
            self._model.save_model(str(file), format="onnx", export_parameters={"onnx_graph_name": name})
            model = onnx.load(file)
        rename_input(model.graph, input_name(self._signature))
        _without_maps(model.graph)
        if not any(opset.domain == "" for opset in model.opset_import):
            model.opset_import.append(onnx.helper.make_opsetid("", OPSETS[""]))
        model.ir_version = IR_VERSION
        return with_columns(model, self._signature, "float")


def _without_maps(graph: onnx.GraphProto) -> None:
    """Let the graph give its probabilities as one tensor."""
    maps = [node for node in graph.node if node.op_type == "ZipMap"]
    for node in maps:
        at = next(at for at, output in enumerate(graph.output) if output.name == node.output[0])
        graph.output[at].CopyFrom(onnx.helper.make_tensor_value_info(node.input[0], 1, [None, None]))
        graph.node.remove(node)
        rename_output(graph, at, "probabilities")
