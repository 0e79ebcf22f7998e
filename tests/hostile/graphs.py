"""ONNX models that read other files, call what the server lacks, or never end."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from tests.hostile import Artifact, Artifacts, Bait, in_model
from tests.hostile.pickles import evil

CARD = "flavors:\n  onnx: {data: model.onnx}\n"
Change = Callable[[onnx.ModelProto, Bait], object]


def plain(*nodes: onnx.NodeProto, domains: tuple[str, ...] = (), **more: Any) -> onnx.ModelProto:
    """A model of one column; good as long as its nodes are."""
    nodes = nodes or (helper.make_node("Add", ["x", "w"], ["y"]),)
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, 1]) for name in "xy"]
    weight = onnx.numpy_helper.from_array(np.ones((1, 1), dtype=np.float32), "w")
    opsets = [helper.make_opsetid("", 18), *(helper.make_opsetid(domain, 1) for domain in domains)]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], [weight])
    return helper.make_model(graph, opset_imports=opsets, ir_version=9, **more)


def _place(location: Callable[[Bait], str]) -> Change:
    def change(model: onnx.ModelProto, bait: Bait) -> None:
        weight = model.graph.initializer[0]
        weight.ClearField("raw_data")
        weight.data_location = TensorProto.EXTERNAL
        weight.external_data.add(key="location", value=location(bait))

    return change


def _in_a_subgraph(model: onnx.ModelProto, bait: Bait) -> None:
    weight = onnx.TensorProto(name="w", data_type=1, dims=[1], data_location=TensorProto.EXTERNAL)
    weight.external_data.add(key="location", value=str(bait.secret))
    graph = helper.make_graph([], "inner", [], [], [weight])
    model.graph.node.append(helper.make_node("If", ["w"], ["z"], then_branch=graph, else_branch=graph))


def _calls(*functions: tuple[str, int, str]) -> onnx.ModelProto:
    """A model that calls the first of the functions (its name, how often it calls, what it calls)."""
    made = [
        helper.make_function(
            "com.microsoft",
            name,
            ["a"],
            ["b"],
            [helper.make_node(called, ["a"], ["b"], domain="com.microsoft")] * times,
            [helper.make_opsetid("", 18)],
        )
        for name, times, called in functions
    ]
    node = helper.make_node(functions[0][0], ["x"], ["y"], domain="com.microsoft")
    return plain(node, domains=("com.microsoft",), functions=made)


def _nested(depth: int) -> onnx.NodeProto:
    inner = helper.make_node("Identity", ["x"], ["z"]) if depth == 0 else _nested(depth - 1)
    graph = helper.make_graph([inner], "inner", [], [])
    return helper.make_node("If", ["w"], ["y"], then_branch=graph, else_branch=graph)


def _loop() -> onnx.NodeProto:
    body = helper.make_graph([], "body", [], [])
    return helper.make_node("Loop", ["", "", "x"], ["y"], body=body)


def _of_domain(operator: str, domain: str, **attributes: Any) -> onnx.ModelProto:
    return plain(helper.make_node(operator, ["x"], ["y"], domain=domain, **attributes), domains=(domain,))


CHANGED: Mapping[str, Change] = {
    "data in the secret": _place(lambda bait: str(bait.secret)),
    "data above": _place(lambda bait: "../../../etc/passwd"),
    "data above, within": _place(lambda bait: "a/../../secret"),
    "data beside": _place(lambda bait: "weights.bin"),
    "data at an address": _place(lambda bait: f"http://127.0.0.1:{bait.port}/x"),
    "data outside without a mark": lambda model, bait: model.graph.initializer[0].external_data.add(key="location"),
    "data outside in a graph within": _in_a_subgraph,
    "a training graph": lambda model, bait: model.training_info.add(),
    "a tensor of any size": lambda model, bait: model.graph.initializer[0].dims.append(1 << 60),
    "a sparse tensor of any size": lambda model, bait: model.graph.sparse_initializer.add(dims=[1 << 30, 1 << 30]),
    "a tensor without its data": lambda model, bait: model.graph.initializer[0].ClearField("raw_data"),
    "a tensor of less than nothing": lambda model, bait: model.graph.initializer[0].dims.append(-1),
    "weights that are not there": lambda model, bait: model.graph.ClearField("initializer"),
    "nodes in a circle": lambda model, bait: model.graph.node.append(helper.make_node("Add", ["z", "x"], ["z"])),
}
MADE: Mapping[str, Callable[[Bait], bytes]] = {
    "operators of their own": lambda bait: _of_domain("Run", "evil.ops").SerializeToString(),
    "Python operators": lambda bait: _of_domain("PyOp", "ai.onnx.contrib", code=bait.code).SerializeToString(),
    "a compiled part": lambda bait: _of_domain(
        "EPContext", "com.microsoft", ep_cache_context=str(bait.secret), embed_mode=0
    ).SerializeToString(),
    "an operator that nobody knows": lambda bait: plain(helper.make_node("NoSuch", ["x"], ["y"])).SerializeToString(),
    "a loop without end": lambda bait: plain(_loop()).SerializeToString(),
    "graphs within graphs": lambda bait: plain(_nested(12)).SerializeToString(),
    "a function that calls itself": lambda bait: _calls(("f", 1, "f")).SerializeToString(),
    "functions in a circle": lambda bait: _calls(("f", 1, "g"), ("g", 1, "f")).SerializeToString(),
    "functions that multiply": lambda bait: _calls(*((f"f{n}", 10, f"f{n + 1}") for n in range(7))).SerializeToString(),
    "too many nodes": lambda bait: plain(*[helper.make_node("Identity", ["x"], ["y"])] * 100_001).SerializeToString(),
    "a pickle": evil,
    "nothing": lambda bait: b"",
    "text": lambda bait: b"not onnx at all",
    "half a model": lambda bait: plain().SerializeToString()[:-20],
    "another message": lambda bait: b"\x08\x07\x12\x04evil",
}


def artifacts() -> Artifacts:
    """Good models with one change, and bad ones from the ground."""
    for name, change in CHANGED.items():

        def data(bait: Bait, change: Change = change) -> bytes:
            model = plain()
            change(model, bait)
            return bytes(model.SerializeToString())

        yield Artifact("ONNX", name, in_model(data, "model.onnx", CARD), "model.onnx")
    for name, made in MADE.items():
        yield Artifact("ONNX", name, in_model(made, "model.onnx", CARD), "model.onnx")
