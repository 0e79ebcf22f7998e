"""Walking through ONNX models: every node, graph and tensor, however deep it hides."""

from collections.abc import Iterator

import onnx

Holder = onnx.GraphProto | onnx.FunctionProto


def holders(model: onnx.ModelProto) -> Iterator[tuple[Holder, int]]:
    """Everything that holds nodes, with how deep it lies in other graphs: the model's graph, its functions, and the
    graphs within nodes. Protobuf itself reads no message that is nested deeper than 100."""
    waiting: list[tuple[Holder, int]] = [(model.graph, 0), *((function, 0) for function in model.functions)]
    for training in model.training_info:
        waiting += [(training.initialization, 0), (training.algorithm, 0)]
    while waiting:
        holder, depth = waiting.pop()
        yield holder, depth
        waiting += [(graph, depth + 1) for node in holder.node for graph in graphs_of(node)]


def nodes(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    """All nodes."""
    for holder, _ in holders(model):
        yield from holder.node


def attributes(model: onnx.ModelProto) -> Iterator[onnx.AttributeProto]:
    """All attributes of nodes, and the defaults of functions."""
    for holder, _ in holders(model):
        for node in holder.node:
            yield from node.attribute
        if isinstance(holder, onnx.FunctionProto):
            yield from holder.attribute_proto


def graphs_of(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """The graphs that are attributes of the node."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """All tensors with values of their own, the two halves of sparse ones included."""
    for holder, _ in holders(model):
        if isinstance(holder, onnx.GraphProto):
            yield from holder.initializer
    for attribute in attributes(model):
        if attribute.HasField("t"):
            yield attribute.t
        yield from attribute.tensors
    for sparse in sparse_tensors(model):
        yield from (sparse.values, sparse.indices)


def sparse_tensors(model: onnx.ModelProto) -> Iterator[onnx.SparseTensorProto]:
    """All sparse tensors."""
    for holder, _ in holders(model):
        if isinstance(holder, onnx.GraphProto):
            yield from holder.sparse_initializer
    for attribute in attributes(model):
        if attribute.HasField("sparse_tensor"):
            yield attribute.sparse_tensor
        yield from attribute.sparse_tensors
