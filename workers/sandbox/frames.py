"""Rows as the model itself knows them: a data frame of the signature's types, or one array."""

from typing import Any

import numpy as np

from .rows import Rows
from .tensors import Array, Column, Matrix, Signature

_NULLABLE = {"integer": "Int32", "long": "Int64", "boolean": "boolean"}


def given(rows: Rows, signature: Signature) -> Any:
    """What the model's `predict` is called with, as MLflow would call it."""
    if isinstance(signature, Matrix):
        return rows.table[signature.name]
    import pandas as pd  # Whatever model takes columns has imported it already.

    return pd.DataFrame({column.name: _column(rows.table[column.name], column) for column in signature})


def matrix(rows: Rows, signature: Signature) -> Array:
    """The same as one array: a matrix as it is, columns side by side as 32-bit numbers."""
    if isinstance(signature, Matrix):
        return rows.table[signature.name]
    return np.column_stack([rows.table[column.name].astype(np.float32) for column in signature])


def _column(values: Array, column: Column) -> Any:
    import pandas as pd

    if column.type == "datetime":
        return values.view("datetime64[ns]")  # its NaT is the smallest whole number
    if not column.may_lack_whole:
        return values
    missing = np.isnan(values)
    kind: Any = _NULLABLE[column.type]
    array = pd.array(np.where(missing, 0, values).astype(column.own_kind.dtype), dtype=kind)
    array[missing] = pd.NA
    return array
