"""The types of columns and tensors, as MLflow, NumPy, ONNX and the V2 protocol name them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]
Table = Mapping[str, Array]
"""Columns by name: one-dimensional arrays of equal length; a matrix input is one two-dimensional array."""


@dataclass(frozen=True)
class Kind:
    """One type: its NumPy dtype, ONNX's `tensor(...)` word, ONNX's TensorProto number, the V2 datatype."""

    dtype: Any
    onnx_name: str
    onnx_number: int
    v2: str


KINDS: Final[Mapping[str, Kind]] = {
    "string": Kind(np.dtype(object), "tensor(string)", 8, "BYTES"),
    "float": Kind(np.dtype(np.float32), "tensor(float)", 1, "FP32"),
    "double": Kind(np.dtype(np.float64), "tensor(double)", 11, "FP64"),
    "integer": Kind(np.dtype(np.int32), "tensor(int32)", 6, "INT32"),
    "long": Kind(np.dtype(np.int64), "tensor(int64)", 7, "INT64"),
    "boolean": Kind(np.dtype(np.bool_), "tensor(bool)", 9, "BOOL"),
    "datetime": Kind(np.dtype(np.int64), "tensor(int64)", 7, "INT64"),
}
"""By the word that MLflow's signatures use."""


_WHOLE = ("integer", "long", "boolean")


@dataclass(frozen=True)
class Column:
    """One input of the model: a column of that name and MLflow type. A required one is never missing.

    V2 has no word for a missing value: whole numbers and truth values that may be missing travel as 64-bit numbers with
    NaN, points in time as nanoseconds since 1970 with the smallest number for a missing one, text as an empty one.
    """

    name: str
    type: str
    required: bool = True

    @property
    def may_lack_whole(self) -> bool:
        """Whether it is of whole numbers or truth values of which some may be missing."""
        return not self.required and self.type in _WHOLE

    @property
    def own_kind(self) -> Kind:
        """The kind of what is not missing."""
        return KINDS[self.type]

    @property
    def kind(self) -> Kind:
        """The kind that it travels as."""
        return KINDS["double"] if self.may_lack_whole else self.own_kind


@dataclass(frozen=True)
class Matrix:
    """The single input of a model that takes one tensor of `width` numbers a row, of one MLflow type: [n, width], or
    [n, *inner] where the model wants more dimensions."""

    name: str
    type: str
    width: int
    inner: tuple[int, ...] = ()

    @property
    def kind(self) -> Kind:
        return KINDS[self.type]

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one row."""
        return self.inner or (self.width,)

    def as_column(self) -> Column:
        """An input of that name and type, for whom the shape does not matter."""
        return Column(self.name, self.type)


Signature = tuple[Column, ...] | Matrix


def kind_of_onnx(onnx_name: str) -> str | None:
    """The MLflow word for ONNX's `tensor(...)`, None where there is none."""
    return next((word for word, kind in KINDS.items() if kind.onnx_name == onnx_name), None)


def v2_tensor(name: str, datatype: str, values: Array) -> dict[str, Any]:
    """A V2 tensor with flat `data`, of which the first dimension counts rows."""
    return {"name": name, "datatype": datatype, "shape": list(values.shape), "data": values.reshape(-1).tolist()}
