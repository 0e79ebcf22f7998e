"""Reading what untrusted code left behind: nothing but plain files, and JSON that is small, shallow and finite."""

import json
import math
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Never

from app.domain.errors import Rejected

MAX_RESULT_BYTES = 8 << 20
MAX_DEPTH = 32
_REMEDY = "Log the model again; if this repeats, look at what runs when it is loaded."


def expect_plain_output(output: Path) -> None:
    """Refuse an output folder that holds anything but regular files and folders.

    Raises:
        Rejected: a link, a device or a hard link lies in it; following it would leave the sandbox after all.
    """
    for parent, folders, files in os.walk(output):
        for name in (*folders, *files):
            status = Path(parent, name).lstat()
            plain = stat.S_ISDIR(status.st_mode) or (stat.S_ISREG(status.st_mode) and status.st_nlink == 1)
            if not plain:
                raise not_plain(name)


def not_plain(name: str) -> Rejected:
    """What is said of an output that is neither a file nor a folder of its own."""
    return Rejected(f"The sandboxed program left {name!a}, which is no plain file.", _REMEDY)


def read_result(file: Path) -> Mapping[str, Any]:
    """The JSON object in the file.

    Raises:
        Rejected: it is missing, no regular file, too large, too deep, not JSON, or holds numbers that are not finite.
    """
    text = _read(file)
    if _depth(text) > MAX_DEPTH:
        raise _nonsense(f"is nested deeper than {MAX_DEPTH}")
    try:
        value = json.loads(text, parse_constant=_refuse_constant, parse_float=_finite)
    except ValueError as error:
        raise _nonsense(f"is not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise _nonsense("is not a JSON object")
    return value


def _read(file: Path) -> str:
    try:
        # O_NONBLOCK, because opening a fifo would wait for a writer for ever.
        descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise _nonsense(f"cannot be opened: {error.strerror}") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise _nonsense("is no regular file")
    with os.fdopen(descriptor, "rb") as stream:
        data = stream.read(MAX_RESULT_BYTES + 1)
    if len(data) > MAX_RESULT_BYTES:
        raise _nonsense(f"is larger than {MAX_RESULT_BYTES >> 20} MiB")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise _nonsense("is not UTF-8") from error


def _depth(text: str) -> int:
    """How deep brackets nest outside strings; counted by hand, because the parser recurses."""
    deepest = depth = 0
    in_string = escaped = False
    for character in text:
        if in_string:
            in_string = escaped or character != '"'
            escaped = character == "\\" and not escaped
        elif character == '"':
            in_string = True
        elif character in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif character in "]}":
            depth -= 1
    return deepest


def _refuse_constant(name: str) -> Never:
    raise ValueError(f"{name} is not a number")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is too large a number")
    return value


def _nonsense(what: str) -> Rejected:
    return Rejected(f"The result of the sandboxed program {what}.", _REMEDY)
