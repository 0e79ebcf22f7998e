"""What may be in an ONNX model that Headgate serves."""

from collections.abc import Mapping
from typing import Any

import onnx

from . import onnx_limits
from . import onnx_walk as walk
from .refusal import Refused

KNOWN_DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft"})
"""What ONNX Runtime carries itself; any other domain needs a library that the server lacks."""
_FILE_READERS = frozenset({"EPContext"})
"""Operators of known domains that name a file beside the model, which an execution provider would open."""
_MODEL_WORDS = {"opset": "opset", "ml_opset": "opset of ai.onnx.ml", "ir_version": "file format (IR version)"}


def parse(data: bytes) -> onnx.ModelProto:
    """The model in the bytes.

    Raises:
        Refused: they are not ONNX.
    """
    refused = Refused("invalid-onnx", "The model's file is not ONNX.", "Export the model again.")
    try:
        model: onnx.ModelProto = onnx.load_from_string(data)
    except Exception as error:
        # Protobuf has its own error for bytes, and others for names within.
        raise refused from error
    if not model.HasField("graph"):  # Protobuf takes no bytes at all, and many others, for a message of nothing.
        raise refused
    return model


def check(model: onnx.ModelProto, support: Mapping[str, Any] | None = None) -> None:
    """Check the model by ONNX's own rules and ours; `support` is what the target's ONNX Runtime loads: {"runtime",
    "opset", "ml_opset", "ir_version"}.

    Raises:
        Refused: it is not valid, too large or tangled, keeps data in other files, uses operators of an unknown domain,
            takes or gives a fixed number of rows, or is newer than the server.
    """
    _check_data(model)
    onnx_limits.check(model)
    _check_operators(model)
    _check_batch_axis(model)
    if support is not None:
        _check_age(model, support)
    try:
        onnx.checker.check_model(model, full_check=True)
    except MemoryError:
        raise
    except Exception as error:
        # The checker has errors of its own, and lets through those of the C++ below it, whatever they are.
        said = " ".join(str(error).split())[:300]
        raise Refused("invalid-onnx", f"The ONNX model is not valid: {said}", "Export the model again.") from error


def opset_of(model: onnx.ModelProto, *domains: str) -> int:
    """The highest version of the operators of a domain that the model asks for; 0 where it asks for none."""
    return max((int(entry.version) for entry in model.opset_import if entry.domain in domains), default=0)


def default_opset(model: onnx.ModelProto) -> int:
    """The version of ONNX's own operators that the model asks for."""
    return opset_of(model, "", "ai.onnx")


def _check_data(model: onnx.ModelProto) -> None:
    outside = onnx.TensorProto.EXTERNAL
    if any(tensor.data_location == outside or tensor.external_data for tensor in walk.tensors(model)):
        reason = "The ONNX model keeps data outside its own file."
        raise Refused("external-data", reason, "Save it with save_as_external_data=False.")
    if model.training_info:
        raise Refused("training-data", "The ONNX model holds a training graph.", "Export it for inference only.")


def _check_operators(model: onnx.ModelProto) -> None:
    domains = {entry.domain for entry in model.opset_import} | {function.domain for function in model.functions}
    domains |= {entry.domain for function in model.functions for entry in function.opset_import}
    domains |= {node.domain for node in walk.nodes(model)}
    if unknown := sorted(domains - KNOWN_DOMAINS):
        reason = f"The ONNX model uses operators of the domains {', '.join(map(ascii, unknown))}."
        raise Refused("unknown-operators", reason, f"Use {', '.join(sorted(KNOWN_DOMAINS - {''}))} only.")
    if readers := sorted({node.op_type for node in walk.nodes(model)} & _FILE_READERS):
        reason = f"The ONNX model uses {', '.join(readers)}, which reads other files."
        raise Refused("external-data", reason, "Export the model without compiled parts.")


def _check_batch_axis(model: onnx.ModelProto) -> None:
    """Inputs and outputs count rows along their first axis, whose length nobody has fixed."""
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    if not inputs or not model.graph.output:
        reason = "The ONNX model has no input, or no output."
        raise Refused("no-batch-axis", reason, "Export it with the inputs and outputs of its predictions.")
    for value in inputs:
        if not value.type.tensor_type.HasField("shape") or not value.type.tensor_type.shape.dim:
            reason = f"The input {value.name!a} of the ONNX model has no axis for rows."
            raise Refused("no-batch-axis", reason, "Export it with inputs of the shape [None, ...].")
    for value in (*inputs, *model.graph.output):
        dims = value.type.tensor_type.shape.dim
        if dims and dims[0].HasField("dim_value"):
            reason = f"{value.name!a} of the ONNX model always has {dims[0].dim_value} rows."
            raise Refused("no-batch-axis", reason, "Export it with a dynamic first axis: one row or many at a time.")


def _check_age(model: onnx.ModelProto, support: Mapping[str, Any]) -> None:
    wanted = {
        "opset": default_opset(model),
        "ml_opset": opset_of(model, "ai.onnx.ml"),
        "ir_version": int(model.ir_version),
    }
    for key, words in _MODEL_WORDS.items():
        if wanted[key] > int(support[key]):
            reason = f"The ONNX model has {words} {wanted[key]}; {support['runtime']} loads {support[key]} at most."
            remedy = f"Export it with {words} {support[key]}, or serve it on a newer Triton."
            raise Refused("newer-than-server", reason, remedy)
