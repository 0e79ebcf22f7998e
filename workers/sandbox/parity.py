"""Comparing two sets of answers row by row."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .tensors import Array

NOT_COMPARABLE = 1e308
"""Stands for an error without a size (a NaN on one side, another label): JSON has no word for infinity."""


@dataclass(frozen=True)
class Comparison:
    """`wrong` flags rows of which any value is off; `largest_error` is absolute, over all numeric values;
    `changed_decisions` counts rows of which a label differs."""

    wrong: Array
    largest_error: float
    changed_decisions: int = 0

    @property
    def rows(self) -> int:
        return len(self.wrong)

    @property
    def wrong_rows(self) -> int:
        return int(np.count_nonzero(self.wrong))


def compare(native: Sequence[Array], other: Sequence[Array], rtol: float, atol: float) -> Comparison:
    """Compare outputs of which the first dimension counts rows: |other - native| <= atol + rtol * |native|.

    Labels (text, whole numbers, truth values) must be equal. NaN equals NaN and nothing else.

    Raises:
        ValueError: the outputs differ in number or shape.
    """
    if len(native) != len(other) or not native:
        raise ValueError(f"{len(native)} native outputs stand against {len(other)}")
    wrong, largest = np.zeros(len(native[0]), dtype=bool), 0.0
    changed = np.zeros(len(native[0]), dtype=bool)
    for want, got in zip(native, other, strict=True):
        if want.shape != got.shape:
            raise ValueError(f"the native output has the shape {want.shape}, the other {got.shape}")
        flags, error = _compare_one(want, got, rtol, atol)
        rows = flags.reshape(len(want), -1).any(axis=1) if len(want) else flags.reshape(0)
        wrong |= rows
        changed |= rows & (want.dtype.kind not in "f")
        largest = max(largest, error)
    return Comparison(wrong, largest, int(np.count_nonzero(changed)))


def overflows(native: Sequence[Array]) -> Array:
    """Which rows have an answer that is finite and too large for 32 bits, in which ONNX models answer."""
    too_large = np.zeros(len(native[0]), dtype=bool)
    for values in native:
        if values.dtype.kind == "f":
            with np.errstate(invalid="ignore"):
                beyond = np.isfinite(values) & (np.abs(values) > np.finfo(np.float32).max)
            too_large |= beyond.reshape(len(values), -1).any(axis=1) if len(values) else False
    return too_large


def _compare_one(want: Array, got: Array, rtol: float, atol: float) -> tuple[Array, float]:
    if want.dtype.kind not in "f":
        differs = np.asarray(want != got)
        return differs, NOT_COMPARABLE if differs.any() else 0.0
    a, b = got.astype(np.float64), want.astype(np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        error = np.abs(a - b)
    error[(np.isnan(a) & np.isnan(b)) | (a == b)] = 0.0
    error[~np.isfinite(error)] = NOT_COMPARABLE
    with np.errstate(invalid="ignore", over="ignore"):
        allowed = atol + rtol * np.abs(b)
    allowed[~np.isfinite(allowed)] = 0.0
    return error > allowed, float(error.max(initial=0.0))
