"""Failpoints: named places at which a test may end or stop this process. Inert unless HEADGATE_FAILPOINTS is set.

A point lies before and after every commit (`commit.<module>.<function>`), before and after every method of a port
(`registry.set_alias`), and where an adapter says so. HEADGATE_FAILPOINTS names a folder:

    armed/<process>:<point>    the action to take there: kill (SIGKILL), stop (SIGSTOP), or `kill always` to stay armed
    hit/<process>:<point>      where an armed file goes when the point was reached; its text is then the process id
    reached/<process>:<point>  an empty file for each point that was ever reached

The file's move from `armed` to `hit` is atomic, so that one arming ends one process.
"""

import contextlib
import dataclasses
import functools
import os
import signal
import sys
import threading
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from app import ports

FOLDER = os.environ.get("HEADGATE_FAILPOINTS", "")
_seen: set[str] = set()
_process = "other"
T = TypeVar("T")


def enter(process: str) -> None:
    """Say which process this is: api, worker or clock."""
    global _process
    _process = process


def reach(point: str) -> None:
    """Pass a point: nothing happens, unless a test has armed it."""
    if FOLDER:
        _reach(Path(FOLDER), f"{_process}:{point}")


@contextlib.contextmanager
def around(point: str) -> Iterator[None]:
    """The points before and after a call to the outside; after it only where it succeeded."""
    reach(f"{point}.before")
    yield
    reach(f"{point}.after")


def caller() -> str:
    """The function that called the one that asks, as the name of a point; empty while all points are inert."""
    if not FOLDER:
        return ""
    frame = sys._getframe(2)
    return f"{frame.f_globals['__name__']}.{frame.f_code.co_qualname}".replace(".<locals>", "")


def watch(parts: T) -> T:
    """The same parts with points around every method of those that stand behind a port; unchanged while inert."""
    if not FOLDER:
        return parts
    watched = {name: _watched(getattr(parts, name), found) for name, found in parts_behind_ports(type(parts))}
    return dataclasses.replace(parts, **watched)  # type: ignore[type-var]  # a dataclass: `parts_behind_ports` says so


def methods(port: type) -> list[str]:
    """The methods of a port, each of which is a call to the outside."""
    return [name for name, value in vars(port).items() if callable(value) and not name.startswith("_")]


def parts_behind_ports(parts: type) -> Iterator[tuple[str, type]]:
    """The fields of a dataclass that hold a port, or a mapping to one, and the port."""
    for name, hint in typing.get_type_hints(parts).items():
        for candidate in (hint, *typing.get_args(hint)):
            if getattr(candidate, "__module__", "") == ports.__name__:
                yield name, candidate


def _watched(part: Any, port: type) -> Any:
    if isinstance(part, dict):
        return {key: _watched(value, port) for key, value in part.items()}
    return _Watched(part, port)


class _Watched:
    """A part whose port's methods are points; everything else of it is as it was."""

    def __init__(self, part: Any, port: type) -> None:
        self._part = part
        for name in methods(port):
            setattr(self, name, _with_points(getattr(part, name), f"{port.__name__.lower()}.{name}"))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._part, name)


def _with_points(call: Callable[..., Any], point: str) -> Callable[..., Any]:
    @functools.wraps(call)
    def through(*arguments: Any, **named: Any) -> Any:
        with around(point):
            return call(*arguments, **named)

    return through


def _reach(folder: Path, point: str) -> None:
    if point not in _seen:
        _seen.add(point)
        (folder / "reached" / point).touch()
    armed = folder / "armed" / point
    try:
        action = armed.read_text().split()
        if "always" not in action:
            armed.rename(folder / "hit" / point)
        (folder / "hit" / point).write_text(str(os.getpid()))
    except FileNotFoundError:
        return  # not armed, or another process was faster
    # To this very thread: sent to the process, another thread may take it, and this one runs on until that one has.
    signal.pthread_kill(threading.get_ident(), signal.SIGSTOP if action[0] == "stop" else signal.SIGKILL)
