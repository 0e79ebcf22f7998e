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

from .native import Native
from .tensors import KINDS, Column, Matrix, Signature


@dataclass(frozen=True)
class Rung:
    """One way to convert. `arithmetic` is what numbers are computed in; `division` is skl2onnx's option for
    StandardScaler; `cast` hands the last estimator 32-bit numbers, as scikit-learn's trees do themselves."""

    name: str
    arithmetic: Literal["float", "double"] = "float"
    division: Literal["div", "div_cast"] | None = None
    cast: bool = False


RUNGS: Sequence[Rung] = (
    Rung("default"),
    Rung("float-division", division="div"),
    Rung("double-division", division="div_cast"),
    Rung("double", arithmetic="double"),
    Rung("double-then-float", arithmetic="double", cast=True),
)
"""In the order of trying: first what changes least against skl2onnx's default."""


def convert(native: Native, signature: Signature, rung: Rung, name: str) -> bytes:
    """The model as ONNX; the same arguments give the same bytes.

    Raises whatever skl2onnx raises where it cannot convert the model in this way.
    """
    from skl2onnx import convert_sklearn
    from sklearn.preprocessing import StandardScaler

    estimator = _with_cast(native.estimator) if rung.cast else native.estimator
    options: dict[Any, Any] = {StandardScaler: {"div": rung.division}} if rung.division else {}
    if native.is_classifier:
        options[id(_last(estimator))] = _classifier_options(_last(estimator))
    logging.getLogger("skl2onnx").setLevel(logging.ERROR)
    with _whole_numbers_only():
        model = convert_sklearn(estimator, name, _initial_types(signature, rung), options=options)
    if native.is_classifier and not native.has_probabilities:
        del model.graph.output[1:]
    _restore_types(model.graph, signature, rung)
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def _initial_types(signature: Signature, rung: Rung) -> list[tuple[str, Any]]:
    from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType, StringTensorType

    number = DoubleTensorType if rung.arithmetic == "double" else FloatTensorType
    if isinstance(signature, Matrix):
        return [(signature.name, number([None, signature.width]))]
    return [(c.name, (StringTensorType if c.type == "string" else number)([None, 1])) for c in signature]


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


def _restore_types(graph: onnx.GraphProto, signature: Signature, rung: Rung) -> None:
    """Give each input the signature's type, followed by a cast to what the rung computes in."""
    columns = [Column(signature.name, signature.type)] if isinstance(signature, Matrix) else signature
    computed = KINDS[rung.arithmetic].onnx_number
    casts = []
    for column in columns:
        wanted = column.kind.onnx_number
        if column.type == "string" or wanted == computed:
            continue
        value = next(value for value in graph.input if value.name == column.name)
        value.type.tensor_type.elem_type = wanted
        inner = f"headgate_cast_{column.name}"
        for node in graph.node:
            for at, used in enumerate(node.input):
                if used == column.name:
                    node.input[at] = inner
        casts.append(onnx.helper.make_node("Cast", [column.name], [inner], name=inner, to=computed))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)


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
