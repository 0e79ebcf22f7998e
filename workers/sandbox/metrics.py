"""How good a model is on labelled rows."""

from collections.abc import Sequence

import numpy as np

from .refusal import Refused
from .tensors import Array


def score(predictions: Array, labels: Sequence[str]) -> dict[str, float]:
    """rmse, mae and r2 where the predictions are floats, else accuracy and f1_macro; labels come as text.

    Raises:
        Refused: a label is not a number where one is needed.
    """
    if predictions.dtype.kind == "f":
        return _regression(predictions.reshape(len(labels), -1)[:, 0].astype(np.float64), _numbers(labels))
    return _classification(predictions.reshape(-1), labels)


def _numbers(labels: Sequence[str]) -> Array:
    try:
        return np.array([float(label) for label in labels])
    except ValueError as error:
        remedy = "Name the column with the numbers that the model predicts as data.label in the policy."
        raise Refused("bad-rows", f"A label is not a number: {error}", remedy) from error


def _regression(predicted: Array, actual: Array) -> dict[str, float]:
    error = predicted - actual
    if not np.isfinite(error).all():
        raise Refused("not-finite", "The model predicts values that are not finite.", "Train it again.")
    spread = float(np.sum((actual - actual.mean()) ** 2))
    metrics = {"rmse": float(np.sqrt(np.mean(error**2))), "mae": float(np.mean(np.abs(error)))}
    # Without any spread in the labels, r2 is not defined.
    return metrics | ({"r2": 1.0 - float(np.sum(error**2)) / spread} if spread > 0 else {})


def _classification(predicted: Array, labels: Sequence[str]) -> dict[str, float]:
    guessed = np.array([_word(value) for value in predicted.tolist()])
    actual = np.array([_word(label) for label in labels])
    scores = []
    for word in np.unique(np.concatenate([guessed, actual])):
        hits = np.count_nonzero((guessed == word) & (actual == word))
        scores.append(2 * hits / (np.count_nonzero(guessed == word) + np.count_nonzero(actual == word)))
    return {"accuracy": float(np.mean(guessed == actual)), "f1_macro": float(np.mean(scores))}


def _word(value: object) -> str:
    """A label as one word, however it was written: 1, 1.0, "1" and true are the same class."""
    text = str(value).strip()
    try:
        number = {"true": 1.0, "false": 0.0}.get(text.lower()) if text.lower() in {"true", "false"} else float(text)
    except ValueError:
        return text
    return f"{number:g}"
