"""VotingClassifier: skl2onnx's own conversion, which refuses `flatten_transform=True`, the default.

Source: sklearn/ensemble/_voting.py: the option shapes the answer of `transform` and of nothing else, so the labels
and the probabilities are the same without it.
"""

from typing import Any

from skl2onnx import update_registered_converter
from skl2onnx.common._registration import get_converter, get_shape_calculator
from sklearn.ensemble import VotingClassifier

_ALIAS = "SklearnVotingClassifier"


def register() -> None:
    original = get_converter(_ALIAS)

    def convert(scope: Any, operator: Any, container: Any) -> None:
        model = operator.raw_operator
        flatten, model.flatten_transform = model.flatten_transform, False
        try:
            original(scope, operator, container)
        finally:
            model.flatten_transform = flatten

    options = {
        "zipmap": [True, False, "columns"],
        "output_class_labels": [False, True],
        "nocl": [True, False],
    }
    update_registered_converter(
        VotingClassifier, _ALIAS, get_shape_calculator(_ALIAS), convert, overwrite=True, options=options
    )
