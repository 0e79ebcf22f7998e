"""A Python-based Triton backend named "onnxruntime": the CPU stand-in for NVIDIA's C++ backend of that name.

It serves an unchanged model repository (`backend: "onnxruntime"`, `N/model.onnx`) where the C++ backend does not exist,
that is outside NVIDIA's own images. It reads the same parameters (`intra_op_thread_count`, `inter_op_thread_count`)
and answers the same numbers; it is slower, because each request passes through a Python process.
"""

import json
import os
import sys
from pathlib import Path

# Triton starts the interpreter isolated, so PYTHONPATH does not reach it: the packages are named by a variable of ours.
# They go first because the stub works with NumPy 1 only (see _check_numpy) and a distribution may carry another one.
sys.path[:0] = [folder for folder in os.environ.get("HEADGATE_PYTHON_PATH", "").split(os.pathsep) if folder]

import numpy as np  # noqa: E402  # found on the path set above
import onnxruntime as ort  # noqa: E402  # found on the path set above
import triton_python_backend_utils as pb_utils  # noqa: E402  # Triton's, beside the stub

ONNX_TYPES = {
    "tensor(bool)": "TYPE_BOOL",
    "tensor(uint8)": "TYPE_UINT8",
    "tensor(uint16)": "TYPE_UINT16",
    "tensor(uint32)": "TYPE_UINT32",
    "tensor(uint64)": "TYPE_UINT64",
    "tensor(int8)": "TYPE_INT8",
    "tensor(int16)": "TYPE_INT16",
    "tensor(int32)": "TYPE_INT32",
    "tensor(int64)": "TYPE_INT64",
    "tensor(float16)": "TYPE_FP16",
    "tensor(float)": "TYPE_FP32",
    "tensor(double)": "TYPE_FP64",
    "tensor(string)": "TYPE_STRING",
}
# What ONNX Runtime raises where the request, not the model or the machine, is at fault.
CALLERS_FAULT = ("InvalidArgument", "UnicodeDecodeError")


class TritonPythonModel:
    """One instance of one model, in a process of its own."""

    @staticmethod
    def auto_complete_config(auto_complete_model_config):
        """Leave the configuration as it is: Headgate writes it whole, and Triton does not say here where the model is.

        `initialize` checks what it says against the model.
        """
        return auto_complete_model_config

    def initialize(self, args):
        """Load `<repository>/<version>/model.onnx`; raises TritonModelException where it cannot serve as configured."""
        _check_numpy()
        config = json.loads(args["model_config"])
        path = Path(args["model_repository"], args["model_version"], config["default_model_filename"])
        kind = args["model_instance_kind"]
        try:
            self.session = ort.InferenceSession(str(path), _options(config), providers=_providers(kind, args))
        except Exception as error:  # ONNX Runtime raises many types; each is one answer to Triton
            raise pb_utils.TritonModelException(f"ONNX Runtime cannot load the model: {error}") from error
        if kind == "GPU" and "CUDAExecutionProvider" not in self.session.get_providers():
            raise pb_utils.TritonModelException("the configuration asks for a GPU and CUDA could not be started")
        _check_tensors("input", config["input"], self.session.get_inputs())
        _check_tensors("output", config["output"], self.session.get_outputs())

    def execute(self, requests):
        """Answer each request on its own: batches are never merged, so no request can change another one's numbers."""
        return [self._answer(request) for request in requests]

    def _answer(self, request):
        try:
            inputs = {tensor.name(): _from_triton(tensor) for tensor in request.inputs()}
            wanted = request.requested_output_names()
            names = [tensor.name for tensor in self.session.get_outputs() if tensor.name in wanted]
            values = self.session.run(names, inputs)
            arrays = [np.ascontiguousarray(value) for value in values]
            return pb_utils.InferenceResponse(list(map(pb_utils.Tensor, names, arrays)))
        except Exception as error:  # noqa: BLE001  # whatever is wrong with one request must not end the process
            theirs = type(error).__name__ in CALLERS_FAULT
            code = pb_utils.TritonError.INVALID_ARG if theirs else pb_utils.TritonError.INTERNAL
            return pb_utils.InferenceResponse(error=pb_utils.TritonError(f"{type(error).__name__}: {error}", code))


def _options(config):
    """One thread for each instance unless the configuration says otherwise: more requests at once beat more threads."""
    parameters = config.get("parameters", {})
    options = ort.SessionOptions()
    options.intra_op_num_threads = int(parameters.get("intra_op_thread_count", {}).get("string_value", "1"))
    options.inter_op_num_threads = int(parameters.get("inter_op_thread_count", {}).get("string_value", "1"))
    options.log_severity_level = 4  # errors are in the answers; a log line for each bad request would fill the disk
    return options


def _providers(kind, args):
    """CUDA for a GPU instance, and never the CPU silently in its place."""
    if kind != "GPU":
        return ["CPUExecutionProvider"]
    if "CUDAExecutionProvider" not in ort.get_available_providers():
        raise pb_utils.TritonModelException("the configuration asks for a GPU and this onnxruntime has no CUDA in it")
    # The operators that CUDA does not know (all of ai.onnx.ml) still run on the CPU, hence the second provider.
    return [("CUDAExecutionProvider", {"device_id": args["model_instance_device_id"]}), "CPUExecutionProvider"]


def _from_triton(tensor):
    """A NumPy array for ONNX Runtime, which takes strings as str: Triton hands them over as UTF-8 bytes."""
    array = tensor.as_numpy()
    if array.dtype != np.object_:
        return array
    flat = [item.decode() if isinstance(item, bytes) else str(item) for item in array.reshape(-1)]
    return np.array(flat, dtype=np.object_).reshape(array.shape)


def _check_tensors(role, configured, actual):
    """The configuration must name the model's own tensors, with their types."""
    known = {tensor.name: ONNX_TYPES.get(tensor.type, tensor.type) for tensor in actual}
    for tensor in configured:
        name, datatype = tensor["name"], tensor["data_type"]
        if known.get(name) != datatype:
            found = f"it is {known[name]}" if name in known else f"there are {sorted(known)}"
            raise pb_utils.TritonModelException(f"the model has no {role} {name!r} of type {datatype}: {found}")


def _check_numpy():
    """Refuse to serve wrong numbers: the stub was built for NumPy 1, and with NumPy 2 every row reads as the first."""
    if np.lib.NumpyVersion(np.__version__) >= "2.0.0":
        raise pb_utils.TritonModelException(f"Triton's Python stub misreads NumPy {np.__version__}: it needs numpy<2")
