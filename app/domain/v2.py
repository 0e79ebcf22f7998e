"""Comparing answers of the Open Inference Protocol (V2) row by row."""

import math
from collections.abc import Mapping, Sequence
from typing import Any


def wrong_rows(
    expected: Sequence[Mapping[str, Any]], served: Sequence[Mapping[str, Any]], rtol: float, atol: float
) -> tuple[int, float]:
    """Compare V2 output tensors, of which the first dimension counts rows and `data` is flat.

    A row is wrong where any of its values lies off by more than atol + rtol * |expected|, or a label differs.
    Returns how many rows are wrong and the largest error; a missing or misshaped output makes every row wrong.
    """
    rows = int(expected[0]["shape"][0]) if expected else 0
    by_name = {tensor["name"]: tensor for tensor in served}
    wrong: set[int] = set()
    largest = 0.0
    for tensor in expected:
        other = by_name.get(tensor["name"])
        if other is None or len(other["data"]) != len(tensor["data"]):
            return rows, math.inf
        width = max(1, len(tensor["data"]) // rows) if rows else 1
        for index, (want, got) in enumerate(zip(tensor["data"], other["data"], strict=True)):
            error = _error(want, got)
            largest = max(largest, error)
            if error > atol + rtol * (abs(want) if isinstance(want, int | float) else 0.0):
                wrong.add(index // width)
    return len(wrong), largest


def _error(want: Any, got: Any) -> float:
    if isinstance(want, str | bool) or isinstance(got, str | bool) or want is None or got is None:
        return 0.0 if want == got else math.inf
    if math.isnan(want) or math.isnan(got):
        return 0.0 if math.isnan(want) and math.isnan(got) else math.inf
    return abs(float(want) - float(got))
