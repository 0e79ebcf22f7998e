"""What must not be in a zip file of a model, and in the schema of one that skops wrote."""

import math
import re
import stat
import zipfile
from collections.abc import Iterator
from typing import Any

from .allowed import is_allowed

MAX_MEMBERS = 20_000
MAX_UNPACKED_BYTES = 2 << 30
# What is stored without compression, as skops and PyTorch do it, unpacks to itself.
MAX_RATIO, _SMALL_BYTES = 100, 64 << 20
_REPORTED = 5
_ODD = re.compile(r"(^|/)\.\.(/|$)|^/|^[A-Za-z]:|\\|[\x00-\x1f\x7f]")
_METHOD = re.compile(r"[A-Za-z]\w*")
_NODES = frozenset(
    f"{name}Node"
    for name in (
        *("Cached", "Dict", "DefaultDict", "List", "Set", "Tuple", "Bytes", "Bytearray", "Slice", "Function", "Method"),
        *("Partial", "Type", "Object", "Json", "OperatorFunc", "ConstructorFromReduce", "NdArray", "MaskedArray"),
        *("DType", "RandomState", "RandomGenerator", "SparseMatrix", "Loss", "Tree", "_DictWithDeprecatedKeys"),
    )
)


def problems(archive: zipfile.ZipFile) -> list[str]:
    """Names that lead out, links, names that come twice, and too many members."""
    members = archive.infolist()
    if len(members) > MAX_MEMBERS:
        return [f"an archive of more than {MAX_MEMBERS} members"]
    names = [member.orig_filename for member in members]
    found = [f"a member named {name!a}" for name in names if _ODD.search(name)]
    found += [f"a link named {m.filename!a}" for m in members if stat.S_ISLNK(m.external_attr >> 16)]
    twice = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
    return (found + [f"two members named {name!a}" for name in twice])[:_REPORTED]


def check_size(unpacked: int, packed: int) -> None:
    """Raise OSError where an archive of `packed` bytes unpacks to more than it may."""
    if unpacked > MAX_UNPACKED_BYTES:
        raise OSError(f"it unpacks to more than {MAX_UNPACKED_BYTES >> 20} MiB")
    if unpacked > max(_SMALL_BYTES, math.prod((MAX_RATIO, packed))):
        raise OSError(f"it unpacks to more than {MAX_RATIO} times its size")


def strange_nodes(schema: Any) -> Iterator[str]:
    """What a skops schema is made of and should not be: types that no scikit-learn model has, and unknown nodes."""
    waiting = [schema]
    seen = set()
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            seen |= set(_strange(value))
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value
    yield from seen


def _strange(node: dict[str, Any]) -> Iterator[str]:
    if "__module__" in node and "__class__" in node:
        module, name = str(node["__module__"]), str(node["__class__"])
        if not is_allowed(module, name):
            yield f"an object of the type {module}.{name}"
    loader = str(node.get("__loader__", "ObjectNode"))
    if loader not in _NODES:
        yield f"a node of the unknown kind {loader}"
    content = node.get("content")
    if loader == "MethodNode" and isinstance(content, dict) and not _METHOD.fullmatch(str(content.get("func"))):
        yield f"a method named {content.get('func')!a}"
