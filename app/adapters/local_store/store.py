"""The artifact store on a local file system: content-addressed, write-once; a crash leaves nothing or the whole.

Layout below the root::

    trees/<hex>/manifest.json   the canonical JSON whose SHA-256 is the tree digest
    trees/<hex>/tree/...        the files, mode 0444, in folders of mode 0555
    files/<hex>                 single files, mode 0444
    scratch/<name>/             work in progress of the steps, swept a day later where a step died
    incoming/                   unfinished copies: renamed into place when complete, or swept a day later

The tree digest is `sha256:` + SHA-256 of the canonical JSON (`app.domain.canonical`) of the list of
`[path, size, sha256]` of all files sorted by path: the path relative in POSIX form, the size in bytes, the hash of the
content in lower-case hex. Empty folders, modes, owners and times are not part of it.
"""

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from app import failpoints
from app.adapters.local_store.copying import Entry, Quotas, copy_file, copy_tree, open_folder, sync_folder
from app.domain.canonical import canonical
from app.domain.digests import digest_bytes
from app.domain.errors import Fault, Rejected

_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")
_SCRATCH_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,200}")
_STALE_SECONDS = 24 * 3600
_LOST = "Restore the artifact store from a backup, or promote the version again: its artifacts are copied anew."


class LocalStore:
    """An `ArtifactStore` below one folder; several processes may use it at once.

    The modes keep honest programs from writing. Root can write anyway: `tree` notices what changed a name or a size,
    `verify` notices all else.
    """

    def __init__(self, root: Path, quotas: Quotas | None = None, read_only: bool = False) -> None:
        """Use (or make) the store in `root`; `quotas` bound one tree. Who only reads touches nothing on the disk.

        Raises:
            Fault: the folder cannot be made or written.
        """
        self._root = root.absolute()
        self._quotas = quotas or Quotas()
        if read_only:
            return
        with self._our_fault("opening the store"):
            for name in ("trees", "files", "scratch", "incoming"):
                (self._root / name).mkdir(parents=True, exist_ok=True)
            self._sweep()

    def put_tree(self, folder: Path) -> str:
        """Copy a folder in and return its tree digest; the same content is kept once.

        Raises:
            Rejected: links, devices, odd or colliding names, no file at all, or more than the quotas allow.
            Fault: the folder cannot be read or the store not be written.
        """
        with self._our_fault(f"storing {folder.name}"), self._staging() as staging:
            manifest = self._copy(folder, staging)
            digest = digest_bytes(manifest)
            _write(staging / "manifest.json", manifest)
            staging.chmod(0o755)
            sync_folder(staging)
            if not self._holds(digest):
                self._settle(staging, self._tree_home(digest))
        self.tree(digest)
        return digest

    def digest_of(self, folder: Path) -> str:
        """The digest that `put_tree` would give the folder, with nothing kept.

        Raises:
            Rejected: as `put_tree`.
            Fault: the folder cannot be read or the store not be written.
        """
        with self._our_fault(f"hashing {folder.name}"), self._staging() as staging:
            return digest_bytes(self._copy(folder, staging))

    def tree(self, digest: str) -> Path:
        """The folder of a stored tree; read it, never write.

        The manifest must hash to the digest, and names and sizes on disk must be those of the manifest.

        Raises:
            Fault: the tree is missing or was changed.
        """
        folder = self._tree_home(digest) / "tree"
        with self._our_fault(f"reading {digest}"):
            wanted = {(entry.path, entry.size) for entry in self._manifest(digest)}
            found = set(_plain_files(folder, ""))
        if wanted != found:
            path = min(path for path, _ in wanted ^ found)
            raise Fault(f"the stored tree {digest} was changed: see {path!a}", _LOST)
        return folder

    def manifest(self, digest: str) -> bytes:
        """The list of a stored tree's files, as its digest is made of it.

        Raises:
            Fault: it is missing or was changed.
        """
        with self._our_fault(f"reading {digest}"):
            try:
                data = (self._tree_home(digest) / "manifest.json").read_bytes()
            except FileNotFoundError:
                raise Fault(f"the stored tree {digest} is missing", _LOST) from None
        if digest_bytes(data) != digest:
            raise Fault(f"the manifest of {digest} was changed", _LOST)
        return data

    def put_file(self, file: Path) -> str:
        """Copy one regular file in and return the digest of its content.

        Raises:
            Rejected: it is a link or a device, or larger than the quota.
            Fault: the file cannot be read or the store not be written.
        """
        with self._our_fault(f"storing {file.name}"), self._staging() as staging, open_folder(file.parent) as parent:
            entry = copy_file(parent, file.name, file.name, staging / "file", self._quotas.max_bytes)
            digest = f"sha256:{entry.sha256}"
            self._settle(staging / "file", self._file_home(digest))
        return digest

    def file(self, digest: str) -> Path:
        """The path of a stored file.

        Raises:
            Fault: it is missing.
        """
        home = self._file_home(digest)
        if home.is_symlink() or not home.is_file():
            raise Fault(f"the stored file {digest} is missing", _LOST)
        return home

    def scratch(self, name: str) -> Path:
        """An empty folder of that name on the same file system; what an earlier try left in it is removed.

        Raises:
            Fault: the name is not a plain one, or the folder cannot be made.
        """
        if not _SCRATCH_NAME.fullmatch(name):
            raise Fault(f"{name!a} cannot name a scratch folder", "Use letters, digits, '.', '_' and '-'.")
        folder = self._root / "scratch" / name
        with self._our_fault(f"making the scratch folder {name}"):
            _remove(folder)
            folder.mkdir()
        return folder

    def verify(self, digest: str) -> None:
        """Read all that is stored under the digest of a tree or a file and compare the hashes.

        Raises:
            Fault: it is missing or was changed; the first file that differs is named.
        """
        if self._file_home(digest).exists():
            _expect_hash(self.file(digest), digest.removeprefix("sha256:"), digest)
            return
        folder = self.tree(digest)
        for entry in self._manifest(digest):
            _expect_hash(folder / entry.path, entry.sha256, digest)

    def _copy(self, folder: Path, staging: Path) -> bytes:
        """Copy the folder to `staging`/tree and return its manifest."""
        entries = copy_tree(folder, staging / "tree", self._quotas)
        if not entries:
            raise Rejected("The model has no files.", "Log the model again: its version points to nothing.")
        return canonical([[entry.path, entry.size, entry.sha256] for entry in entries])

    def _tree_home(self, digest: str) -> Path:
        return self._root / "trees" / _hex(digest)

    def _file_home(self, digest: str) -> Path:
        return self._root / "files" / _hex(digest)

    def _manifest(self, digest: str) -> list[Entry]:
        return [Entry(*entry) for entry in json.loads(self.manifest(digest))]

    @contextlib.contextmanager
    def _our_fault(self, doing: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise Fault(f"{doing} failed: {error}", f"Check the disk and the modes of {self._root}.") from error

    @contextlib.contextmanager
    def _staging(self) -> Iterator[Path]:
        folder = Path(tempfile.mkdtemp(dir=self._root / "incoming"))
        try:
            yield folder
        finally:
            _remove(folder)

    def _holds(self, digest: str) -> bool:
        """Whether the tree is there and sound; a damaged one is moved away, so that a new copy can heal it."""
        home = self._tree_home(digest)
        if not home.exists():
            return False
        try:
            self.verify(digest)
        except Fault:
            home.rename(Path(tempfile.mkdtemp(dir=self._root / "incoming")) / "damaged")
            return False
        return True

    def _settle(self, staged: Path, home: Path) -> None:
        """Move what is complete and on disk to its place; whoever comes second leaves the first one's copy there."""
        try:
            # A folder never replaces a filled one; a file may replace an equal file, which changes nothing.
            with failpoints.around("store.settle"):
                staged.rename(home)
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                raise
        sync_folder(home.parent)

    def _sweep(self) -> None:
        """Remove what processes left behind that died in the middle of a copy or a step."""
        for leftover in [*(self._root / "incoming").iterdir(), *(self._root / "scratch").iterdir()]:
            with contextlib.suppress(FileNotFoundError):
                if time.time() - leftover.lstat().st_mtime > _STALE_SECONDS:
                    _remove(leftover)


def _hex(digest: str) -> str:
    match = _DIGEST.fullmatch(digest)
    if match is None:
        raise Fault(f"{digest!a} is not a digest", "A digest reads sha256: and 64 hex digits.")
    return match.group(1)


def _write(file: Path, data: bytes) -> None:
    with file.open("xb") as out:
        out.write(data)
        out.flush()
        os.fchmod(out.fileno(), 0o444)
        os.fsync(out.fileno())


def _plain_files(folder: Path, prefix: str) -> Iterator[tuple[str, int]]:
    """Path and size of all files; a link or a device has size -1, so that it equals nothing in a manifest."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from _plain_files(folder / entry.name, f"{prefix}{entry.name}/")
            else:
                status = entry.stat(follow_symlinks=False)
                yield f"{prefix}{entry.name}", status.st_size if stat.S_ISREG(status.st_mode) else -1


def _expect_hash(file: Path, sha256: str, digest: str) -> None:
    with file.open("rb") as stream:
        if hashlib.file_digest(stream, "sha256").hexdigest() != sha256:
            raise Fault(f"{file.name!a} of {digest} was changed in the store", _LOST)


def _remove(folder: Path) -> None:
    """Remove a folder of ours, closed and read-only folders in it included; one that is gone already is fine."""
    if not folder.exists():
        return
    folder.chmod(0o755)
    for parent, names, _ in os.walk(folder):
        for child in (Path(parent, name) for name in names):
            # A chmod would go through a link that untrusted code left behind, to wherever it points.
            if not child.is_symlink():
                child.chmod(0o755)
    shutil.rmtree(folder)
