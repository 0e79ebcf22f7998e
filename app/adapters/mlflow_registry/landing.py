"""Where artifacts land: a folder that takes so many files, bytes and seconds, and no name that could lead out of it."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from app.domain import names
from app.domain.errors import Rejected, Transient

MAX_PLACES = 10_000
MAX_DEPTH = 32
_RENAME = "Rename it and register the model again."


@dataclass(frozen=True)
class Limits:
    """What one model may take: bytes in all, and seconds for the copy."""

    size: int
    seconds: float


class Landing:
    """The folder `into` for one copy. What others list is not believed: every name and size is checked here."""

    def __init__(self, into: Path, limits: Limits) -> None:
        self._into, self._limits = into, limits
        self._places = self._bytes = 0
        self.deadline = time.monotonic() + limits.seconds

    def folder(self, path: Sequence[str]) -> None:
        """Allow a folder to be listed; the model's own is the empty path.

        Raises:
            Rejected: its name is odd, it is nested too deep, or there are too many.
            Transient: it took too long.
        """
        if path:
            self._check_name(path)
        if len(path) > MAX_DEPTH:
            raise Rejected(f"The model's folders are nested more than {MAX_DEPTH} deep.", "Register a simpler model.")
        self._count(0)

    @contextmanager
    def file(self, path: Sequence[str], size: int) -> Iterator[Path]:
        """The place for one file of `size` bytes (a new path, its folders made), which must be filled in the block.

        Raises:
            Rejected: its name is odd or taken, or a quota is used up.
            Transient: it took too long, or another number of bytes came.
        """
        self._check_name(path)
        self._count(size)
        target = self._into.joinpath(*path)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.touch(exist_ok=False)
        except (FileExistsError, NotADirectoryError) as error:
            reason = f"Two of the model's artifacts are named {names.shown('/'.join(path))}, or one is a folder, too."
            raise Rejected(reason, _RENAME) from error
        yield target
        if target.stat().st_size != size:
            shown = names.shown(path[-1])
            raise Transient(f"The artifact {shown} is not as long as it was listed.", "It is copied again.")

    def _count(self, size: int) -> None:
        self._places += 1
        self._bytes += size
        if self._places > MAX_PLACES:
            raise Rejected(f"The model has more than {MAX_PLACES} files and folders.", "Register a smaller model.")
        if self._bytes > self._limits.size:
            raise Rejected(f"The model is larger than {self._limits.size} bytes.", "Register a smaller model.")
        if time.monotonic() > self.deadline:
            reason = f"Copying the artifacts took longer than {self._limits.seconds:g} s."
            raise Transient(reason, "This is tried again; see what slows the server of the artifacts.")

    @staticmethod
    def _check_name(path: Sequence[str]) -> None:
        joined = "/".join(path)
        if problem := names.problem(path[-1], joined):
            raise Rejected(f"The model has an odd name: {names.shown(joined)} {problem}.", _RENAME)
