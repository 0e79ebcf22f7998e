"""MultiOutputClassifier: one classifier a target, its labels side by side, and so its probabilities.

Source: `MultiOutputClassifier` in sklearn/multioutput.py. scikit-learn gives a list of matrices, one a target; a V2
answer holds one tensor, so the columns of all targets stand next to each other, in the order of the targets and of
their classes. skl2onnx stacks them with the targets in front, where the rows have to be.
"""

import numpy as np
from skl2onnx.algebra.onnx_ops import OnnxConcat, OnnxReshape
from sklearn.multioutput import MultiOutputClassifier

from . import parts


def register() -> None:
    parts.classifier(MultiOutputClassifier, _convert, outputs=2)


def _convert(task: parts.Task) -> None:
    made = [task.classifier(estimator, task.x) for estimator in task.model.estimators_]
    columns = [task.node(OnnxReshape, label, np.array([-1, 1], dtype=np.int64)) for label, _ in made]
    task.say(task.node(OnnxConcat, *columns, axis=1), task.node(OnnxConcat, *(p for _, p in made), axis=1))
