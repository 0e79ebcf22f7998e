"""SelfTrainingClassifier: what the classifier says that was trained last.

Source: `SelfTrainingClassifier.predict` and `predict_proba` in sklearn/semi_supervised/_self_training.py.
"""

from sklearn.semi_supervised import SelfTrainingClassifier

from . import parts


def register() -> None:
    parts.classifier(SelfTrainingClassifier, _convert)


def _convert(task: parts.Task) -> None:
    task.say(*task.classifier(task.model.estimator_, task.x))
