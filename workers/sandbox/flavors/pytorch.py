"""PyTorch: modules that MLflow exported (`model.pt2`, its default) or pickled (`model.pth`, of `torch.nn` alone).

As under MLflow, a data frame becomes one matrix of 32-bit numbers and an array is given as it is; the module answers
with one tensor. TorchScript is code of its own format and is not taken.
"""

from collections.abc import Sequence
from io import BytesIO
from typing import Any

import numpy as np
import onnx

from ..frames import matrix
from ..hurt import Place
from ..mlmodel import Card
from ..refusal import Refused
from ..rows import Rows
from ..tensors import Array, Matrix, Signature
from . import Way
from .common import asking, input_name, loading, values, with_columns

DYNAMO, TRACED = Way("export", {"exporter": "torch.export"}), Way("trace", {"exporter": "TorchScript"})
_OPSET = 18


def load(card: Card, signature: Signature) -> "Module":
    """The module, ready to predict.

    Raises:
        Refused: it cannot be loaded here, or is no module.
    """
    kept: list[str] = []
    with loading(card, kept):
        import torch

        torch.set_num_threads(1)
        if card.file.suffix == ".pt2":
            return Module(torch.export.load(card.file).module(), signature, kept, "torch.export", (DYNAMO,))
        # The import list of SCAN has let it through, and what it makes stays in this sandbox.
        module = torch.load(card.file, map_location="cpu", weights_only=False)
        if not isinstance(module, torch.nn.Module) or isinstance(module, torch.jit.ScriptModule):
            reason = f"The model is a {type(module).__name__}, which is no module of torch.nn."
            raise Refused(
                "unsupported-estimator", reason, "Log the module itself, exported (serialization_format pt2)."
            )
        return Module(module.eval(), signature, kept, "pickled", (DYNAMO, TRACED))


class Module:
    """A loaded module of PyTorch."""

    def __init__(self, module: Any, signature: Signature, warnings: list[str], how: str, rungs: Sequence[Way]) -> None:
        self._module, self._signature, self.warnings, self.rungs = module, signature, warnings, rungs
        self.title = f"PyTorch, {how}"

    def predict(self, rows: Rows) -> list[Array]:
        """As `flavors.Model` says; whole numbers are labels."""
        import torch

        with asking(), torch.no_grad():
            answer = self._module(torch.from_numpy(np.ascontiguousarray(matrix(rows, self._signature))))
            if not isinstance(answer, torch.Tensor):
                reason = f"The module answers with a {type(answer).__name__}, not with one tensor."
                raise Refused("unsupported-estimator", reason, "Wrap it in a module that returns one tensor.")
            array = answer.numpy()
            if array.ndim == 0 or len(array) != rows.count:
                reason = f"The module's answer to {rows.count} rows has the shape {array.shape}."
                raise Refused("unsupported-estimator", reason, "Let its first dimension count the rows.")
            return [array.astype(np.int64) if array.dtype.kind in "biu" else values(array, rows.count)]

    def thresholds(self) -> Sequence[tuple[Place, float]]:
        """A network does not branch."""
        return []

    def convert(self, rung: Way, name: str) -> bytes:
        """By torch.onnx, the batch left free."""
        import torch

        wanted, exporter = input_name(self._signature), {"dynamo": rung is DYNAMO}
        kept = BytesIO()
        example = (torch.from_numpy(self._example()),)
        if rung is DYNAMO:
            batch = {0: torch.export.Dim.DYNAMIC}
            program = torch.onnx.export(
                self._module,
                example,
                dynamic_shapes=(batch,),
                input_names=[wanted],
                output_names=["output"],
                opset_version=_OPSET,
                external_data=False,
                verbose=False,
                **exporter,
            )
            model = program.model_proto
        else:
            free = {wanted: {0: "n"}, "output": {0: "n"}}
            torch.onnx.export(
                self._module,
                example,
                kept,
                dynamic_axes=free,
                input_names=[wanted],
                output_names=["output"],
                **exporter,
            )
            model = onnx.load_from_string(kept.getvalue())
        model.graph.name = name
        del model.metadata_props[:]
        _without_traces(model.graph)
        arithmetic = self._signature.type if isinstance(self._signature, Matrix) else "float"
        return with_columns(model, self._signature, arithmetic)

    def _example(self) -> Array:
        """Two rows: a batch of one would be taken for a fixed size."""
        if isinstance(self._signature, Matrix):
            return np.zeros((2, *self._signature.shape), dtype=self._signature.kind.dtype)
        return np.zeros((2, len(self._signature)), dtype=np.float32)


def _without_traces(graph: onnx.GraphProto) -> None:
    """Drop what the exporter writes down of this machine: places in files, and names that differ from run to run."""
    del graph.metadata_props[:]
    for node in (*graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer):
        del node.metadata_props[:]
        node.doc_string = ""
