"""Where a fitted model's trees branch, in the values of the model's own columns."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from .tensors import Array, Matrix, Signature

MOST = 64
Affine = tuple[str | int, float, float]
"""A column (by name, or by its number in a matrix) and how its value becomes a feature: (value - shift) / scale."""


def of_model(estimator: Any, signature: Signature) -> list[tuple[str | int, float]]:
    """At most MOST pairs of a column and the value where a tree branches on it: those that most training rows met.

    Trees are found in a bare estimator, and behind scalers and ColumnTransformers whose features are one column moved
    and scaled; features made in any other way are left out.
    """
    features: list[Affine | None]
    if isinstance(signature, Matrix):
        features = [(at, 0.0, 1.0) for at in range(signature.width)]
    else:
        features = [(column.name, 0.0, 1.0) for column in signature]
    for step in _steps(estimator)[:-1]:
        features = _through(step, features)
    found = {
        (affine[0], threshold * affine[2] + affine[1]): weight
        for feature, threshold, weight in _splits(_steps(estimator)[-1])
        if feature < len(features) and (affine := features[feature]) is not None
    }
    return sorted(found, key=lambda pair: (-found[pair], str(pair[0]), pair[1]))[:MOST]


def _steps(estimator: Any) -> list[Any]:
    from sklearn.pipeline import Pipeline

    if not isinstance(estimator, Pipeline):
        return [estimator]
    return [inner for _, step in estimator.steps for inner in _steps(step)]


def _through(step: Any, features: list[Affine | None]) -> list[Affine | None]:
    """What each feature after the step is made of; none at all where the step is not known."""
    from sklearn.compose import ColumnTransformer
    from sklearn.preprocessing import MinMaxScaler, StandardScaler

    if isinstance(step, str) or step is None:
        return features if step == "passthrough" else []
    if isinstance(step, StandardScaler):
        zeros, ones = np.zeros(len(features)), np.ones(len(features))
        return _scaled(features, _or(step.mean_, zeros), _or(step.scale_, ones))
    if isinstance(step, MinMaxScaler):
        return _scaled(features, -step.min_ / step.scale_, 1.0 / step.scale_)
    return _parts(step, features) if isinstance(step, ColumnTransformer) else []


def _or(value: Array | None, otherwise: Array) -> Array:
    return otherwise if value is None else value


def _scaled(features: list[Affine | None], shift: Array, scale: Array) -> list[Affine | None]:
    return [
        None if old is None else (old[0], old[1] + float(s) * old[2], old[2] * float(k))
        for old, s, k in zip(features, shift, scale, strict=False)
    ]


def _parts(step: Any, features: list[Affine | None]) -> list[Affine | None]:
    places = {old[0]: old for old in features if old is not None}
    width = max((part.stop for part in step.output_indices_.values()), default=0)
    made: list[Affine | None] = [None] * width
    for name, transformer, columns in step.transformers_:
        part = step.output_indices_[name]
        named = [columns] if isinstance(columns, str | int) else columns
        if transformer == "drop" or isinstance(named, slice):
            continue
        inner: list[Affine | None] = [places.get(column) for column in np.asarray(named).tolist()]
        for inner_step in _steps(transformer):
            inner = _through(inner_step, inner)
        if len(inner) == part.stop - part.start:
            made[part] = inner
    return made


def _splits(estimator: Any) -> Iterator[tuple[int, float, float]]:
    """Feature, threshold and training rows of every branch in the trees of the estimator and of those in it."""
    tree = getattr(estimator, "tree_", None)
    if tree is not None and hasattr(tree, "children_left"):
        for node in np.flatnonzero(tree.children_left != tree.children_right):
            yield int(tree.feature[node]), float(tree.threshold[node]), float(tree.n_node_samples[node])
        return
    for iteration in getattr(estimator, "_predictors", ()):  # of HistGradientBoosting
        for predictor in iteration:
            for node in predictor.nodes[predictor.nodes["is_leaf"] == 0]:
                if not node["is_categorical"]:
                    yield int(node["feature_idx"]), float(node["num_threshold"]), float(node["count"])
    inner = getattr(estimator, "estimators_", ())
    for member in inner.ravel() if isinstance(inner, np.ndarray) else inner:
        yield from _splits(member)
