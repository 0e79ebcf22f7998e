"""The program `scan`: every file of the model is looked at by modelscan, whatever its name says.

modelscan chooses its scanner by the extension; here the content does, so that a pickle called `notes.txt` is read as
one. Its list of dangerous imports is kept, and what is on neither that list nor ours (`allowed`) is a finding too.
Result: `{"findings": [{"file", "severity", "reason"}], "errors": [...], "scanned": n}`; any of the two blocks.
"""

import copy
import io
import json
import logging
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from numpy.lib import format as npy

from .allowed import is_allowed
from .pickle_prefix import importing_prefix, is_installed

MAX_FILE_BYTES = 1 << 30
MAX_UNPACKED_BYTES = 2 << 30
_REPORTED = 50
_NPY = b"\x93NUMPY"
_UNREADABLE = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\x04\x22\x4d\x18": "lz4",
    b"x\x01": "zlib",
    b"x\x5e": "zlib",
    b"x\x9c": "zlib",
    b"x\xda": "zlib",
    b"7z\xbc\xaf": "7z",
    b"Rar!": "rar",
    b"\x89HDF\r\n": "HDF5",
}
_UNLISTED = "LOW"


def run(_request: dict[str, Any], inputs: Path, _output: Path) -> dict[str, Any]:
    """Scan all files below `inputs`/model."""
    logging.getLogger("modelscan").disabled = True  # It logs what it reports anyway.
    scan = _Scan()
    root = inputs / "model"
    files = sorted(path for path in root.rglob("*") if not path.is_dir())
    for path in files:
        scan.file(path, path.relative_to(root).as_posix())
    scan.by_extension(root)
    return {"findings": scan.findings[:_REPORTED], "errors": scan.errors[:_REPORTED], "scanned": len(files)}


