"""Running ONNX models in ONNX Runtime, and what they say of their own inputs and outputs."""

import math
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from .refusal import Refused
from .tensors import Array, Column, Matrix, Signature, Table, kind_of_onnx

# From 1.32 on it starts a thread when imported that reports to its maker, also on Linux.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
import onnxruntime


class Runner:
    """One ONNX model in ONNX Runtime on one CPU thread, fed with tables."""

    def __init__(self, model: bytes) -> None:
        """Raises whatever ONNX Runtime says of a model that it cannot load."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self._ranks = {tensor.name: len(tensor.shape) for tensor in self._session.get_inputs()}

    def feed(self, table: Table) -> Mapping[str, Array]:
        """What to call with for these rows: a column is [n, 1], or [n] where the model takes it so."""
        return {
            name: values if values.ndim > 1 or self._ranks[name] == 1 else values.reshape(-1, 1)
            for name, values in table.items()
        }

    def call(self, feed: Mapping[str, Array]) -> list[Array]:
        """All outputs, in the model's order."""
        outputs: list[Array] = self._session.run(None, dict(feed))
        return outputs

    def run(self, table: Table) -> list[Array]:
        """All outputs for the rows of the table, numbers as [n, k] and labels as [n].

        Raises:
            ValueError: an output's first dimension does not count the rows.
        """
        rows = len(next(iter(table.values())))
        outputs = [np.asarray(values) for values in self.call(self.feed(table))]
        if any(values.ndim == 0 or len(values) != rows for values in outputs):
            raise ValueError(f"the outputs for {rows} rows have the shapes {[values.shape for values in outputs]}")
        # Without any row NumPy cannot tell the width from the size.
        return [
            values.reshape(rows, math.prod(values.shape[1:])) if values.dtype.kind == "f" else values
            for values in outputs
        ]

    def answers(self, table: Table) -> list[Array]:
        """`run`, where a failure is the model's fault.

        Raises:
            Refused: ONNX Runtime fails on the rows.
        """
        try:
            return self.run(table)
        except MemoryError:
            raise
        except Exception as error:
            # ONNX Runtime's errors have no common base.
            reason = f"ONNX Runtime fails on the rows: {' '.join(str(error).split())[:300]}"
            raise Refused(
                "cannot-predict", reason, "Look at the categories and the shapes that the model takes."
            ) from error

    def describe(self) -> dict[str, list[dict[str, Any]]]:
        """`{"inputs", "outputs"}`: lists of `{"name", "datatype", "shape"}`, with -1 for any length.

        Raises:
            Refused: a tensor's type has no word in the V2 protocol here.
        """
        return {
            "inputs": [_described(tensor) for tensor in self._session.get_inputs()],
            "outputs": [_described(tensor) for tensor in self._session.get_outputs()],
        }

    def signature(self) -> Signature:
        """What the model takes, read from itself: columns of shape [n, 1] or [n], or one matrix.

        Raises:
            Refused: it takes anything else.
        """
        tensors = self._session.get_inputs()
        shapes = [tensor.shape for tensor in tensors]
        if all(len(shape) == 1 or (len(shape) == 2 and shape[1] == 1) for shape in shapes):
            return tuple(Column(tensor.name, _word(tensor)) for tensor in tensors)
        inner = shapes[0][1:] if len(tensors) == 1 else []
        if inner and all(isinstance(size, int) and size > 0 for size in inner) and _word(tensors[0]) != "string":
            return Matrix(tensors[0].name, _word(tensors[0]), math.prod(inner), tuple(inner) if len(inner) > 1 else ())
        reason = f"The ONNX model takes tensors of the shapes {shapes}."
        raise Refused(
            "unsupported-input",
            reason,
            "Use one input of shape [None, 1] per column, or one [None, ...] of fixed sizes.",
        )


def load(data: bytes) -> Runner:
    """The model in ONNX Runtime.

    Raises:
        Refused: ONNX Runtime cannot load it.
    """
    try:
        return Runner(data)
    except MemoryError:
        raise
    except Exception as error:
        reason = f"ONNX Runtime cannot load the model: {' '.join(str(error).split())[:300]}"
        raise Refused("invalid-onnx", reason, "Export the model for the operators of ONNX Runtime.") from error


def _word(tensor: Any) -> str:
    word = kind_of_onnx(tensor.type)
    if word is None:
        reason = f"The ONNX tensor {tensor.name!a} has the type {tensor.type}."
        raise Refused("unsupported-type", reason, "Use text, truth values, 32 or 64 bit numbers; no maps (zipmap).")
    return word


def _described(tensor: Any) -> dict[str, Any]:
    column = Column(tensor.name, _word(tensor))
    shape = [size if isinstance(size, int) else -1 for size in tensor.shape]
    return {"name": tensor.name, "datatype": column.kind.v2, "shape": shape}
