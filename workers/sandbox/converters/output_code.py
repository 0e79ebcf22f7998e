"""OutputCodeClassifier: the class whose code is nearest to what the binary classifiers say.

Source: `OutputCodeClassifier.predict` in sklearn/multiclass.py: each binary classifier gives its decision function,
or the probability of its second class where it has none; the class is argmin_c |said - code_c|^2. Where all classes
have the same bit, there is a constant in a classifier's place. There are no probabilities: the second output, which
is cut off afterwards, holds the negative distances.
"""

from typing import Any

import numpy as np
from onnx import TensorProto
from skl2onnx.algebra.onnx_ops import OnnxCast, OnnxConcat, OnnxNeg
from sklearn.multiclass import OutputCodeClassifier, _ConstantPredictor

from . import parts


def register() -> None:
    parts.classifier(OutputCodeClassifier, _convert)


def _convert(task: parts.Task) -> None:
    said = task.node(OnnxConcat, *(_said(task, estimator) for estimator in task.model.estimators_), axis=1)
    task.decide(task.node(OnnxNeg, task.squared_distances(said, task.model.code_book_)))


def _said(task: parts.Task, estimator: Any) -> Any:
    if isinstance(estimator, _ConstantPredictor):
        return task.repeated(np.asarray(estimator.y_, dtype=np.float64).reshape(1, -1))
    scores = task.classifier(estimator, task.x, raw=hasattr(estimator, "decision_function"))[1]
    return task.node(OnnxCast, task.column(scores, 1), to=TensorProto.DOUBLE)
