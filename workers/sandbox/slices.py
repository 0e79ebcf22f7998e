"""How good a model is on groups of rows that share their values in some columns."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from . import metrics
from .tensors import Array

MAX_GROUPS = 500
_SHOWN = 60


def measure(
    predictions: Array, labels: Sequence[str], texts: Mapping[str, Sequence[str]], by: Sequence[str]
) -> dict[str, Any]:
    """`{"by", "groups": [{"key", "rows", "metrics"}], "left_out"}`: the largest MAX_GROUPS groups, largest first, and
    how many there are besides.

    Raises:
        Refused: a label is not a number where one is needed.
    """
    members: dict[tuple[str, ...], list[int]] = {}
    for row, key in enumerate(zip(*(texts[column] for column in by), strict=True)):
        members.setdefault(key, []).append(row)
    largest = sorted(members.items(), key=lambda item: (-len(item[1]), item[0]))[:MAX_GROUPS]
    groups = [_group(key, np.array(rows), predictions, labels) for key, rows in largest]
    return {"by": list(by), "groups": groups, "left_out": len(members) - len(groups)}


def _group(key: Sequence[str], rows: Array, predictions: Array, labels: Sequence[str]) -> dict[str, Any]:
    measured = metrics.score(predictions[rows], [labels[row] for row in rows])
    return {"key": [value[:_SHOWN] for value in key], "rows": len(rows), "metrics": measured}
