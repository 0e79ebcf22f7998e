"""Copying files that somebody else wrote: only plain files with plain names, copied and hashed in one pass."""

import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from app.domain import names
from app.domain.errors import Rejected

_CHUNK = 1 << 20
_FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# Without O_NONBLOCK, opening a fifo would wait for somebody to write into it.
_FILE_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_REMEDY = "Log the model again with plain files only."


@dataclass(frozen=True)
class Quotas:
    """How much one tree may hold: files and folders together, bytes in all, and folders within folders."""

    max_files: int = 5000
    max_bytes: int = 8 << 30
    max_depth: int = 12


@dataclass(frozen=True)
class Entry:
    """One file of a tree: its POSIX path below the root, its size in bytes, the hex SHA-256 of its content."""

    path: str
    size: int
    sha256: str


@contextmanager
def open_folder(folder: Path) -> Iterator[int]:
    """A descriptor of the folder; what is opened relative to it cannot be swapped for something elsewhere."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def copy_tree(source: Path, target: Path, quotas: Quotas) -> list[Entry]:
    """Copy the folder `source` to the new folder `target` and return its files sorted by path.

    Raises:
        Rejected: something in it is refused; the message names it.
        OSError: reading or writing failed.
    """
    with open_folder(source) as folder:
        copy = _Copy(quotas)
        copy.folder(folder, "", target, 0)
    return sorted(copy.entries, key=lambda entry: entry.path)


def copy_file(folder: int, name: str, path: str, target: Path, max_bytes: int) -> Entry:
    """Copy the file `name` of the open `folder` to the new file `target` (mode 0444, on disk when this returns).

    Raises:
        Rejected: it is not a regular file of its own, or larger than `max_bytes`; `path` names it in the message.
        OSError: reading or writing failed.
    """
    _expect_plain(os.stat(name, dir_fd=folder, follow_symlinks=False), path)
    source = os.open(name, _FILE_FLAGS, dir_fd=folder)
    try:
        # Asked again of what was really opened: the name may mean something else by now.
        _expect_plain(os.fstat(source), path)
        size, sha256 = _pour(source, target, path, max_bytes)
    finally:
        os.close(source)
    return Entry(path, size, sha256)


def sync_folder(folder: Path) -> None:
    """Have the folder's own entries on disk, so that a rename into it survives a power cut."""
    with open_folder(folder) as descriptor:
        os.fsync(descriptor)


@dataclass
class _Copy:
    """One copy under way, with what counts against its quotas."""

    quotas: Quotas
    entries: list[Entry] = field(default_factory=list)
    folded: dict[str, str] = field(default_factory=dict)
    bytes_left: int = 0
    places: int = 0

    def __post_init__(self) -> None:
        self.bytes_left = self.quotas.max_bytes

    def folder(self, source: int, prefix: str, target: Path, depth: int) -> None:
        if depth > self.quotas.max_depth:
            raise Rejected(f"{names.shown(prefix)} lies deeper than {self.quotas.max_depth} folders.", _REMEDY)
        target.mkdir(mode=0o755)
        for name in sorted(os.listdir(source)):
            path = f"{prefix}{name}"
            self._check_name(name, path)
            if stat.S_ISDIR(os.stat(name, dir_fd=source, follow_symlinks=False).st_mode):
                self._subfolder(source, name, path, target, depth)
            else:
                self._file(source, name, path, target)
        sync_folder(target)
        target.chmod(0o555)

    def _subfolder(self, source: int, name: str, path: str, target: Path, depth: int) -> None:
        self._count(path)
        child = os.open(name, _FOLDER_FLAGS, dir_fd=source)
        try:
            self.folder(child, f"{path}/", target / name, depth + 1)
        finally:
            os.close(child)

    def _file(self, source: int, name: str, path: str, target: Path) -> None:
        self._count(path)
        entry = copy_file(source, name, path, target / name, self.bytes_left)
        self.bytes_left -= entry.size
        self.entries.append(entry)

    def _count(self, path: str) -> None:
        self.places += 1
        if self.places > self.quotas.max_files:
            reason = f"The model has more than {self.quotas.max_files} files and folders (at {names.shown(path)})."
            raise Rejected(reason, _REMEDY)

    def _check_name(self, name: str, path: str) -> None:
        problem = names.problem(name, path)
        # Two names that one file system holds apart and the next one takes for the same would overwrite each other.
        folded = names.folded(path)
        if not problem and self.folded.setdefault(folded, path) != path:
            problem = f"differs only in case or form from {names.shown(self.folded[folded])}"
        if problem:
            raise Rejected(f"The file name {names.shown(path)} {problem}.", "Rename it and log the model again.")


def _expect_plain(status: os.stat_result, path: str) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise Rejected(f"{names.shown(path)} is {_kind(status.st_mode)}, not a regular file.", _REMEDY)
    if status.st_nlink != 1:
        raise Rejected(f"{names.shown(path)} is hard-linked to another file.", _REMEDY)


def _kind(mode: int) -> str:
    kinds = ((stat.S_ISLNK, "a symbolic link"), (stat.S_ISFIFO, "a fifo"), (stat.S_ISSOCK, "a socket"))
    return next((name for test, name in kinds if test(mode)), "a folder" if stat.S_ISDIR(mode) else "a device")


def _pour(source: int, target: Path, path: str, max_bytes: int) -> tuple[int, str]:
    size, digest = 0, hashlib.sha256()
    with target.open("xb") as out:
        while chunk := os.read(source, _CHUNK):
            size += len(chunk)
            if size > max_bytes:
                raise Rejected(f"{names.shown(path)} goes beyond the quota of bytes.", "Ask for a larger quota.")
            digest.update(chunk)
            out.write(chunk)
        out.flush()
        os.fchmod(out.fileno(), 0o444)
        os.fsync(out.fileno())
    return size, digest.hexdigest()
