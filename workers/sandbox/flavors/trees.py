"""Decision trees as ONNX: nodes of `ai.onnx.ml.TreeEnsembleRegressor`, and what comes after their sums.

Written for Headgate, because the library's converters round 64-bit thresholds to 32 bits, which sends values beside a
threshold the wrong way. A test `x <= t` on 32-bit values keeps every answer when t is rounded down to 32 bits; on
64-bit values the operator takes 64-bit thresholds (`nodes_values_as_tensor`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import onnx
from onnx import TensorProto, helper

from ..hurt import Place
from ..tensors import Array, Matrix, Signature
from ..thresholds import MOST
from .common import IR_VERSION, OPSETS, input_name, input_shape, with_columns

Arithmetic = Literal["float", "double"]
Link = Literal["identity", "sigmoid", "exp", "softmax"]
RAW = "headgate_raw"


@dataclass
class Forest:
    """Trees whose leaves add to `outputs` sums; `base` is what each sum begins with."""

    outputs: int
    base: Sequence[float]
    trees: list[int] = field(default_factory=list)
    nodes: list[int] = field(default_factory=list)
    features: list[int] = field(default_factory=list)
    modes: list[str] = field(default_factory=list)
    thresholds: list[float] = field(default_factory=list)
    yes: list[int] = field(default_factory=list)
    no: list[int] = field(default_factory=list)
    missing_yes: list[int] = field(default_factory=list)
    leaves: list[tuple[int, int, int, float]] = field(default_factory=list)

    def split(
        self, tree: int, node: int, feature: int, mode: str, threshold: float, yes: int, no: int, missing_yes: bool
    ) -> None:
        """A node with a test; a missing value goes to `yes` where `missing_yes`."""
        for kept, value in zip(self._columns(), (tree, node, feature, mode, threshold, yes, no), strict=True):
            kept.append(value)
        self.missing_yes.append(int(missing_yes))

    def leaf(self, tree: int, node: int, output: int, weight: float) -> None:
        """A node without a test, which adds `weight` to the sum `output`."""
        self.split(tree, node, 0, "LEAF", 0.0, 0, 0, False)
        self.leaves.append((tree, node, output, weight))

    def as_node(self, given: str, arithmetic: Arithmetic) -> onnx.NodeProto:
        """The operator from `given` [n, features] of that type to RAW [n, outputs] in 32 bits."""
        trees, nodes, targets, weights = zip(*self.leaves, strict=True)
        thresholds, base = np.array(self.thresholds), np.array(self.base, dtype=np.float64)
        numbers = {"nodes_values": thresholds, "target_weights": np.array(weights), "base_values": base}
        if arithmetic == "double":
            values = {f"{name}_as_tensor": _tensor(value) for name, value in numbers.items()}
        else:
            numbers["nodes_values"] = rounded_down(thresholds, self.modes)
            values = {name: value.astype(np.float32).tolist() for name, value in numbers.items()}
        return helper.make_node(
            "TreeEnsembleRegressor",
            [given],
            [RAW],
            domain="ai.onnx.ml",
            n_targets=self.outputs,
            post_transform="NONE",
            nodes_treeids=self.trees,
            nodes_nodeids=self.nodes,
            nodes_featureids=self.features,
            nodes_modes=self.modes,
            nodes_truenodeids=self.yes,
            nodes_falsenodeids=self.no,
            nodes_missing_value_tracks_true=self.missing_yes,
            target_treeids=list(trees),
            target_nodeids=list(nodes),
            target_ids=list(targets),
            **values,
        )

    def _columns(self) -> Sequence[list]:  # type: ignore[type-arg]  # of numbers and of words
        return (self.trees, self.nodes, self.features, self.modes, self.thresholds, self.yes, self.no)


def branches(forest: Forest, signature: Signature) -> list[tuple[Place, float]]:
    """At most MOST pairs of a column and the value that a tree tests it against, those of the first trees first."""
    names: Sequence[Place] = range(signature.width) if isinstance(signature, Matrix) else [c.name for c in signature]
    splits = zip(forest.features, forest.modes, forest.thresholds, strict=True)
    found = dict.fromkeys((names[feature], threshold) for feature, mode, threshold in splits if mode != "LEAF")
    return list(found)[:MOST]


def rounded_down(thresholds: Array, modes: Sequence[str]) -> Array:
    """Thresholds of `x <= t` as the largest 32-bit number that is not above t; those of other tests are exact."""
    with np.errstate(over="ignore"):
        near = thresholds.astype(np.float32)
    above = (near.astype(np.float64) > thresholds) & (np.array(modes) == "BRANCH_LEQ")
    near[above] = np.nextafter(near[above], np.float32(-np.inf))
    return near


@dataclass(frozen=True)
class Ending:
    """What becomes of the sums: a `link`, then `scale` (the trees' mean instead of their sum); with `classes` a label
    and probabilities, else values. `each` says that every sum is a yes-or-no question of its own."""

    link: Link
    classes: Array | None = None
    scale: float = 1.0
    each: bool = False
    squared: bool = False


def to_onnx(forest: Forest, ending: Ending, signature: Signature, arithmetic: Arithmetic, name: str) -> bytes:
    """The whole model: columns, trees, ending."""
    given = input_name(signature)
    number = TensorProto.DOUBLE if arithmetic == "double" else TensorProto.FLOAT
    graph = Graph([forest.as_node(given, arithmetic)])
    outputs = graph.ended(ending, forest.outputs)
    taken = [helper.make_tensor_value_info(given, number, input_shape(signature))]
    made = helper.make_graph(graph.nodes, name, taken, outputs, graph.constants)
    opsets = [helper.make_opsetid(domain, version) for domain, version in OPSETS.items()]
    model = helper.make_model(made, opset_imports=opsets, ir_version=IR_VERSION, producer_name="headgate")
    return with_columns(model, signature, arithmetic)


@dataclass
class Graph:
    """Nodes and constants, growing from the trees' sums."""

    nodes: list[onnx.NodeProto]
    constants: list[onnx.TensorProto] = field(default_factory=list)

    def add(self, operator: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(operator, list(inputs), [output], **attributes))
        return output

    def constant(self, name: str, value: Array) -> str:
        self.constants.append(onnx.numpy_helper.from_array(value, name))
        return name

    def linked(self, ending: Ending, output: str) -> str:
        """The sums, scaled and linked."""
        scaled = RAW
        if ending.scale != 1.0:
            scaled = self.add("Mul", [RAW, self.constant("scale", np.float32(ending.scale).reshape(1))], "scaled")
        if ending.squared:
            # The model has learnt the root of its values, sign and all.
            self.add("Sign", [scaled], "sign")
            self.add("Mul", [scaled, scaled], "square")
            scaled = self.add("Mul", ["sign", "square"], "signed_square")
        operator = {"identity": "Identity", "sigmoid": "Sigmoid", "exp": "Exp", "softmax": "Softmax"}[ending.link]
        more = {"axis": 1} if operator == "Softmax" else {}
        return self.add(operator, [scaled], output, **more)

    def ended(self, ending: Ending, outputs: int) -> list[onnx.ValueInfoProto]:
        """Add what comes after `outputs` sums; returns what the graph then gives."""
        if ending.classes is not None:
            return self._labelled(ending, outputs)
        self.linked(ending, "variable")
        return [_info("variable", np.float32, [None, outputs])]

    def _labelled(self, ending: Ending, outputs: int) -> list[onnx.ValueInfoProto]:
        """Labels and probabilities. A tie goes to the first class, as with a maximum, and to no."""
        classes = np.asarray(ending.classes)
        chances = self.linked(ending, "linked" if outputs == 1 and not ending.each else "probabilities")
        half = self.constant("half", np.array([0.5], dtype=np.float32))
        if ending.each:
            self.add("Greater", [chances, half], "yes")
            self.add("Cast", ["yes"], "label", to=TensorProto.INT64)
            return [_info("label", np.int64, [None, outputs]), _info("probabilities", np.float32, [None, outputs])]
        if outputs == 1:
            self.add("Sub", [self.constant("one", np.array([1], dtype=np.float32)), chances], "other")
            self.add("Concat", ["other", chances], "probabilities", axis=1)
            self.add("Greater", [chances, half], "yes")
            self.add("Cast", ["yes"], "which_of_two", to=TensorProto.INT64)
            self.add("Reshape", ["which_of_two", self.constant("flat", np.array([-1]))], "which")
        else:
            self.add("ArgMax", [chances], "which", axis=1, keepdims=0)
        kind = object if classes.dtype.kind in "OUS" else np.int64
        self.add("Gather", [self.constant("classes", classes.astype(kind)), "which"], "label", axis=0)
        return [_info("label", kind, [None]), _info("probabilities", np.float32, [None, max(2, outputs)])]


def _info(name: str, kind: type, shape: list[int | None]) -> onnx.ValueInfoProto:
    number = TensorProto.STRING if kind is object else helper.np_dtype_to_tensor_dtype(np.dtype(kind))
    return helper.make_tensor_value_info(name, number, shape)


def _tensor(value: Array) -> onnx.TensorProto:
    return onnx.numpy_helper.from_array(value.astype(np.float64))
