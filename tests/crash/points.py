"""All failpoints there are, read from the code itself: nobody has to list a new commit or a new method of a port."""

import ast
import inspect
from collections.abc import Callable, Iterator
from pathlib import Path

from app import failpoints, ports

ROOT = Path(__file__).resolve().parents[2]
_SIDES = ("before", "after")


def every() -> list[str]:
    """The names of all points, sorted: commits, methods of ports, and what adapters name themselves."""
    pairs = {*_port_methods(), *_written("begin", _commit), *_written("around", _named)}
    return sorted({f"{point}.{side}" for point in pairs for side in _SIDES} | {*_written("reach", _named)})


def _port_methods() -> Iterator[str]:
    for name, port in vars(ports).items():
        if inspect.isclass(port) and getattr(port, "_is_protocol", False) and port.__module__ == ports.__name__:
            yield from (f"{name.lower()}.{method}" for method in failpoints.methods(port))


def _written(method: str, name: Callable[[str, ast.Call], str]) -> Iterator[str]:
    """What `name` makes of each call of `method` in app and workers."""
    for file in sorted([*ROOT.glob("app/**/*.py"), *ROOT.glob("workers/**/*.py")]):
        module = ".".join(file.relative_to(ROOT).with_suffix("").parts)
        # The session opens SQLAlchemy's own transaction, and failpoints define what others use.
        if module not in ("app.db.session", "app.failpoints"):
            for place, call in _calls(ast.parse(file.read_text()), module):
                if isinstance(call.func, ast.Attribute) and call.func.attr == method and (point := name(place, call)):
                    yield point


def _calls(tree: ast.AST, place: str) -> Iterator[tuple[str, ast.Call]]:
    """Every call with the dotted name of the function that it is written in, as `co_qualname` has it."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Call):
            yield place, node
        named = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        yield from _calls(node, f"{place}.{node.name}" if named else place)  # type: ignore[attr-defined]  # those have a name


def _commit(place: str, call: ast.Call) -> str:
    return f"commit.{place}" if not call.args else ""


def _named(_place: str, call: ast.Call) -> str:
    first = call.args[0] if call.args else None
    return str(first.value) if isinstance(first, ast.Constant) and "." in str(first.value) else ""
