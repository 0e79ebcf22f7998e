"""The rows that the served release is asked later, with the native answers: a V2 request in JSON."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from .tensors import Array, Table, v2_tensor
from .trial import Question

ROWS = 500
ROWS_A_KIND = 256


def document(
    described: dict[str, Any], table: Table, answers: Sequence[Array], questions: Sequence[Question]
) -> dict[str, Any]:
    """The first real rows as `inputs` and `outputs`, and `hurting`: the same of each kind, with `left_out`, the number
    of its rows that JSON has no word for (not finite)."""
    picked = np.flatnonzero(_carried(table, answers))[:ROWS]
    hurting = [_kind(described, question) for question in questions if question.rows]
    return {**_tensors(described, table, answers, picked), "hurting": hurting}


def _kind(described: dict[str, Any], question: Question) -> dict[str, Any]:
    carried = _carried(question.hurting.table, question.answers)
    places = np.flatnonzero(carried)
    picked = places[np.linspace(0, len(places) - 1, min(len(places), ROWS_A_KIND)).astype(int)]
    return {
        "kind": question.hurting.kind,
        "decides": question.hurting.decides,
        **_tensors(described, question.hurting.table, question.answers, picked),
        "left_out": int(np.count_nonzero(~carried)),
    }


def _carried(table: Table, answers: Sequence[Array]) -> Array:
    """Which rows JSON can carry, and 32 bits the answers to them."""
    finite = np.ones(len(answers[0]), dtype=bool)
    for values in (*table.values(), *answers):
        if values.dtype.kind == "f":
            finite &= np.isfinite(values).reshape(len(values), -1).all(axis=1)
    for values in answers:
        if values.dtype.kind == "f":
            with np.errstate(invalid="ignore"):
                finite &= (np.abs(values) <= np.finfo(np.float32).max).reshape(len(values), -1).all(axis=1)
    return finite


def _tensors(described: dict[str, Any], table: Table, answers: Sequence[Array], picked: Array) -> dict[str, Any]:
    return {
        "inputs": [_v2(tensor, table[tensor["name"]][picked]) for tensor in described["inputs"]],
        "outputs": [_v2(tensor, values[picked]) for tensor, values in zip(described["outputs"], answers, strict=True)],
    }


def _v2(tensor: dict[str, Any], values: Array) -> dict[str, Any]:
    """Values in the rank that the model gives or takes them in."""
    if len(tensor["shape"]) > 2:
        values = values.reshape(len(values), *tensor["shape"][1:])
    elif len(tensor["shape"]) == 1:
        values = values.reshape(len(values))
    elif values.ndim == 1:
        values = values[:, np.newaxis]
    return v2_tensor(tensor["name"], tensor["datatype"], values)
