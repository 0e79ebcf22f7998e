"""RadiusNeighborsRegressor and RadiusNeighborsClassifier with uniform weights and Euclidean distances.

Source: sklearn/neighbors/_regression.py and _classification.py. w_i = 1 where |x - x_i|^2 <= r^2, else 0; the
regressor says sum w_i y_i / sum w_i, which is NaN without any neighbour, as in scikit-learn; the classifier gives the
classes' shares among the neighbours. Without a neighbour scikit-learn's classifier refuses the row; the conversion
says NaN. skl2onnx looks the neighbours up by index and fails where there is none.
"""

from typing import Any

import numpy as np
from onnx import TensorProto
from skl2onnx.algebra.onnx_ops import OnnxCast, OnnxDiv, OnnxLessOrEqual, OnnxReduceSum
from sklearn.neighbors import RadiusNeighborsClassifier, RadiusNeighborsRegressor

from . import parts


def register() -> None:
    parts.regressor(RadiusNeighborsRegressor, _convert_regressor)
    parts.classifier(RadiusNeighborsClassifier, _convert_classifier)


def _shares(task: parts.Task, values: Any) -> Any:
    model = task.model
    if model.weights != "uniform" or model.effective_metric_ != "euclidean":
        raise NotImplementedError("Neighbours within a radius convert with uniform weights and Euclidean distances.")
    far = task.squared_distances(task.doubles(), np.asarray(model._fit_X))
    near = task.node(
        OnnxCast, task.node(OnnxLessOrEqual, far, np.array([float(model.radius) ** 2])), to=TensorProto.DOUBLE
    )
    count = task.node(OnnxReduceSum, near, np.array([1], dtype=np.int64), keepdims=1)
    return task.node(OnnxDiv, task.matmul(near, values), count)


def _convert_regressor(task: parts.Task) -> None:
    task.answer(_shares(task, np.asarray(task.model._y, dtype=np.float64).reshape(len(task.model._y), -1)))


def _convert_classifier(task: parts.Task) -> None:
    model = task.model
    if model.outputs_2d_ or model.outlier_label_ is not None:
        raise NotImplementedError("RadiusNeighborsClassifier converts with one target and without outlier_label.")
    task.decide(_shares(task, np.eye(len(model.classes_))[np.asarray(model._y)]))
