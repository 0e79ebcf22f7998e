"""Renders what is served: a Triton model repository, and the folders from which images around it are built.

One repository serves in a process, in the image for the CPU and in the one for the GPU.
"""

import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from app.domain.errors import Fault, Rejected

MODEL_FILE = "model.onnx"
CONFIG_FILE = "config.pbtxt"

ROOT = Path(__file__).resolve().parents[1]
TEMPLATES = ROOT / "image_templates"

# A name becomes a folder, a part of URLs and an argument; a leading dot would hide the folder or climb out of it.
_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,199}")

# The V2 protocol's names and Triton's own for the same types. Others (BF16, sequences, maps) cannot be served.
_TYPES = {
    "BOOL": "TYPE_BOOL",
    "UINT8": "TYPE_UINT8",
    "UINT16": "TYPE_UINT16",
    "UINT32": "TYPE_UINT32",
    "UINT64": "TYPE_UINT64",
    "INT8": "TYPE_INT8",
    "INT16": "TYPE_INT16",
    "INT32": "TYPE_INT32",
    "INT64": "TYPE_INT64",
    "FP16": "TYPE_FP16",
    "FP32": "TYPE_FP32",
    "FP64": "TYPE_FP64",
    "BYTES": "TYPE_STRING",
}

_IMAGE = re.compile(r"[a-z0-9][A-Za-z0-9._/:@-]*")
_NGC = re.compile(r"/tritonserver:(\d\d)\.(\d\d)")
# NVIDIA's images before this have known holes that one request can use.
_OLDEST = (25, 7)


def check_model_name(model: str) -> None:
    """Raise Rejected where Triton, a URL or a folder cannot carry the model's name."""
    if not _NAME.fullmatch(model):
        raise Rejected(
            f"Triton cannot serve a model named {model!r}.",
            "Register it under a name of at most 200 letters, digits, '.', '_' and '-' that does not start with '.'.",
        )


def render_config(
    model: str,
    inputs: Sequence[Mapping[str, Any]],
    outputs: Sequence[Mapping[str, Any]],
    instance: Literal["cpu", "gpu"],
    count: int = 1,
) -> str:
    """The config.pbtxt of a model: the same text for the same arguments.

    A tensor is `{"name": str, "datatype": V2 datatype, "shape": list of int}` as in the ONNX file, -1 for any length.
    `count` is the number of instances, on the CPU or on each GPU.

    `max_batch_size` is 0: shapes are the ONNX file's own, so a request may carry any number of rows, and Triton never
    merges requests. Merging would be faster under load, but kernels choose their order of additions by the batch's
    size: a row's answer could depend on who else is calling, and differ from the one that was judged.

    Raises:
        Rejected: a name, a type or a shape that Triton has no word for.
    """
    check_model_name(model)
    if count < 1:
        raise Rejected(f"{count} instances cannot serve.", "Set target.count to 1 or more.")
    lines = [
        f"name: {_quoted(model)}",
        'backend: "onnxruntime"',
        f"default_model_filename: {_quoted(MODEL_FILE)}",
        "max_batch_size: 0",
        *_tensors("input", inputs),
        *_tensors("output", outputs),
        "version_policy { latest { num_versions: 1 } }",
        # Always written: without it Triton takes what it finds, and a missing GPU becomes a silent fallback to the CPU.
        f"instance_group {{ kind: KIND_{instance.upper()} count: {count} }}",
        # Requests run side by side in the instances; threads inside one request would fight them for the cores.
        'parameters { key: "intra_op_thread_count" value { string_value: "1" } }',
        'parameters { key: "inter_op_thread_count" value { string_value: "1" } }',
    ]
    return "\n".join(lines) + "\n"


