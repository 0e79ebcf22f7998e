"""Boosters as steps of scikit-learn pipelines: our trees as converters that skl2onnx calls."""

import sys
from typing import Any

import numpy as np
from onnx import TensorProto

from . import lightgbm, xgboost
from .trees import RAW, Arithmetic, Graph

_KNOWN = {
    "xgboost": (xgboost.trees, ("XGBRegressor", "XGBClassifier", "XGBRFRegressor", "XGBRFClassifier")),
    "lightgbm": (lightgbm.trees, ("LGBMRegressor", "LGBMClassifier")),
}


def register() -> None:
    """Teach skl2onnx the boosters of the packages that the model has imported."""
    from skl2onnx import update_registered_converter
    from skl2onnx.common.shape_calculator import (
        calculate_linear_classifier_output_shapes,
        calculate_linear_regressor_output_shapes,
    )

    for package, (_, names) in _KNOWN.items():
        module = sys.modules.get(package)
        for name in names if module is not None else ():
            classifies = name.endswith("Classifier")
            shapes = (
                calculate_linear_classifier_output_shapes if classifies else calculate_linear_regressor_output_shapes
            )
            options = {"zipmap": [True, False, "columns"], "nocl": [True, False]} if classifies else None
            update_registered_converter(getattr(module, name), f"Headgate{name}", shapes, _convert, options=options)


def _convert(scope: Any, operator: Any, container: Any) -> None:
    """Add the trees' nodes under names that nobody else uses.

    XGBoost takes 32-bit numbers, whatever comes before it; LightGBM takes what comes before it as it is.
    """
    model = operator.raw_operator
    package = type(model).__module__.partition(".")[0]
    forest, ending = _KNOWN[package][0](model)
    is_double = "Double" in type(operator.inputs[0].type).__name__
    arithmetic: Arithmetic = "double" if is_double and package == "lightgbm" else "float"
    names = {"given": scope.get_unique_variable_name("given"), RAW: scope.get_unique_variable_name(RAW)}
    number = TensorProto.DOUBLE if arithmetic == "double" else TensorProto.FLOAT
    container.add_node(
        "Cast", operator.inputs[0].full_name, names["given"], name=scope.get_unique_operator_name("Cast"), to=number
    )
    graph = Graph([forest.as_node("given", arithmetic)])
    outputs = graph.ended(ending, forest.outputs)
    for output, wanted in zip(outputs, operator.outputs, strict=True):
        names[output.name] = scope.get_unique_variable_name(f"inner_{output.name}")
        kind = TensorProto.DOUBLE if "Double" in type(wanted.type).__name__ else output.type.tensor_type.elem_type
        names[graph.add("Cast", [output.name], f"outer_{output.name}", to=kind)] = wanted.full_name
    _put(scope, container, graph, names)


def _put(scope: Any, container: Any, graph: Graph, names: dict[str, str]) -> None:
    from onnx import helper, numpy_helper

    for constant in graph.constants:
        names[constant.name] = scope.get_unique_variable_name(constant.name)
        array = numpy_helper.to_array(constant)
        values = array.reshape(-1).tolist()
        if array.dtype == np.dtype(object):
            values = [value if isinstance(value, bytes) else str(value).encode() for value in values]
        container.add_initializer(names[constant.name], constant.data_type, list(array.shape), values)
    for node in graph.nodes:
        for output in node.output:
            names.setdefault(output, scope.get_unique_variable_name(output))
        attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
        container.add_node(
            node.op_type,
            [names[name] for name in node.input],
            [names[name] for name in node.output],
            op_domain=node.domain,
            op_version=3 if node.domain else None,
            name=scope.get_unique_operator_name(node.op_type),
            **attributes,
        )
