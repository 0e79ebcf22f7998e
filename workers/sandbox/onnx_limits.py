"""How large and how tangled an ONNX model may be, before anything that would follow it all looks at it."""

import math
from collections.abc import Iterator

import onnx

from . import onnx_walk as walk
from .refusal import Refused

MAX_NODES = 100_000
MAX_TENSORS = 20_000
MAX_ELEMENTS = 1 << 30
MAX_ATTRIBUTES = 1000
MAX_VALUES = 200_000_000
MAX_DEPTH = 8
MAX_LOOPS = 64
_LOOPS = frozenset({"Loop", "Scan", "SequenceMap"})
_REMEDY = "Export a smaller model."


def check(model: onnx.ModelProto) -> None:
    """Count nodes (with functions written out), tensors, attributes, loops and the depth of graphs within graphs.

    Raises:
        Refused: there is too much of something, a function calls itself, or a loop does not say when it ends.
    """
    for what, limit, found in _counts(model):
        if found > limit:
            raise Refused("onnx-limits", f"The ONNX model has {what}: {found} where {limit} may be.", _REMEDY)
    for node in walk.nodes(model):
        if node.op_type == "Loop" and (not node.input or not node.input[0]):
            reason = f"The loop {node.name!a} in the ONNX model has no largest number of turns."
            raise Refused("onnx-limits", reason, "Give every Loop its first input.")


def _counts(model: onnx.ModelProto) -> Iterator[tuple[str, int, int]]:
    yield "too many nodes", MAX_NODES, sum(len(holder.node) for holder, _ in walk.holders(model))
    yield "graphs nested too deep", MAX_DEPTH, max(depth for _, depth in walk.holders(model))
    yield "too many loops", MAX_LOOPS, sum(node.op_type in _LOOPS for node in walk.nodes(model))
    yield "too many nodes with its functions written out", MAX_NODES, _written_out(model)
    yield "too many attributes at a node", MAX_ATTRIBUTES, max((len(n.attribute) for n in walk.nodes(model)), default=0)
    yield "too many values in attributes", MAX_VALUES, sum(_values(entry) for entry in walk.attributes(model))
    yield "too many tensors", MAX_TENSORS, sum(1 for _ in walk.tensors(model))
    yield "a tensor with too many elements", MAX_ELEMENTS, max(_sizes(model), default=0)


def _values(attribute: onnx.AttributeProto) -> int:
    return len(attribute.ints) + len(attribute.floats) + len(attribute.strings) + len(attribute.s)


def _sizes(model: onnx.ModelProto) -> Iterator[int]:
    """What the tensors say of themselves; a sparse one may claim any size and holds next to nothing."""
    for tensor in walk.tensors(model):
        yield math.prod(tensor.dims)
    for sparse in walk.sparse_tensors(model):
        yield math.prod(sparse.dims)


def _written_out(model: onnx.ModelProto) -> int:
    """How many nodes there are once each call of a function is replaced by its body: a few functions that call each
    other twice make as many as you like."""
    functions = {(function.domain, function.name): function for function in model.functions}
    sizes: dict[tuple[str, str], int] = {}
    open_calls: set[tuple[str, str]] = set()

    def size(holder: walk.Holder) -> int:
        return sum(of_call(node) + sum(size(graph) for graph in walk.graphs_of(node)) for node in holder.node)

    def of_call(node: onnx.NodeProto) -> int:
        key = (node.domain, node.op_type)
        if key not in functions:
            return 1
        if key in open_calls or len(open_calls) > MAX_DEPTH:
            reason = f"The function {key[1]!a} of the ONNX model calls itself, or too many others below it."
            raise Refused("onnx-limits", reason, "Export the model without functions.")
        if key not in sizes:
            open_calls.add(key)
            sizes[key] = size(functions[key])
            open_calls.discard(key)
        return sizes[key]

    return size(model.graph)
