"""PyTorch's archives: which members are bare numbers, and what exported programs may be made of.

A tensor's bytes have no format that anybody could know, and some look like a pickle or a program by chance. PyTorch
reads these members as numbers and as nothing else, unless the list of weights says `use_pickle`. A program is JSON, but
names functions that PyTorch looks up among all that can be reached from `torch` (`torch.serialization.os.system`), and
holds expressions that it evaluates as Python.
"""

import ast
import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

_RAW = re.compile(r"[^/]+/data/(\d+|weights/weight_\d+|constants/tensor_\d+)")
_LISTS = re.compile(r"[^/]+/data/(weights|constants)/[^/]+_config\.json")
_PROGRAMS = re.compile(r"[^/]+/models/[^/]+\.json")
_MARK = re.compile(r"[^/]+/\.data/serialization_id")
_PLAIN = re.compile(r"(weight|tensor)_\d+")
# Of PyTorch's own operators one maps a file into memory.
_FUNCTIONS = re.compile(
    r"torch\.ops\.aten\.(?!from_file)\w+(\.\w+)?|torch\.sym_(max|min|int|float|not|sum|ite)|math\.(ceil|floor|trunc|sqrt)"
    r"|_operator\.(getitem|add|sub|mul|floordiv|truediv|mod|pow|neg|eq|ne|lt|le|gt|ge|and_|or_)"
)
_WORDS = frozenset(
    {
        *("Symbol", "Integer", "Float", "Rational", "Add", "Mul", "Pow", "Mod", "PythonMod", "Max", "Min", "Abs"),
        *("FloorDiv", "CeilDiv", "CleanDiv", "ModularIndexing", "Where", "IntTrueDiv", "FloatTrueDiv", "ToFloat"),
        *("CeilToInt", "FloorToInt", "RoundToInt", "TruncToInt", "ceiling", "floor", "Piecewise", "And", "Or", "Not"),
        *("Equality", "Unequality", "GreaterThan", "LessThan", "StrictGreaterThan", "StrictLessThan", "true", "false"),
    }
)
_METHODS = frozenset({"size", "stride", "storage_offset"})
_SYNTAX = (
    *(ast.Expression, ast.Constant, ast.keyword, ast.Load, ast.BinOp, ast.UnaryOp, ast.BoolOp, ast.Compare, ast.Tuple),
    *(ast.operator, ast.unaryop, ast.boolop, ast.cmpop, ast.Subscript),
)


def is_archive(members: Sequence[str]) -> bool:
    """Whether PyTorch wrote an archive of these members."""
    return any(_MARK.fullmatch(member) for member in members)


def is_raw(member: str) -> bool:
    """Whether a member of such an archive is a tensor's numbers by its place."""
    return bool(_RAW.fullmatch(member))


def problems(data: bytes, member: str) -> list[str]:
    """What is wrong with an exported program or its list of weights or constants; nothing with any other member."""
    judge = _listed if _LISTS.fullmatch(member) else _program if _PROGRAMS.fullmatch(member) else None
    if judge is None:
        return []
    try:
        return sorted(set(judge(json.loads(data))))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        return [f"an exported program that cannot be read: {type(error).__name__}"]


def _listed(document: Any) -> Iterator[str]:
    for name, entry in document["config"].items():
        if entry["use_pickle"] or not _PLAIN.fullmatch(entry["path_name"]):
            yield f"the tensor {name!a}, which is unpickled"


def _program(document: Any) -> Iterator[str]:
    waiting = [("", document)]
    while waiting:
        key, value = waiting.pop()
        if key == "custom_obj_values" and value:
            yield "objects of classes of their own"
        elif isinstance(value, dict):
            waiting += value.items()
        elif isinstance(value, list):
            waiting += [(key, item) for item in value]
        elif not isinstance(value, str):
            continue
        elif key == "target" and not _FUNCTIONS.fullmatch(value):
            yield f"a call of {value[:100]!a}"
        elif key in ("expr_str", "guards_code") and not _is_plain(value):
            yield f"the expression {value[:100]!a}, which would be evaluated"


def _is_plain(expression: str) -> bool:
    """Whether an expression is arithmetic on sizes: the words and methods above, names of sizes, and numbers."""
    try:
        nodes = list(ast.walk(ast.parse(expression, mode="eval")))
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return False
    return all(isinstance(node, _SYNTAX) or _is_word(node) or _is_call(node) for node in nodes)


def _is_word(node: ast.AST) -> bool:
    if isinstance(node, ast.Attribute):
        return node.attr in _METHODS
    return isinstance(node, ast.Name) and (node.id in _WORDS or bool(re.fullmatch(r"L|[a-z]\d+", node.id)))


def _is_call(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name | ast.Attribute)
