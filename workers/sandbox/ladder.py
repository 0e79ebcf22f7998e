"""The ladder of conversions to ONNX: the plain one first, then the known repairs, each measured on real rows.

A conversion that succeeds may still answer otherwise than the model: scikit-learn computes in 64 bits where columns are
doubles or whole numbers and in 32 bits where they are floats, and a tree turns the last digit into another branch.
Whatever a rung computes in, the ONNX model takes each column by its own name and in the signature's own type.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import onnx

from . import converters
from .native import Native
from .surgery import GATHERED, concatenate, flatten_label, restore_inputs
from .tensors import Column, Matrix, Signature


@dataclass(frozen=True)
class Rung:
    """One way to convert. `arithmetic` is what numbers are computed in; `division` is skl2onnx's option for
    StandardScaler; `cast` hands the last estimator 32-bit numbers, as scikit-learn's trees do themselves."""

    name: str
    arithmetic: Literal["float", "double"] = "float"
    division: Literal["div", "div_cast"] | None = None
    cast: bool = False

    @property
    def options(self) -> dict[str, Any]:
        """What reports say of it."""
        return {"arithmetic": self.arithmetic, "division": self.division or "default", "cast": self.cast}


RUNGS: Sequence[Rung] = (
    Rung("default"),
    Rung("float-division", division="div"),
    Rung("double-division", division="div_cast"),
    Rung("double", arithmetic="double"),
    Rung("double-then-float", arithmetic="double", cast=True),
)
"""In the order of trying: first what changes least against skl2onnx's default."""


_TALL_LABELS = frozenset({"OneVsOneClassifier", "QuadraticDiscriminantAnalysis"})
"""skl2onnx gives their labels as a matrix."""


def convert(native: Native, signature: Signature, rung: Rung, name: str) -> bytes:
    """The model as ONNX; the same arguments give the same bytes.

    Raises whatever skl2onnx raises where it cannot convert the model in this way.
    """
    from sklearn.preprocessing import StandardScaler

    estimator = _with_cast(native.estimator) if rung.cast else native.estimator
    options: dict[Any, Any] = {StandardScaler: {"div": rung.division}} if rung.division else {}
    if native.is_classifier:
        options[id(_last(estimator))] = _classifier_options(_last(estimator))
    model = _skl2onnx(estimator, name, signature, rung, options)
    if native.is_classifier and not native.has_probabilities:
        del model.graph.output[1:]
    concatenate(model.graph)
    if type(_last(estimator)).__name__ in _TALL_LABELS:
        flatten_label(model.graph)
    columns = [signature.as_column()] if isinstance(signature, Matrix) else signature
    restore_inputs(model.graph, columns, rung.arithmetic)
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def _skl2onnx(estimator: Any, name: str, signature: Signature, rung: Rung, options: dict[Any, Any]) -> onnx.ModelProto:
    """Convert column by column, which a ColumnTransformer needs; else on all columns side by side, as the rest does."""
    from skl2onnx import convert_sklearn
    from skl2onnx.common.utils import InvalidInputLengthException

    converters.register()
    logging.getLogger("skl2onnx").setLevel(logging.ERROR)
    with _whole_numbers_only():
        try:
            model: onnx.ModelProto = convert_sklearn(estimator, name, _by_column(signature, rung), options=options)
        except InvalidInputLengthException:
            if isinstance(signature, Matrix) or len({column.type == "string" for column in signature}) != 1:
                raise
            model = convert_sklearn(estimator, name, _side_by_side(signature, rung), options=options)
    return model


def _tensor_type(rung: Rung, is_text: bool) -> Any:
    from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType, StringTensorType

    if is_text:
        return StringTensorType
    return DoubleTensorType if rung.arithmetic == "double" else FloatTensorType


def _by_column(signature: Signature, rung: Rung) -> list[tuple[str, Any]]:
    if isinstance(signature, Matrix):
        return [(signature.name, _tensor_type(rung, False)([None, signature.width]))]
    return [(c.name, _tensor_type(rung, c.type == "string")([None, 1])) for c in signature]


def _side_by_side(columns: Sequence[Column], rung: Rung) -> list[tuple[str, Any]]:
    return [(GATHERED, _tensor_type(rung, columns[0].type == "string")([None, len(columns)]))]


def _last(estimator: Any) -> Any:
    from sklearn.pipeline import Pipeline

    return _last(estimator.steps[-1][1]) if isinstance(estimator, Pipeline) else estimator


def _classifier_options(classifier: Any) -> dict[str, bool]:
    """Probabilities as one tensor, not as a list of maps, which no server carries."""
    # skl2onnx makes no maps for this one and does not know the option; any of its own keeps it from asking.
    return {"nocl": False} if type(classifier).__name__ == "LinearSVC" else {"zipmap": False}


def _with_cast(estimator: Any) -> Any:
    """The same estimator with a cast to 32 bits before its last step."""
    from skl2onnx.sklapi import CastTransformer
    from sklearn.pipeline import Pipeline

    steps = list(estimator.steps) if isinstance(estimator, Pipeline) else [("model", estimator)]
    cast = CastTransformer(dtype=np.float32).fit(np.zeros((1, 1)))
    return Pipeline([*steps[:-1], ("headgate_cast", cast), steps[-1]])


@contextmanager
def _whole_numbers_only() -> Iterator[None]:
    """Let skl2onnx make nodes with truth values in lists of whole numbers, which newer protobuf refuses.

    skl2onnx 1.20 writes them for HistGradientBoosting (`nodes_missing_value_tracks_true`).
    """
    from skl2onnx.common import _container

    original: Callable[..., onnx.NodeProto] = _container.make_node

    def make_node(*words: Any, **attributes: Any) -> onnx.NodeProto:
        return original(*words, **{key: _whole(value) for key, value in attributes.items()})

    _container.make_node = make_node
    try:
        yield
    finally:
        _container.make_node = original


def _whole(value: Any) -> Any:
    if isinstance(value, list) and any(isinstance(item, bool | np.bool_) for item in value):
        return [int(item) for item in value]
    return value
