"""The model as it was trained: loaded in its own format and asked in its own way."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .frames import given
from .mlmodel import Card
from .refusal import Refused
from .rows import Rows
from .tensors import Array, Signature

_TRUSTED = ("sklearn.", "numpy.", "scipy.", "builtins.", "collections.", "xgboost.", "lightgbm.")
_PICKLES = ("pickle", "cloudpickle")


class Native:
    """A scikit-learn estimator that predicts numbers or classes."""

    def __init__(self, card: Card, signature: Signature) -> None:
        """Load it.

        Raises:
            Refused: it cannot be loaded here, or is neither a regressor nor a classifier.
        """
        self._signature = signature
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            self.estimator = _load(card)
        self.warnings = [str(warning.message).splitlines()[0][:300] for warning in caught[:5]]
        self.is_classifier = _is_a("classifier", self.estimator)
        if not (self.is_classifier or _is_a("regressor", self.estimator)):
            name = type(self.estimator).__name__
            reason = f"The model is a {name}, which is neither a regressor nor a classifier."
            raise Refused("unsupported-estimator", reason, "Promote the estimator that makes the predictions.")
        self.has_probabilities = self.is_classifier and hasattr(self.estimator, "predict_proba")

    def predict(self, rows: Rows) -> list[Array]:
        """Regression: [values [n, k]]. Classification: [labels [n]] and, where it has them, probabilities [n, k];
        with m targets labels are [n, m] and the probabilities of all of them stand side by side.

        Raises:
            Refused: the estimator fails on the rows.
        """
        given = self._given(rows)
        try:
            first = np.asarray(self.estimator.predict(given))
            if not self.is_classifier:
                return [first.astype(np.float64).reshape(rows.count, -1)]
            probabilities = [_side_by_side(self.estimator.predict_proba(given))] if self.has_probabilities else []
        except MemoryError:
            raise
        except Exception as error:
            raise Refused("cannot-predict", f"The model fails on the rows: {_said(error)}", _TRY_IT) from error
        return [_labels(first), *probabilities]

    def _given(self, rows: Rows) -> Any:
        return given(rows, self._signature)


_TRY_IT = "Load the logged model where it was trained and predict with rows of its signature."


def _is_a(role: str, estimator: Any) -> bool:
    from sklearn.base import is_classifier, is_regressor

    test = is_classifier if role == "classifier" else is_regressor
    return hasattr(estimator, "predict") and bool(test(estimator))


def _load(card: Card) -> Any:
    try:
        return unpickled(card)
    except (MemoryError, Refused):
        raise
    except ModuleNotFoundError as error:
        reason = f"The model needs the Python package {error.name!a}, which the sandbox does not have."
        raise Refused("cannot-load", reason, "Use estimators of scikit-learn without code of your own.") from error
    except Exception as error:
        reason = f"The model cannot be loaded: {_said(error)}"
        remedy = f"It was trained with scikit-learn {card.trained_with or 'of an unknown version'}; log it again."
        raise Refused("cannot-load", reason, remedy) from error


def unpickled(card: Card) -> Any:
    """What a file of skops, pickle or cloudpickle holds.

    Raises:
        Refused: it is of neither format, or of types that are nobody's here; and whatever unpickling raises.
    """
    return _load_skops(card.file) if card.serialization == "skops" else _load_pickle(card)


def _load_pickle(card: Card) -> Any:
    if card.serialization not in _PICKLES:
        reason = f"The model is serialised as {card.serialization!a}."
        raise Refused("unsupported-flavor", reason, f"Supported are skops, {' and '.join(_PICKLES)}.")
    import pickle

    with card.file.open("rb") as stream:
        return pickle.load(stream)  # noqa: S301 - the same


def _load_skops(file: Path) -> Any:
    import skops.io

    # What the model itself asks to be trusted counts for nothing: scikit-learn's own private types do.
    untrusted = skops.io.get_untrusted_types(file=file)
    strange = [name for name in untrusted if not name.startswith(_TRUSTED)]
    if strange:
        reason = f"The model is made of types that no supported library has: {', '.join(map(ascii, strange[:5]))}."
        raise Refused("untrusted-types", reason, "Use estimators of scikit-learn without code of your own.")
    return skops.io.load(file, trusted=untrusted)


def _side_by_side(probabilities: Any) -> Array:
    """scikit-learn gives a list with one matrix a target where there are several."""
    matrices = probabilities if isinstance(probabilities, list) else [probabilities]
    return np.hstack([np.asarray(matrix, dtype=np.float64) for matrix in matrices])


def _labels(values: Array) -> Array:
    """Class labels as ONNX gives them: text, or whole numbers."""
    if values.dtype.kind in "OUS":
        return np.array([str(value) for value in values.ravel().tolist()], dtype=object).reshape(values.shape)
    return values.astype(np.int64)


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip()[:300]}"


def drop_missing(outputs: Sequence[Array], rows: Array) -> list[Array]:
    """The flagged rows of all outputs."""
    return [values[rows] for values in outputs]