def write_repository(folder: Path, model: str, onnx_file: Path, config: str, version: int = 1) -> Path:
    """Write `<folder>/<model>/config.pbtxt` and `<folder>/<model>/<version>/model.onnx` and return `folder`.

    What an earlier try left of this model is replaced. `version` is what answers carry as `model_version`.

    Raises:
        Rejected: the name cannot be served.
    """
    check_model_name(model)
    target = folder / model
    if target.exists():
        shutil.rmtree(target)
    weights = target / str(version) / MODEL_FILE
    weights.parent.mkdir(parents=True)
    shutil.copyfile(onnx_file, weights)
    (target / CONFIG_FILE).write_text(config, encoding="utf-8")
    # The image runs as a user of no privileges, whatever umask the worker had.
    for path in (folder, target, *target.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return folder


def write_docker_context(
    folder: Path, repository: Path, model: str, instance: Literal["cpu", "gpu"], base: str, templates: Path = TEMPLATES
) -> Path:
    """Write the build folder of one release's image and return it; what was there is replaced.

    `repository` is what `write_repository` made. `base` is an image of `write_base_context` for the CPU, or NVIDIA's
    tritonserver image for the GPU.

    Raises:
        Rejected: the model's name cannot be served.
        Fault: `base` is no image's name, or a Triton that is too old.
    """
    check_model_name(model)
    found = _NGC.search(base)
    if instance == "gpu" and found and (int(found[1]), int(found[2])) < _OLDEST:
        raise Fault(f"{base} has known vulnerabilities.", "Name one of 25.07 or later.")
    write_dockerfile(folder, templates, f"triton-{instance}/Dockerfile.j2", {"base_image": base, "model": model})
    shutil.copy(templates / "serve.sh", folder)
    shutil.copytree(repository / model, folder / "models" / model)
    return folder


def write_base_context(
    folder: Path,
    base: str,
    onnxruntime: str,
    lock: Path = ROOT / "requirements-triton.lock",
    templates: Path = TEMPLATES,
) -> Path:
    """Write the build folder of the CPU base and return it; what was there is replaced.

    `base` is an image with python3 (3.11 or 3.12), its shared library and pip, `onnxruntime` the version to serve with:
    the one that judges the models.

    Raises:
        Fault: `base` is no image's name.
    """
    values = {"base_image": base, "onnxruntime": onnxruntime}
    write_dockerfile(folder, templates, "triton-cpu/Dockerfile.base.j2", values)
    shutil.copy(lock, folder / "requirements-triton.lock")
    shutil.copy(templates / "onnxruntime_backend" / "model.py", folder)
    return folder


def _tensors(role: str, tensors: Sequence[Mapping[str, Any]]) -> list[str]:
    names = [str(tensor["name"]) for tensor in tensors]
    if not names or len(set(names)) != len(names):
        raise Rejected(f"The model's {role}s {names} cannot be told apart.", f"Give each {role} a name of its own.")
    return [_tensor(role, tensor) for tensor in tensors]


def _tensor(role: str, tensor: Mapping[str, Any]) -> str:
    name, datatype, shape = str(tensor["name"]), str(tensor["datatype"]), list(tensor["shape"])
    if datatype not in _TYPES:
        raise Rejected(
            f"Triton cannot serve the {role} {name!r} of type {datatype}.",
            f"Convert the model so that it is a tensor of one of {', '.join(sorted(_TYPES))}.",
        )
    if not shape or any(not isinstance(size, int) or size == 0 or size < -1 for size in shape):
        raise Rejected(
            f"Triton cannot serve the {role} {name!r} of shape {shape}.",
            "Convert the model so that it has one dimension or more, each a positive length or -1 for any.",
        )
    dims = ", ".join(str(size) for size in shape)
    return f"{role} {{ name: {_quoted(name)} data_type: {_TYPES[datatype]} dims: [ {dims} ] }}"


def _quoted(text: str) -> str:
    """A string of the protobuf text format; all but printable ASCII as octal bytes."""
    plain = {ord('"'): r"\"", ord("\\"): r"\\"}
    return '"' + "".join(plain.get(b) or (chr(b) if 32 <= b < 127 else f"\\{b:03o}") for b in text.encode()) + '"'


def write_dockerfile(folder: Path, templates: Path, template: str, values: Mapping[str, str]) -> None:
    if not _IMAGE.fullmatch(values["base_image"]):
        raise Fault(f"{values['base_image']!r} is no name of an image.", "Correct HEADGATE_TRITON_IMAGE.")
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    # A Dockerfile is no HTML: its values are checked by their form instead of escaped.
    environment = Environment(  # noqa: S701
        loader=FileSystemLoader(templates), undefined=StrictUndefined, keep_trailing_newline=True
    )
    (folder / "Dockerfile").write_text(environment.get_template(template).render(values), encoding="utf-8")
