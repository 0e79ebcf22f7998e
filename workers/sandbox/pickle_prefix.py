"""How much of some bytes the pickle machine would run, whatever a file is called and however it ends."""

import functools
import importlib.util
import io
import pickletools
from dataclasses import dataclass, field

_IMPORTS = frozenset({"GLOBAL", "INST", "STACK_GLOBAL"})
_NPY = b"\x93NUMPY"


@dataclass(frozen=True)
class Prefix:
    """`data` is the runnable part, made a whole pickle by a stop where it lacks one. `is_pickle` says that it was meant
    as one: it carries a protocol mark or comes to its own stop."""

    data: bytes
    is_pickle: bool


def importing_prefix(data: bytes) -> Prefix | None:
    """The part of `data` that unpickling would run, None where that imports nothing and so can do nothing.

    A broken pickle runs up to where it breaks, and a text file may begin like one: a scanner that wants a whole pickle
    sees neither.
    """
    if data.startswith(_NPY):
        # Its first byte is an opcode that needs two values on a stack that is empty.
        return None
    runnable = _run(data)
    if not runnable.imports:
        return None
    ending = b"" if runnable.at_stop else b"."
    return Prefix(b"".join(runnable.pieces) + ending, runnable.whole or data.startswith(b"\x80"))


def is_whole_pickle(data: bytes) -> bool:
    """Whether `data` is pickles from its first byte to its last, or at least one that something follows which imports:
    what it imports is judged, and what it ends in never runs."""
    runnable = _run(data)
    ended = runnable.at_stop and runnable.read_bytes == len(data)
    return ended or (runnable.imports and (runnable.whole or data.startswith(b"\x80")))


@functools.lru_cache(maxsize=1)
def _run(data: bytes) -> "_Runnable":
    """All that can be read of `data`; remembered, for a large pickle takes seconds and is asked for twice."""
    runnable = _Runnable()
    stream = io.BytesIO(data)
    while runnable.read(stream):
        pass
    runnable.read_bytes = stream.tell()
    return runnable


@dataclass
class _Runnable:
    """The opcodes read so far, without frames: those mean nothing, but may come between a name and its import, where
    modelscan takes them for an attempt to hide the name."""

    pieces: list[bytes] = field(default_factory=list)
    imports: bool = False
    at_stop: bool = False
    whole: bool = False
    read_bytes: int = 0

    def read(self, stream: io.BytesIO) -> bool:
        """Read one pickle; True where it came to its stop and something follows."""
        data, end = stream.getbuffer(), stream.tell()
        try:
            for opcode, argument, _ in pickletools.genops(stream):
                if opcode.name in ("GLOBAL", "INST") and not _can_be_imported(str(argument)):
                    return False
                start, end = end, stream.tell()
                self.imports = self.imports or opcode.name in _IMPORTS
                self.at_stop = opcode.name == "STOP"
                self.whole = self.whole or self.at_stop
                if opcode.name != "FRAME":
                    self.pieces.append(bytes(data[start:end]))
        except Exception:  # noqa: BLE001 - whatever stops the reader, the machine stops there as well
            return False
        return end < len(data)


def is_installed(module: str) -> bool:
    """Whether the top-level package of `module` could be imported here."""
    try:
        return importlib.util.find_spec(module.partition(".")[0]) is not None
    except (ImportError, ValueError):
        return False


def _can_be_imported(argument: str) -> bool:
    module, _, name = argument.partition(" ")
    return all(part.isidentifier() for part in (*module.split("."), *name.split(".")))
