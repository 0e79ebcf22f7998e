"""What may be in an ONNX model that Headgate serves."""

from collections.abc import Iterable, Iterator

import onnx

from .refusal import Refused
from .runner import Runner

KNOWN_DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft"})
"""What ONNX Runtime carries itself; any other domain needs a library that the server lacks."""


def parse(data: bytes) -> onnx.ModelProto:
    """The model in the bytes.

    Raises:
        Refused: they are not ONNX.
    """
    try:
        return onnx.load_from_string(data)
    except Exception as error:
        # Protobuf has its own error for bytes, and others for names within.
        raise Refused("invalid-onnx", "The model's file is not ONNX.", "Export the model again.") from error


def load(data: bytes) -> Runner:
    """The model in ONNX Runtime.

    Raises:
        Refused: ONNX Runtime cannot load it.
    """
    try:
        return Runner(data)
    except MemoryError:
        raise
    except Exception as error:
        reason = f"ONNX Runtime cannot load the model: {' '.join(str(error).split())[:300]}"
        raise Refused("invalid-onnx", reason, "Export the model for the operators of ONNX Runtime.") from error


def check(model: onnx.ModelProto) -> None:
    """Check the model by ONNX's own rules and ours.

    Raises:
        Refused: it is not valid, keeps data in other files, or uses operators of an unknown domain.
    """
    domains = {entry.domain for entry in model.opset_import} | {function.domain for function in model.functions}
    domains |= {node.domain for node in _nodes(model)}
    if unknown := sorted(domains - KNOWN_DOMAINS):
        reason = f"The ONNX model uses operators of the domains {', '.join(map(ascii, unknown))}."
        raise Refused("unknown-operators", reason, f"Use {', '.join(sorted(KNOWN_DOMAINS - {''}))} only.")
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in _tensors(model)):
        reason = "The ONNX model keeps data outside its own file."
        raise Refused("external-data", reason, "Save it with save_as_external_data=False.")
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise Refused("invalid-onnx", f"The ONNX model is not valid: {error}", "Export the model again.") from error


def default_opset(model: onnx.ModelProto) -> int:
    """The version of ONNX's own operators that the model asks for."""
    return next((int(entry.version) for entry in model.opset_import if entry.domain in {"", "ai.onnx"}), 0)


def _nodes(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    """All nodes, those of functions and of graphs within nodes included."""
    waiting: list[Iterable[onnx.NodeProto]] = [model.graph.node, *(function.node for function in model.functions)]
    while waiting:
        for node in waiting.pop():
            yield node
            waiting += [graph.node for graph in _graphs_of(node)]


def _graphs_of(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def _tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    nodes = list(_nodes(model))
    for graph in (model.graph, *(graph for node in nodes for graph in _graphs_of(node))):
        yield from graph.initializer
        for sparse in graph.sparse_initializer:
            yield from (sparse.values, sparse.indices)
    for node in nodes:
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)
