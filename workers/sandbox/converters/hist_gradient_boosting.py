"""HistGradientBoostingRegressor and -Classifier: thresholds that no rounding moves.

Source: `_raw_predict` in sklearn/ensemble/_hist_gradient_boosting/gradient_boosting.py and predictor.pyx: the raw
answer is the baseline plus the leaves' values, where x goes left if x <= t in 64 bits, or, if it is NaN, as the node
says. For x of 32 bits, x <= t holds exactly if x <= the greatest number of 32 bits that is not above t. skl2onnx
rounds t to the nearest, and rows between the two go astray. For x of 64 bits the thresholds stay as they are
(ai.onnx.ml 3). The raw answer then goes through the loss's inverse link: none, exp, the logistic function, or
softmax. Splits on categories have no conversion.
"""

from typing import Any

import numpy as np
from onnx import TensorProto
from skl2onnx.algebra.onnx_ops import (
    OnnxCast,
    OnnxConcat,
    OnnxExp,
    OnnxSigmoid,
    OnnxSoftmax,
    OnnxSub,
    OnnxTreeEnsembleRegressor_3,
)
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

from . import parts


def register() -> None:
    parts.regressor(HistGradientBoostingRegressor, _convert_regressor)
    parts.classifier(HistGradientBoostingClassifier, _convert_classifier)


def _convert_regressor(task: parts.Task) -> None:
    raw = _raw(task)
    link = type(task.model._loss.link).__name__
    if link not in ("IdentityLink", "LogLink"):
        raise NotImplementedError(f"HistGradientBoosting has no conversion with the link {link}.")
    task.answer(task.node(OnnxExp, raw) if link == "LogLink" else raw)


def _convert_classifier(task: parts.Task) -> None:
    raw = _raw(task)
    if task.model.n_trees_per_iteration_ > 1:
        task.decide(task.node(OnnxSoftmax, raw, axis=1))
        return
    second = task.node(OnnxSigmoid, raw)
    task.decide(task.node(OnnxConcat, task.node(OnnxSub, np.ones(1, dtype=np.float32), second), second, axis=1))


def _raw(task: parts.Task) -> Any:
    """The baseline and the leaves, [n, trees an iteration], in 32 bits."""
    model = task.model
    if getattr(model, "_preprocessor", None) is not None:
        raise NotImplementedError("HistGradientBoosting has no conversion with splits on categories.")
    double = task.is_double
    given = task.node(OnnxCast, task.x, to=TensorProto.DOUBLE if double else TensorProto.FLOAT)
    attributes = _trees(model, np.float64 if double else np.float32)
    return task.node(OnnxTreeEnsembleRegressor_3, given, **attributes)


def _trees(model: Any, dtype: type) -> dict[str, Any]:
    nodes: dict[str, list[Any]] = {
        name: [] for name in ("tree", "node", "feature", "mode", "value", "yes", "no", "nan")
    }
    leaves: dict[str, list[Any]] = {name: [] for name in ("tree", "node", "target", "weight")}
    members = [(target, p.nodes) for iteration in model._predictors for target, p in enumerate(iteration)]
    for tree, (target, found) in enumerate(members):
        leaf = found["is_leaf"] == 1
        at = np.arange(len(found))
        nodes["tree"] += [tree] * len(found)
        nodes["node"] += at.tolist()
        nodes["feature"] += np.where(leaf, 0, found["feature_idx"]).astype(int).tolist()
        nodes["mode"] += ["LEAF" if is_leaf else "BRANCH_LEQ" for is_leaf in leaf]
        nodes["value"] += np.where(leaf, 0.0, found["num_threshold"]).tolist()
        nodes["yes"] += np.where(leaf, 0, found["left"]).astype(int).tolist()
        nodes["no"] += np.where(leaf, 0, found["right"]).astype(int).tolist()
        nodes["nan"] += np.where(leaf, 0, found["missing_go_to_left"]).astype(int).tolist()
        leaves["tree"] += [tree] * int(leaf.sum())
        leaves["node"] += at[leaf].tolist()
        leaves["target"] += [target] * int(leaf.sum())
        leaves["weight"] += found["value"][leaf].tolist()
    return _attributes(model, nodes, leaves, dtype)


def _attributes(model: Any, nodes: dict[str, list[Any]], leaves: dict[str, list[Any]], dtype: type) -> dict[str, Any]:
    from onnx import numpy_helper

    def numbers(values: Any) -> Any:
        array = np.asarray(values, dtype=np.float64).ravel()
        return numpy_helper.from_array(array) if dtype is np.float64 else array.astype(np.float32)

    ending = "_as_tensor" if dtype is np.float64 else ""
    thresholds = np.array(nodes["value"], dtype=np.float64)
    return {
        "n_targets": int(model.n_trees_per_iteration_),
        f"base_values{ending}": numbers(model._baseline_prediction),
        "nodes_treeids": nodes["tree"],
        "nodes_nodeids": nodes["node"],
        "nodes_featureids": nodes["feature"],
        "nodes_modes": nodes["mode"],
        f"nodes_values{ending}": numbers(thresholds if dtype is np.float64 else not_above(thresholds)),
        "nodes_truenodeids": nodes["yes"],
        "nodes_falsenodeids": nodes["no"],
        "nodes_missing_value_tracks_true": nodes["nan"],
        "target_treeids": leaves["tree"],
        "target_nodeids": leaves["node"],
        "target_ids": leaves["target"],
        f"target_weights{ending}": numbers(leaves["weight"]),
    }


def not_above(thresholds: parts.Array) -> parts.Array:
    """The greatest numbers of 32 bits that are not above the thresholds."""
    with np.errstate(over="ignore"):
        near = thresholds.astype(np.float32)
    below: parts.Array = np.nextafter(near, np.float32(-np.inf))
    return np.where(near.astype(np.float64) > thresholds, below, near)
