"""LabelPropagation and LabelSpreading with the kernel rbf: p(c | x) is proportional to sum_i exp(-g |x - x_i|^2) D_ic.

Source: `BaseLabelPropagation.predict_proba` in sklearn/semi_supervised/_label_propagation.py; D are the
`label_distributions_` of the training rows. The kernel is taken in 32 bits where training and asked rows both have
32, as scikit-learn does: with the default g = 20 its terms vanish for rows that 64 bits still tell apart. All else is
in 64. The kernel knn depends on ties between neighbours, and has no conversion.
"""

from typing import Any

import numpy as np
from onnx import TensorProto
from skl2onnx.algebra.onnx_ops import OnnxCast, OnnxDiv, OnnxExp, OnnxMul, OnnxReduceSum
from sklearn.semi_supervised import LabelPropagation, LabelSpreading

from . import parts


def register() -> None:
    for cls in (LabelPropagation, LabelSpreading):
        parts.classifier(cls, _convert)


def _convert(task: parts.Task) -> None:
    model = task.model
    if model.kernel != "rbf":
        raise NotImplementedError(f"{type(model).__name__} has no conversion with kernel={model.kernel!r}.")
    points = np.asarray(model.X_)
    far = task.squared_distances(task.doubles(), points)
    single = points.dtype == np.float32 and not task.is_double
    kernel = task.node(OnnxCast, far, to=TensorProto.FLOAT) if single else far
    near = task.node(OnnxExp, task.node(OnnxMul, kernel, np.array([-float(model.gamma)], dtype=_dtype(single))))
    mass = task.matmul(task.node(OnnxCast, near, to=TensorProto.DOUBLE), model.label_distributions_)
    total = task.node(OnnxReduceSum, mass, np.array([1], dtype=np.int64), keepdims=1)
    task.decide(task.node(OnnxDiv, mass, total))


def _dtype(single: bool) -> Any:
    return np.float32 if single else np.float64
