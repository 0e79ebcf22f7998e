"""NearestCentroid with the metric euclidean.

Source: sklearn/neighbors/_nearest_centroid.py. With equal priors the class is that of the nearest centroid; else, and
for the probabilities always, rows and centroids are divided by the spread s within the classes where it is not zero,
and score_c = -|x/s - m_c/s|^2 + 2 log prior_c; the probabilities are the softmax of the scores.
"""

import numpy as np
from skl2onnx.algebra.onnx_ops import OnnxDiv, OnnxNeg, OnnxSoftmax, OnnxSub
from sklearn.neighbors import NearestCentroid

from . import parts


def register() -> None:
    parts.classifier(NearestCentroid, _convert)


def _convert(task: parts.Task) -> None:
    model = task.model
    if model.metric != "euclidean":
        raise NotImplementedError(f"NearestCentroid has no conversion with metric={model.metric!r}.")
    spread = np.where(model.within_class_std_dev_ != 0, model.within_class_std_dev_, 1.0).astype(np.float64)
    given = task.doubles()
    scaled = task.node(OnnxDiv, given, spread.reshape(1, -1))
    far = task.squared_distances(scaled, model.centroids_ / spread)
    scores = task.node(OnnxSub, (2.0 * np.log(model.class_prior_)).reshape(1, -1), far)
    probabilities = task.node(OnnxSoftmax, scores, axis=1)
    if np.isclose(model.class_prior_, 1 / len(model.classes_)).all():
        scores = task.node(OnnxNeg, task.squared_distances(given, model.centroids_))
    task.decide(probabilities, scores)
