"""Giving a converted model its inputs back: one per column of the signature, by its name and in its own type."""

from collections.abc import Sequence

import onnx

from .tensors import KINDS, Column

GATHERED = "headgate_gathered"
"""The one input of a model that was converted on a matrix of its columns."""


def restore_inputs(graph: onnx.GraphProto, columns: Sequence[Column], arithmetic: str) -> None:
    """Let the graph take each column in the signature's type and cast it to what it computes in.

    Where the graph takes GATHERED, the columns are put side by side in front of it.
    """
    gathered = graph.input[0].name == GATHERED
    if gathered:
        del graph.input[:]
        graph.input.extend(onnx.helper.make_tensor_value_info(c.name, c.kind.onnx_number, [None, 1]) for c in columns)
    first: list[onnx.NodeProto] = []
    inner = [_cast(graph, column, arithmetic, first) for column in columns]
    if gathered:
        first.append(onnx.helper.make_node("Concat", inner, [GATHERED], name=GATHERED, axis=1))
    nodes = [*first, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)


def _cast(graph: onnx.GraphProto, column: Column, arithmetic: str, nodes: list[onnx.NodeProto]) -> str:
    """Add the cast that the column needs, if any, to `nodes`; return the name of what the graph shall read."""
    wanted, computed = column.kind.onnx_number, KINDS[arithmetic].onnx_number
    if column.type == "string" or wanted == computed:
        return column.name
    value = next(value for value in graph.input if value.name == column.name)
    value.type.tensor_type.elem_type = wanted
    inner = f"headgate_cast_{column.name}"
    rename_uses(graph, column.name, inner)
    nodes.append(onnx.helper.make_node("Cast", [column.name], [inner], name=inner, to=computed))
    return inner


def rename_uses(graph: onnx.GraphProto, old: str, new: str) -> None:
    """Let all nodes read `new` instead of `old`, those of graphs within nodes included: they see outer names."""
    for node in graph.node:
        for at, used in enumerate(node.input):
            if used == old:
                node.input[at] = new
        for attribute in node.attribute:
            for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                rename_uses(inner, old, new)


def flatten_label(graph: onnx.GraphProto) -> None:
    """Give the first output, of whatever shape, as [n]."""
    output = graph.output[0]
    inner, shape = f"headgate_tall_{output.name}", "headgate_flat"
    for node in graph.node:
        node.output[:] = [inner if name == output.name else name for name in node.output]
        node.input[:] = [inner if name == output.name else name for name in node.input]
    graph.initializer.append(onnx.helper.make_tensor(shape, onnx.TensorProto.INT64, [1], [-1]))
    graph.node.append(onnx.helper.make_node("Reshape", [inner, shape], [output.name], name=shape))
    output.CopyFrom(onnx.helper.make_tensor_value_info(output.name, output.type.tensor_type.elem_type, [None]))


def concatenate(graph: onnx.GraphProto) -> None:
    """Put columns side by side with Concat: ONNX Runtime's FeatureVectorizer ends its process when there is no row."""
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        if node.op_type != "FeatureVectorizer":
            nodes.append(node)
            continue
        inner = [f"headgate_{node.output[0]}_{at}" for at in range(len(node.input))]
        for name, made in zip(node.input, inner, strict=True):
            nodes.append(onnx.helper.make_node("Cast", [name], [made], name=made, to=onnx.TensorProto.FLOAT))
        nodes.append(onnx.helper.make_node("Concat", inner, list(node.output), name=node.name, axis=1))
    del graph.node[:]
    graph.node.extend(nodes)
