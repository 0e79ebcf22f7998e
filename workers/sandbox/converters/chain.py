"""RegressorChain and ClassifierChain: each estimator sees the row and what those before it said.

Source: `_BaseChain._get_predictions` in sklearn/multioutput.py: x_1 = x, x_{k+1} = [x, y_1 .. y_k]; the answers then
go back into the order of the targets. Of ClassifierChain the default (`chain_method='predict'`) hands the classes on.
Its probabilities are those of the second class, one column a target, as scikit-learn gives them; so each target has
two.
"""

from typing import Any

import numpy as np
from onnx import TensorProto
from skl2onnx.algebra.onnx_ops import OnnxCast, OnnxConcat, OnnxIdentity, OnnxReshape
from sklearn.multioutput import ClassifierChain, RegressorChain

from . import parts


def register() -> None:
    parts.regressor(RegressorChain, _convert_regressor)
    parts.classifier(ClassifierChain, _convert_classifier, outputs=2)


def _given(task: parts.Task, said: list[Any]) -> Any:
    own = task.node(OnnxIdentity, task.x)
    return task.node(OnnxConcat, own, *said, axis=1) if said else own


def _in_order(task: parts.Task, said: list[Any]) -> Any:
    return task.node(OnnxConcat, *(said[place] for place in np.argsort(task.model.order_)), axis=1)


def _column(task: parts.Task, value: Any) -> Any:
    return task.node(OnnxReshape, value, np.array([-1, 1], dtype=np.int64))


def _convert_regressor(task: parts.Task) -> None:
    said: list[Any] = []
    for estimator in task.model.estimators_:
        made = task.node(OnnxIdentity, task.sub(estimator, _given(task, said)))
        said.append(task.floats(_column(task, made)))
    task.answer(_in_order(task, said))


def _convert_classifier(task: parts.Task) -> None:
    if getattr(task.model, "chain_method_", "predict") != "predict" or any(len(c) != 2 for c in task.model.classes_):
        raise NotImplementedError("A ClassifierChain converts with two classes a target and chain_method='predict'.")
    said: list[Any] = []
    likely: list[Any] = []
    for estimator in task.model.estimators_:
        label, probabilities = task.classifier(estimator, _given(task, said))
        said.append(task.floats(_column(task, label)))
        likely.append(task.column(probabilities, 1))
    whole = task.node(OnnxCast, _in_order(task, said), to=TensorProto.INT64)
    task.say(whole, _in_order(task, likely))
