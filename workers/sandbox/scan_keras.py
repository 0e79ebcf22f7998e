"""What the configuration of a `.keras` archive may be made of: Keras' own layers, and none that runs code."""

import re
from collections.abc import Iterator
from typing import Any

_MODULES = re.compile(
    r"keras(\.(layers|initializers|regularizers|constraints|activations|dtype_policies|optimizers|losses|metrics|models"
    r"|optimizers\.schedules|random|src\.models\.(functional|sequential)|src\.optimizers\.\w+"
    r"|src\.backend\.(torch|tensorflow|jax)\.optimizers\.\w+))?"
)
# Code by value, modules of other libraries, files of other formats, and layers that read a vocabulary from a file.
_CODE = frozenset(
    {
        *("Lambda", "__lambda__", "function", "TorchModuleWrapper", "TFSMLayer", "JaxLayer", "FlaxLayer"),
        *("StringLookup", "IntegerLookup", "TextVectorization"),
    }
)
_VALUES = frozenset({"__keras_tensor__", "__tuple__", "__numpy__", "__tensor__", "__ellipsis__", "slice"})
_NAME = re.compile(r"[A-Za-z]\w*")


def strange_nodes(config: Any) -> Iterator[str]:
    """What a configuration asks for and may not: each thing once."""
    waiting, seen = [config], set()
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            if "class_name" in value:
                seen |= set(_strange(value))
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value
    yield from sorted(seen)


def _strange(node: dict[str, Any]) -> Iterator[str]:
    name, module, registered = (node.get(key) for key in ("class_name", "module", "registered_name"))
    if name in _VALUES and module is None:
        return
    if name in _CODE or not isinstance(name, str) or not _NAME.fullmatch(name):
        yield f"a layer or function {name!a}, which runs code or reads files"
    elif not isinstance(module, str) or not _MODULES.fullmatch(module) or registered not in (None, name):
        yield f"{module!a}.{name!a}, which is not Keras' own"
