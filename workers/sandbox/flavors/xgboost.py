"""XGBoost: boosters and its scikit-learn wrappers, in JSON or UBJSON, with a converter of our own.

XGBoost computes in 32 bits, columns of 64 bits included, and tests `x < t`: so does the ONNX model, and there is one
rung. Its JSON says all: https://xgboost.readthedocs.io/en/stable/tutorials/saving_model.html
"""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..frames import given
from ..hurt import Place
from ..mlmodel import Card
from ..refusal import Refused
from ..rows import Rows
from ..tensors import Array, Signature
from . import Way
from .common import answers, asking, loading, values
from .trees import Ending, Forest, Link, branches, to_onnx

_WRAPPERS = ("XGBRegressor", "XGBClassifier", "XGBRanker", "XGBRFRegressor", "XGBRFClassifier")
_LINKS: Mapping[str, Link] = {
    "binary:logistic": "sigmoid",
    "reg:logistic": "sigmoid",
    "count:poisson": "exp",
    "reg:gamma": "exp",
    "reg:tweedie": "exp",
    "survival:cox": "exp",
    "survival:aft": "exp",
    "multi:softprob": "softmax",
    "binary:logitraw": "identity",
    "reg:squarederror": "identity",
    "reg:squaredlogerror": "identity",
    "reg:pseudohubererror": "identity",
    "reg:absoluteerror": "identity",
    "reg:quantileerror": "identity",
    "rank:pairwise": "identity",
    "rank:ndcg": "identity",
    "rank:map": "identity",
}


def load(card: Card, signature: Signature) -> "Booster":
    """The booster or the wrapper that MLmodel names.

    Raises:
        Refused: it cannot be loaded here.
    """
    kept: list[str] = []
    with loading(card, kept):
        import xgboost

        kind = card.settings.get("model_class", "xgboost.core.Booster").rpartition(".")[2]
        if kind not in (*_WRAPPERS, "Booster"):
            reason = f"The model is a {kind!a}, which is none of {', '.join(_WRAPPERS)} and no Booster."
            raise Refused("unsupported-estimator", reason, "Log the booster itself, or one of those.")
        model = getattr(xgboost, kind)()
        model.load_model(card.file)
        return Booster(model, signature, kept)


class Booster:
    """A loaded model of XGBoost."""

    rungs: Sequence[Way] = (Way("trees", {"arithmetic": "float"}),)

    def __init__(self, model: Any, signature: Signature, warnings: list[str]) -> None:
        self._model, self._signature, self.warnings = model, signature, warnings
        self.title = f"XGBoost, {type(model).__name__}"
        self._classifies = type(model).__name__.endswith("Classifier")

    def predict(self, rows: Rows) -> list[Array]:
        """As `flavors.Model` says, in the way that MLflow asks."""
        import xgboost

        with asking():
            frame = given(rows, self._signature)
            if isinstance(self._model, xgboost.Booster):
                return [values(self._model.predict(xgboost.DMatrix(frame)), rows.count)]
            return answers(self._model, frame, rows.count, self._classifies)

    def thresholds(self) -> Sequence[tuple[Place, float]]:
        """What the trees branch on; nothing where they are not converted anyway."""
        try:
            return branches(trees(self._model)[0], self._signature)
        except ValueError:
            return []

    def convert(self, _rung: Way, name: str) -> bytes:
        """The trees in 32 bits."""
        forest, ending = trees(self._model)
        return to_onnx(forest, ending, self._signature, "float", name)


def trees(model: Any) -> tuple[Forest, Ending]:
    """The trees of a booster or a wrapper, and what comes after them.

    Raises:
        ValueError: it has what is not converted.
    """
    wrapped = hasattr(model, "get_booster")
    booster = model.get_booster() if wrapped else model
    learner = json.loads(booster.save_raw("json"))["learner"]
    rounds = booster.attr("best_iteration") if wrapped else None  # only the wrappers stop at the best one
    objective = learner["objective"]["name"]
    if objective not in _LINKS:
        raise ValueError(f"the objective {objective} is not converted")
    forest = _forest(learner, _LINKS[objective], int(rounds) + 1 if rounds else None)
    if not type(model).__name__.endswith("Classifier"):
        return forest, Ending(_LINKS[objective])
    each = int(learner["learner_model_param"].get("num_target", 1)) > 1
    return forest, Ending(_LINKS[objective], classes=np.asarray(model.classes_), each=each)


def _forest(learner: Mapping[str, Any], link: Link, rounds: int | None) -> Forest:
    booster, parameters = learner["gradient_booster"], learner["learner_model_param"]
    if booster["name"] not in ("gbtree", "dart"):
        raise ValueError(f"boosters of the kind {booster['name']} are not converted")
    model = booster["gbtree"]["model"] if booster["name"] == "dart" else booster["model"]
    outputs = max(1, int(parameters["num_class"]), int(parameters.get("num_target", 1)))
    forest = Forest(outputs, _margins(parameters["base_score"], link, outputs))
    kept = len(model["trees"])
    if rounds is not None:
        kept = rounds * outputs * int(model["gbtree_model_param"]["num_parallel_tree"])
    weights = booster.get("weight_drop") or [1.0] * len(model["trees"])
    for number, tree in enumerate(model["trees"][:kept]):
        _grow(forest, number, tree, int(model["tree_info"][number]), float(weights[number]))
    return forest


def _margins(base_score: str, link: Link, outputs: int) -> list[float]:
    """What the sums begin with, from what the model says its answers begin with."""
    bases = np.array(json.loads(base_score) if base_score.startswith("[") else [float(base_score)], dtype=np.float64)
    if link == "sigmoid":
        bases = np.array([math.log(base / (1 - base)) for base in bases])
    elif link == "exp":
        bases = np.log(bases)
    return [float(base) for base in np.broadcast_to(bases, outputs)]


def _grow(forest: Forest, number: int, tree: Mapping[str, Any], output: int, weight: float) -> None:
    if any(tree.get("split_type", ())) or tree.get("categories"):
        raise ValueError("splits on categories are not converted")
    if int(tree["tree_param"].get("size_leaf_vector", 1)) > 1:
        raise ValueError("trees of several outputs each are not converted: train with one_output_per_tree")
    waiting = [0]
    while waiting:
        node = waiting.pop()
        left, right = tree["left_children"][node], tree["right_children"][node]
        value = float(np.float32(tree["split_conditions"][node]))
        if left == -1:
            forest.leaf(number, node, output, float(np.float32(weight) * np.float32(value)))
            continue
        feature, missing_left = tree["split_indices"][node], bool(tree["default_left"][node])
        forest.split(number, node, feature, "BRANCH_LT", value, left, right, missing_left)
        waiting += [right, left]