@dataclass
class _Scan:
    """What was found so far."""

    findings: list[dict[str, str]] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    unpacked: int = 0

    def file(self, path: Path, name: str) -> None:
        if path.is_symlink() or not path.is_file():
            self.errors.append(f"{name!a} is no regular file")
        elif path.stat().st_size > MAX_FILE_BYTES:
            self.errors.append(f"{name!a} is larger than {MAX_FILE_BYTES >> 20} MiB, too large to scan")
        else:
            data = path.read_bytes()
            self.content(data, name)
            if zipfile.is_zipfile(path):
                self.archive(path, name)

    def content(self, data: bytes, name: str) -> None:
        """One file or one member of an archive."""
        packed = next((kind for magic, kind in _UNREADABLE.items() if data.startswith(magic)), None)
        if packed is None and data[257:262] == b"ustar":
            packed = "tar"
        if packed:
            self.errors.append(f"{name!a} is a {packed} file, which the scanner cannot look into")
        if data.startswith(_NPY):
            self._array(data, name)
        if name.endswith("schema.json"):
            self._skops(data, name)
        prefix = importing_prefix(data)
        if prefix is not None:
            self._judge(_modelscan(prefix.data, name), name, prefix.is_pickle)

    def archive(self, path: Path, name: str) -> None:
        """All members of a zip file (as skops and PyTorch write them)."""
        try:
            with zipfile.ZipFile(path) as archive:
                for member in archive.infolist():
                    self._member(archive, member, f"{name}:{member.filename}")
        except (zipfile.BadZipFile, RuntimeError, NotImplementedError, EOFError, OSError) as error:
            self.errors.append(f"{name!a} cannot be unpacked: {error}")

    def _member(self, archive: zipfile.ZipFile, member: zipfile.ZipInfo, name: str) -> None:
        self.unpacked += member.file_size
        if self.unpacked > MAX_UNPACKED_BYTES:
            raise OSError(f"it unpacks to more than {MAX_UNPACKED_BYTES >> 20} MiB")
        data = archive.read(member)
        self.content(data, name)
        if zipfile.is_zipfile(io.BytesIO(data)):
            self.errors.append(f"{name!a} is an archive within an archive")

    def by_extension(self, root: Path) -> None:
        """modelscan as it comes, for what it knows by extension alone: TensorFlow, Keras, PyTorch."""
        from modelscan.modelscan import ModelScan
        from modelscan.settings import DEFAULT_SETTINGS
        from modelscan.skip import SkipCategories

        settings = copy.deepcopy(DEFAULT_SETTINGS)
        # It reaches for a private function that NumPy 2.4 no longer has; `_array` does its work.
        settings["scanners"]["modelscan.scanners.NumpyUnsafeOpScan"]["enabled"] = False
        scanner = ModelScan(settings)
        scanner.scan(root)
        self._issues(scanner.issues.all_issues, None, True)
        self.errors += [f"modelscan: {error}" for error in scanner.errors]
        # It did not look at what it does not know by name; that was done by content.
        harmless = SkipCategories.SCAN_NOT_SUPPORTED
        self.errors += [f"modelscan skipped {s.source}: {s.message}" for s in scanner.skipped if s.category != harmless]

    def _judge(self, results: Any, name: str, is_pickle: bool) -> None:
        self.errors += [f"{name!a}: {error}" for error in results.errors]
        self.errors += [f"{name!a} was skipped: {skipped.message}" for skipped in results.skipped]
        self._issues(results.issues, name, is_pickle)

    def _issues(self, issues: list[Any], name: str | None, is_pickle: bool) -> None:
        for issue in issues:
            details, severity = issue.details, issue.severity.name
            module, operator = str(details.module), str(details.operator)
            if severity == _UNLISTED and name is not None:
                if is_allowed(module, operator) or not (is_pickle or is_installed(module)):
                    continue
                severity = "UNLISTED"
            self.add(name or Path(details.source).name, severity, f"an import of {module}.{operator}")

    def add(self, name: str, severity: str, reason: str) -> None:
        finding = {"file": ascii(name)[1:-1], "severity": severity, "reason": ascii(reason)[1:-1]}
        if finding not in self.findings:
            self.findings.append(finding)

    def _array(self, data: bytes, name: str) -> None:
        """An array file; one of Python objects holds a pickle behind its header."""
        stream = io.BytesIO(data)
        try:
            version = npy.read_magic(stream)
            header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
            has_objects = header(stream)[2].hasobject
        except Exception as error:  # noqa: BLE001 - the header is parsed as Python, and fails in as many ways
            self.errors.append(f"{name!a} is a broken array file: {type(error).__name__}")
            return
        prefix = importing_prefix(data[stream.tell() :]) if has_objects else None
        if prefix is not None:
            self._judge(_modelscan(prefix.data, name), name, True)

    def _skops(self, data: bytes, name: str) -> None:
        """The types that a skops file is made of lie open in its schema."""
        try:
            schema = json.loads(data)
        except (ValueError, RecursionError) as error:
            self.errors.append(f"{name!a} cannot be read: {error}")
            return
        for module, operator in sorted(set(_skops_types(schema))):
            if not is_allowed(module, operator):
                self.add(name, "UNLISTED", f"an object of the type {module}.{operator}")


class _Anything(dict[str, str]):
    """A list of unsafe imports that every module is on, so that modelscan reports all it sees."""

    def __contains__(self, key: object) -> bool:
        return True

    def __getitem__(self, key: str) -> str:
        return "*"


def _modelscan(data: bytes, name: str) -> Any:
    """modelscan's own result for a pickle, everything that is imported listed at the lowest severity."""
    from modelscan.model import Model
    from modelscan.scanners.pickle.scan import PickleUnsafeOpScan
    from modelscan.scanners.scan import ScanResults
    from modelscan.settings import DEFAULT_SETTINGS, SupportedModelFormats

    settings = copy.deepcopy(DEFAULT_SETTINGS)
    settings["unsafe_globals"][_UNLISTED] = _Anything()
    model = Model(name, io.BytesIO(data))
    model.set_context("formats", [SupportedModelFormats.PICKLE])
    try:
        return PickleUnsafeOpScan(settings).scan(model)
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - an attack on the scanner may make it raise anything, and is an error
        return ScanResults([], [f"modelscan failed: {type(error).__name__}: {error}"], [])


def _skops_types(node: Any) -> Iterator[tuple[str, str]]:
    waiting = [node]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            if "__module__" in value and "__class__" in value:
                yield str(value["__module__"]), str(value["__class__"])
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value
