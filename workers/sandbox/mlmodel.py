"""Reading MLflow's MLmodel file: which flavor the model has, where its file lies, what it takes and its example."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from .flavors import FLAVORS
from .refusal import Refused
from .tensors import KINDS, Column, Matrix, Signature

_TENSOR_TYPES = {str(kind.dtype): word for word, kind in KINDS.items() if word not in ("string", "datetime")}
_VERSIONS = ("{}_version", "xgb_version", "lgb_version")
_LOG_AGAIN = "Log the model with signature=mlflow.models.infer_signature(inputs, predictions)."
MATRIX_NAME = "input"


@dataclass(frozen=True)
class Card:
    """What MLmodel says: the flavor, the model's file, how that is serialised, the signature, the file and type
    (`dataframe`, `ndarray`) of the input example, and the flavor's own words that are text."""

    flavor: str
    file: Path
    serialization: str
    signature: Signature | None
    example: Path | None
    example_type: str
    trained_with: str
    settings: Mapping[str, str] = field(default_factory=dict)


def read_card(folder: Path) -> Card:
    """Read `folder`/MLmodel.

    Raises:
        Refused: it is missing or malformed, or the flavor or a column's type is not supported.
    """
    document = _document(folder / "MLmodel")
    flavors = _mapping(document.get("flavors"), "flavors")
    flavor = next((name for name in FLAVORS if name in flavors), None)
    if flavor is None:
        found = ", ".join(sorted(map(str, flavors))) or "none"
        remedy = f"Supported are {', '.join(FLAVORS)}. A model of another kind can be logged as ONNX."
        raise Refused("unsupported-flavor", f"The model's flavors are: {found}.", remedy)
    settings = _mapping(flavors[flavor], flavor)
    example = _mapping(document.get("saved_input_example_info") or {}, "saved_input_example_info")
    example_path = example.get("artifact_path")
    return Card(
        flavor=flavor,
        file=_model_file(folder, flavor, settings),
        serialization=str(settings.get("serialization_format", "pickle")),
        signature=_signature(document.get("signature")),
        example=_inside(folder, example_path) if example_path else None,
        example_type=str(example.get("type", "")),
        trained_with=next((str(settings[key]) for key in _version_keys(flavor) if key in settings), ""),
        settings={str(key): value for key, value in settings.items() if isinstance(value, str)},
    )


def _version_keys(flavor: str) -> list[str]:
    return [key.format(flavor) for key in _VERSIONS]


def no_signature() -> Refused:
    """The refusal of a model that does not say what it takes."""
    return Refused("no-signature", "The model has no signature, so nobody knows what it takes.", _LOG_AGAIN)


def _document(file: Path) -> Mapping[str, Any]:
    try:
        document = yaml.safe_load(file.read_text())
    except FileNotFoundError:
        raise _malformed("there is no MLmodel file") from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise _malformed("MLmodel is not YAML") from error
    return _mapping(document, "MLmodel")


def _mapping(value: Any, name: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise _malformed(f"{name} is not a mapping")
    return value


def _malformed(what: str) -> Refused:
    return Refused("bad-mlmodel", f"The version is no MLflow model: {what}.", "Log the model with mlflow.")


def _inside(folder: Path, path: Any) -> Path:
    if not isinstance(path, str) or not path or path.startswith("/") or ".." in Path(path).parts:
        raise _malformed(f"{path!a} is not a path in the model")
    if not (folder / path).is_file():
        raise _malformed(f"the file {path!a} is missing")
    return folder / path


def _model_file(folder: Path, flavor: str, settings: Mapping[str, Any]) -> Path:
    """The one file that is loaded; some flavors name the folder that it lies in."""
    place = FLAVORS[flavor]
    named = settings.get(place.key)
    if not place.files or not isinstance(named, str):
        return _inside(folder, named)
    files = [f"{named}/{file}" for file in place.files]
    found = next((file for file in files if ".." not in file and (folder / file).is_file()), None)
    if found is None and ".." not in named and (folder / named).is_dir():
        reason = f"The {flavor} model is not stored as {' or '.join(place.files)} in its folder {named!a}."
        raise Refused("unsupported-flavor", reason, "Log it with a current MLflow in its default format, or as ONNX.")
    return _inside(folder, found or files[0])


def _signature(value: Any) -> Signature | None:
    inputs = value.get("inputs") if isinstance(value, dict) else None
    if not inputs:
        return None
    try:
        specs = json.loads(inputs)
        if specs and specs[0].get("type") == "tensor":
            return _matrix(specs)
        columns = tuple(_column(spec) for spec in specs)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _malformed("the signature cannot be read") from error
    if len({column.name for column in columns}) != len(columns):
        raise _malformed("two columns of the signature have one name")
    return columns or None


def _column(spec: Mapping[str, Any]) -> Column:
    if not isinstance(spec["name"], str) or spec["type"] not in KINDS:
        reason = f"The column {spec['name']!a} has the type {spec['type']!a}, which cannot be served."
        raise Refused("unsupported-column", reason, f"Use columns of these types: {', '.join(KINDS)}.")
    return Column(spec["name"], spec["type"], bool(spec.get("required", True)))


def _matrix(specs: list[Mapping[str, Any]]) -> Matrix:
    tensor = specs[0]["tensor-spec"]
    shape, dtype = tensor["shape"], tensor["dtype"]
    inner = shape[1:]
    if len(specs) != 1 or dtype not in _TENSOR_TYPES or not inner or not all(size >= 1 for size in inner):
        reason = f"The signature's tensors ({len(specs)}, first {dtype} {shape}) are not one of numbers with a batch."
        raise Refused("unsupported-column", reason, "Log the model with a DataFrame or one array of a fixed shape.")
    name, width = str(specs[0].get("name") or MATRIX_NAME), math.prod(inner)
    return Matrix(name, _TENSOR_TYPES[dtype], width, tuple(inner) if len(inner) > 1 else ())
