"""IsotonicRegression: straight lines between the fitted knots.

Source: `_build_f` and `_transform` in sklearn/isotonic.py. For a value between the knots a and b: f(x) = f(a) + (x -
a) (f(b) - f(a)) / (b - a). The segment is found by counting the inner knots that x has passed, which equals a binary
search for knots in ascending order. Beyond the knots the answer is NaN, or that of the nearest knot where
`out_of_bounds` is `clip`; with `raise` scikit-learn refuses, and the conversion answers NaN.
"""

import numpy as np
from onnx import TensorProto
from skl2onnx.algebra.onnx_ops import (
    OnnxAdd,
    OnnxAnd,
    OnnxCast,
    OnnxGather,
    OnnxGreaterOrEqual,
    OnnxLessOrEqual,
    OnnxMax,
    OnnxMin,
    OnnxMul,
    OnnxReduceSum,
    OnnxSub,
    OnnxWhere,
)
from sklearn.isotonic import IsotonicRegression

from . import parts


def register() -> None:
    parts.regressor(IsotonicRegression, _convert)


def _convert(task: parts.Task) -> None:
    knots, values = (np.asarray(a, dtype=np.float64) for a in (task.model.X_thresholds_, task.model.y_thresholds_))
    if len(knots) == 1:
        knots, values = np.array([knots[0], knots[0] + 1.0]), np.repeat(values, 2)
    low, high = knots[:1], knots[-1:]
    given = task.doubles()
    within = task.node(OnnxMin, task.node(OnnxMax, given, low), high)
    inner = knots[1:-1].reshape(1, -1)
    passed = task.node(OnnxCast, task.node(OnnxGreaterOrEqual, within, inner), to=TensorProto.INT64)
    segment = task.node(OnnxReduceSum, passed, np.array([1], dtype=np.int64), keepdims=1)
    slope = np.diff(values) / np.diff(knots)
    start, height, steep = (task.node(OnnxGather, table, segment, axis=0) for table in (knots[:-1], values[:-1], slope))
    line = task.node(OnnxAdd, height, task.node(OnnxMul, task.node(OnnxSub, within, start), steep))
    if task.model.out_of_bounds == "clip" or len(task.model.X_thresholds_) == 1:
        task.answer(line)
        return
    inside = task.node(OnnxAnd, task.node(OnnxGreaterOrEqual, given, low), task.node(OnnxLessOrEqual, given, high))
    task.answer(task.node(OnnxWhere, inside, line, np.array([np.nan])))
