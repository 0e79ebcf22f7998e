"""FixedThresholdClassifier and TunedThresholdClassifierCV: the second class where its score reaches a threshold.

Source: `_threshold_scores_to_class_labels` in sklearn/utils/_response.py: classes_[score >= threshold], the score
being the probability of the second class or the decision function, as `response_method` says; `auto` takes the
probability where there is one. skl2onnx converts the tuned one without its threshold: it answers what the classifier
within answers.
"""

import numpy as np
from onnx import TensorProto
from skl2onnx.algebra.onnx_ops import OnnxCast, OnnxGreaterOrEqual
from sklearn.model_selection import FixedThresholdClassifier, TunedThresholdClassifierCV

from . import parts


def register() -> None:
    for cls in (FixedThresholdClassifier, TunedThresholdClassifierCV):
        parts.classifier(cls, _convert)


def _convert(task: parts.Task) -> None:
    model = task.model
    label = getattr(model, "pos_label", None)
    if label is not None and label != model.classes_[1]:
        raise NotImplementedError("A threshold converts with the second class as pos_label.")
    methods = model._get_response_method()
    method = next(m for m in ([methods] if isinstance(methods, str) else methods) if hasattr(model.estimator_, m))
    probabilities = task.classifier(model.estimator_, task.x)[1]
    raw = method == "decision_function"
    scores = task.classifier(model.estimator_, task.x, raw=True)[1] if raw else probabilities
    value = getattr(model, "best_threshold_", None)
    if value is None:
        value = (0.0 if raw else 0.5) if model.threshold == "auto" else model.threshold
    score = task.node(OnnxCast, task.flat(task.column(scores, 1)), to=TensorProto.DOUBLE)
    reached = task.node(OnnxGreaterOrEqual, score, np.array([float(value)]))
    task.label(task.node(OnnxCast, reached, to=TensorProto.INT64), probabilities)
