"""What the converters share: registering with skl2onnx, numbers of 64 bits in and out, distances, labels."""

from collections.abc import Callable
from typing import Any

import numpy as np
from onnx import TensorProto
from skl2onnx import update_registered_converter
from skl2onnx.algebra.onnx_operator import OnnxSubEstimator
from skl2onnx.algebra.onnx_ops import (
    OnnxAdd,
    OnnxArgMax,
    OnnxCast,
    OnnxConcat,
    OnnxExpand,
    OnnxGather,
    OnnxIdentity,
    OnnxMatMul,
    OnnxMax,
    OnnxMul,
    OnnxReduceSum,
    OnnxReshape,
    OnnxShape,
    OnnxSlice,
    OnnxSub,
)
from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType, Int64TensorType, StringTensorType

# In the sandbox the package above has another name than here.
from .. import tensors  # noqa: TID252 - only a relative name is right in both places

Array = tensors.Array
Node = Any
Classes = dict[str, list[Any]]
OPTIONS: Classes = {"zipmap": [True, False, "columns"], "nocl": [True, False], "output_class_labels": [False, True]}


class Task:
    """One estimator to convert: its fitted `model`, and the nodes that lead to its answers."""

    def __init__(self, scope: Any, operator: Any, container: Any) -> None:
        self.model = operator.raw_operator
        self.version = container.target_opset
        self._scope, self._operator, self._container = scope, operator, container
        self.x = operator.inputs[0]

    def node(self, make: Callable[..., Node], *inputs: Any, **attributes: Any) -> Node:
        return make(*inputs, op_version=self.version, **attributes)

    def doubles(self) -> Node:
        """The input in 64 bits, in which scikit-learn computes here whatever it is given."""
        return self.node(OnnxCast, self.x, to=TensorProto.DOUBLE)

    def floats(self, value: Node) -> Node:
        """In the type that the whole model computes in."""
        return self.node(OnnxCast, value, to=self._number())

    def _number(self) -> int:
        return int(TensorProto.DOUBLE if self.is_double else TensorProto.FLOAT)

    @property
    def is_double(self) -> bool:
        """Whether the whole model computes in 64 bits."""
        return isinstance(self.x.type, DoubleTensorType)

    def sub(self, model: Any, value: Any, **options: Any) -> Node:
        """Another estimator's own conversion, as a part of this one."""
        return OnnxSubEstimator(model, value, op_version=self.version, options=options or None)

    def classifier(self, model: Any, value: Any, raw: bool = False) -> tuple[Node, Node]:
        """The labels [n] and the probabilities of a classifier within, or its scores where `raw`."""
        options = {"zipmap": False, "raw_scores": True} if raw else {"zipmap": False}
        made = self.sub(model, value, **options)
        return self.flat(self.node(OnnxIdentity, made[0])), self.node(OnnxIdentity, made[1])

    def flat(self, value: Node) -> Node:
        return self.node(OnnxReshape, value, np.array([-1], dtype=np.int64))

    def column(self, value: Node, at: int) -> Node:
        """One column of a matrix, as [n, 1]."""
        start, stop, axis = (np.array([number], dtype=np.int64) for number in (at, at + 1, 1))
        return self.node(OnnxSlice, value, start, stop, axis)

    def matmul(self, value: Node, matrix: Array) -> Node:
        return self.node(OnnxMatMul, value, matrix.astype(np.float64))

    def repeated(self, row: Array) -> Node:
        """The row [1, k] as often as the input has rows."""
        zero, one = np.array([0], dtype=np.int64), np.array([1], dtype=np.int64)
        count = self.node(OnnxSlice, self.node(OnnxShape, self.x), zero, one, zero)
        shape = self.node(OnnxConcat, count, np.array([row.shape[1]], dtype=np.int64), axis=0)
        return self.node(OnnxExpand, row, shape)

    def squared_distances(self, value: Node, points: Array) -> Node:
        """[n, m] from x.x - 2 x.p + p.p, never below zero, as scikit-learn's euclidean_distances computes them."""
        points = points.astype(np.float64)
        axes = np.array([1], dtype=np.int64)
        own = self.node(OnnxReduceSum, self.node(OnnxMul, value, value), axes, keepdims=1)
        theirs = (points**2).sum(axis=1).reshape(1, -1)
        found = self.node(OnnxAdd, self.node(OnnxSub, own, self.matmul(value, 2.0 * points.T)), theirs)
        return self.node(OnnxMax, found, np.zeros(1))

    def answer(self, value: Node) -> None:
        """What the regressor says, [n, k]."""
        given = self.node(OnnxCast, value, to=self._number(), output_names=self._operator.outputs[:1])
        given.add_to(self._scope, self._container)

    def decide(self, probabilities: Node, scores: Node | None = None) -> None:
        """The class of the largest score, which is the probability if there is no other, and the probabilities."""
        largest = self.node(OnnxArgMax, probabilities if scores is None else scores, axis=1, keepdims=0)
        self.label(largest, probabilities)

    def label(self, index: Node, probabilities: Node) -> None:
        """The classes at `index` [n] and the probabilities [n, k]."""
        self.say(self.node(OnnxGather, labels(self.model.classes_), index, axis=0), probabilities)

    def say(self, label: Node, probabilities: Node) -> None:
        out = self._operator.outputs
        given = self.node(OnnxCast, probabilities, to=self._number(), output_names=out[1:2])
        self.node(OnnxIdentity, label, output_names=out[:1]).add_to(self._scope, self._container)
        given.add_to(self._scope, self._container)


def labels(classes: Array) -> Array:
    """Class labels as ONNX has them: text, or whole numbers.

    Raises:
        NotImplementedError: they are neither.
    """
    if classes.dtype.kind in "OUS":
        return np.array([str(value) for value in classes.tolist()])
    if classes.dtype.kind == "f" and not np.array_equal(classes, np.rint(classes)):
        raise NotImplementedError("The classes are numbers that are not whole.")
    return classes.astype(np.int64)


def regressor(cls: type, convert: Callable[[Task], None]) -> None:
    """Register a conversion whose answer is [n, k]."""

    def shape(operator: Any) -> None:
        number = DoubleTensorType if isinstance(operator.inputs[0].type, DoubleTensorType) else FloatTensorType
        operator.outputs[0].type = number([None, None])

    update_registered_converter(cls, f"Headgate{cls.__name__}", shape, _called(convert), overwrite=True)


def classifier(cls: type, convert: Callable[[Task], None], outputs: int = 1) -> None:
    """Register a conversion whose answers are labels, [n] or [n, outputs], and probabilities."""

    def shape(operator: Any) -> None:
        classes = operator.raw_operator.classes_
        first = np.asarray(classes[0] if isinstance(classes, list) else classes)
        label = StringTensorType if first.dtype.kind in "OUS" else Int64TensorType
        number = DoubleTensorType if isinstance(operator.inputs[0].type, DoubleTensorType) else FloatTensorType
        operator.outputs[0].type = label([None] if outputs == 1 else [None, None])
        operator.outputs[1].type = number([None, None])

    update_registered_converter(
        cls, f"Headgate{cls.__name__}", shape, _called(convert), overwrite=True, options=dict(OPTIONS)
    )


def _called(convert: Callable[[Task], None]) -> Callable[[Any, Any, Any], None]:
    def converter(scope: Any, operator: Any, container: Any) -> None:
        convert(Task(scope, operator, container))

    return converter
