"""LightGBM: boosters as text and scikit-learn wrappers as MLflow pickles them, with a converter of our own.

LightGBM tests `x <= t` in 64 bits. On 32-bit columns a threshold rounded down to 32 bits answers the same (`float`);
otherwise the trees are kept in 64 bits (`double`). `Booster.dump_model` says all that is needed.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .. import native
from ..frames import given
from ..hurt import Place
from ..mlmodel import Card
from ..refusal import Refused
from ..rows import Rows
from ..tensors import Array, Matrix, Signature
from . import Way
from .common import answers, asking, loading
from .trees import Arithmetic, Ending, Forest, Link, branches, to_onnx

FLOAT, DOUBLE = Way("float", {"arithmetic": "float"}), Way("double", {"arithmetic": "double"})
_LINKS: Mapping[str, Link] = {
    "binary": "sigmoid",
    "cross_entropy": "sigmoid",
    "multiclassova": "sigmoid",
    "multiclass": "softmax",
    "poisson": "exp",
    "gamma": "exp",
    "tweedie": "exp",
    "regression": "identity",
    "regression_l1": "identity",
    "huber": "identity",
    "fair": "identity",
    "quantile": "identity",
    "mape": "identity",
    "lambdarank": "identity",
    "rank_xendcg": "identity",
}
_ZERO = 1e-35


def load(card: Card, signature: Signature) -> "Booster":
    """The booster or the wrapper.

    Raises:
        Refused: it cannot be loaded here, or is neither.
    """
    kept: list[str] = []
    with loading(card, kept):
        import lightgbm

        if card.settings.get("model_class", "").endswith(".Booster"):
            return Booster(lightgbm.Booster(model_file=str(card.file)), signature, kept)
        model = native.unpickled(card)
        if not isinstance(model, lightgbm.LGBMModel):
            reason = f"The model is a {type(model).__name__}, which is not LightGBM's."
            raise Refused("unsupported-estimator", reason, "Log it with the flavor of its own library.")
        return Booster(model, signature, kept)


class Booster:
    """A loaded model of LightGBM."""

    def __init__(self, model: Any, signature: Signature, warnings: list[str]) -> None:
        self._model, self._signature, self.warnings = model, signature, warnings
        self.title = f"LightGBM, {type(model).__name__}"
        self._classifies = hasattr(model, "predict_proba")
        columns = [signature] if isinstance(signature, Matrix) else signature
        in_32_bits = all(column.kind.dtype in (np.float32, np.bool_) for column in columns)
        self.rungs: Sequence[Way] = (FLOAT, DOUBLE) if in_32_bits else (DOUBLE,)

    def predict(self, rows: Rows) -> list[Array]:
        """As `flavors.Model` says."""
        with asking():
            return answers(self._model, given(rows, self._signature), rows.count, self._classifies)

    def thresholds(self) -> Sequence[tuple[Place, float]]:
        """What the trees branch on; nothing where they are not converted anyway."""
        try:
            return branches(trees(self._model)[0], self._signature)
        except ValueError:
            return []

    def convert(self, rung: Way, name: str) -> bytes:
        """The trees in the rung's arithmetic."""
        forest, ending = trees(self._model)
        arithmetic: Arithmetic = "double" if rung is DOUBLE else "float"
        return to_onnx(forest, ending, self._signature, arithmetic, name)


def trees(model: Any) -> tuple[Forest, Ending]:
    """The trees of a booster or a wrapper, and what comes after them.

    Raises:
        ValueError: it has what is not converted.
    """
    dump = (model if hasattr(model, "dump_model") else model.booster_).dump_model()
    objective, *words = str(dump.get("objective", "none")).split()
    classifies, sums = hasattr(model, "predict_proba"), dump["num_tree_per_iteration"]
    if objective not in _LINKS or (objective == "multiclassova" and classifies):
        raise ValueError(f"the objective {objective} is not converted")
    if any(word.startswith("sigmoid:") and float(word[8:]) != 1.0 for word in words):
        raise ValueError("sigmoids that are scaled are not converted")
    forest = Forest(sums, [0.0] * sums)
    for number, tree in enumerate(dump["tree_info"]):
        _grow(forest, number, number % sums, tree["tree_structure"])
    return forest, Ending(
        _LINKS[objective],
        classes=np.asarray(model.classes_) if classifies else None,
        scale=sums / len(dump["tree_info"]) if dump.get("average_output") else 1.0,
        squared="sqrt" in words,
    )


def _grow(forest: Forest, number: int, output: int, root: Mapping[str, Any]) -> None:
    waiting, next_node = [(0, root)], 1
    while waiting:
        node, told = waiting.pop()
        if "leaf_value" in told:
            if "leaf_coeff" in told:
                raise ValueError("linear leaves are not converted")
            forest.leaf(number, node, output, told["leaf_value"])
            continue
        left, right, next_node = next_node, next_node + 1, next_node + 2
        missing = _missing_goes_left(told)
        if told["decision_type"] == "<=":
            forest.split(
                number, node, told["split_feature"], "BRANCH_LEQ", float(told["threshold"]), left, right, missing
            )
        else:
            next_node = _categories(forest, number, node, told, (left, right), next_node)
        waiting += [(right, told["right_child"]), (left, told["left_child"])]


def _missing_goes_left(told: Mapping[str, Any]) -> bool:
    if told["decision_type"] == "==":
        return False  # what is no category is in none
    kind = told["missing_type"]
    if kind == "Zero":
        raise ValueError("zeros that stand for missing values are not converted")
    return bool(told["default_left"]) if kind == "NaN" else float(told["threshold"]) >= 0.0


def _categories(
    forest: Forest, number: int, node: int, told: Mapping[str, Any], ways: tuple[int, int], next_node: int
) -> int:
    """A test for one category after another; a node cannot be reached by two ways, so that only one fits."""
    wanted = str(told["threshold"]).split("||")
    if len(wanted) > 1:
        raise ValueError("splits on several categories at once are not converted")
    forest.split(number, node, told["split_feature"], "BRANCH_EQ", float(wanted[0]), *ways, False)
    return next_node
