"""The program `scan`: every file of a model is looked at, whatever its name says; what nobody can look into blocks.

Two maintained scanners choose what to do by a file's extension; here the content does, so that a pickle called
`notes.txt` is read as one. Result: `{"findings": [{"file", "severity", "reason", "scanner"}], "errors": [...],
"scanned": n, "alone": {...}}`; any finding or error blocks. `alone` says what each scanner finds as it comes.
"""

import io
import json
import logging
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from numpy.lib import format as npy

from . import (
    scan_archives,
    scan_formats,
    scan_hdf5,
    scan_keras,
    scan_mlmodel,
    scan_pickles,
    scan_torch,
    scan_whole,
)
from .pickle_prefix import importing_prefix
from .refusal import Refused

MAX_FILE_BYTES = 1 << 30
_REPORTED = 50
# What else is wrong with an ONNX model is judged where it is served from; these are attacks, or nobody can tell.
_ONNX_ATTACKS = frozenset({"invalid-onnx", "external-data", "training-data", "unknown-operators", "onnx-limits"})


def run(_request: dict[str, Any], inputs: Path, _output: Path) -> dict[str, Any]:
    """Scan all files below `inputs`/model."""
    for logger in ("modelscan", "picklescan"):
        logging.getLogger(logger).disabled = True  # They log what they report anyway.
    scan = _Scan()
    root = inputs / "model"
    files = sorted(path for path in root.rglob("*") if path.is_symlink() or not path.is_dir())
    for path in files:
        scan.file(path, path.relative_to(root).as_posix())
    scan.add_all("MLmodel", "headgate", scan_mlmodel.problems(root / "MLmodel"))
    alone = scan.whole(root)
    return {
        "findings": scan.findings[:_REPORTED],
        "errors": scan.errors[:_REPORTED],
        "scanned": len(files),
        "alone": alone,
    }


@dataclass
class _Scan:
    """What was found so far."""

    findings: list[dict[str, str]] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    unpacked: int = 0

    def file(self, path: Path, name: str) -> None:
        if path.is_symlink() or not path.is_file():
            self.error(f"{name!a} is no regular file")
        elif path.stat().st_size > MAX_FILE_BYTES:
            self.error(f"{name!a} is larger than {MAX_FILE_BYTES >> 20} MiB, too large to scan")
        else:
            data = path.read_bytes()
            self.content(data, name)
            if zipfile.is_zipfile(path):
                self.archive(path, name)

    def content(self, data: bytes, name: str) -> None:
        """One file or one member of an archive."""
        if problem := scan_formats.problem(data):
            self.error(f"{name!a} {problem}")
        if code := scan_formats.code(data, name):
            self.add(name, "HIGH", code, "headgate")
        if data.startswith(npy.MAGIC_PREFIX):
            self._array(data, name)
        if name.endswith("schema.json"):
            self._skops(data, name)
        if name.endswith(".keras:config.json"):
            self._keras(data, name)
        if scan_formats.is_yaml(name):
            self.add_all(name, "headgate", scan_mlmodel.tags(data))
        if name.endswith(".onnx"):
            self._onnx(data, name)
        self._pickle(data, name)

    def archive(self, path: Path, name: str) -> None:
        """All members of a zip file (as skops and PyTorch write them)."""
        try:
            with zipfile.ZipFile(path) as archive:
                self._members(archive, name, path.stat().st_size)
        except (zipfile.BadZipFile, RuntimeError, NotImplementedError, EOFError, OSError, ValueError) as error:
            self.error(f"{name!a} cannot be unpacked: {str(error) or type(error).__name__}")
        except Exception as error:
            if type(error).__module__ not in ("zlib", "lzma"):  # they have one error each, of no better kind
                raise
            self.error(f"{name!a} cannot be unpacked: {error}")

    def _members(self, archive: zipfile.ZipFile, name: str, packed: int, nested: bool = False) -> None:
        """Look at each member, and into an archive among them: PyTorch keeps a model's sample inputs so."""
        self.add_all(name, "headgate", scan_archives.problems(archive))
        is_torch = scan_torch.is_archive(archive.namelist())
        for member in archive.infolist():
            self.unpacked += member.file_size
            scan_archives.check_size(self.unpacked, packed)
            data, inner = archive.read(member), f"{name}:{member.filename}"
            if is_torch and scan_torch.is_raw(member.filename):
                continue
            self.add_all(inner, "headgate", scan_torch.problems(data, member.filename) if is_torch else [])
            self._member(data, inner, packed, nested)

    def _member(self, data: bytes, name: str, packed: int, nested: bool) -> None:
        if name.endswith(".keras:model.weights.h5"):
            if problem := scan_hdf5.problem(data):
                self.error(f"{name!a} {problem}")
            return
        self.content(data, name)
        if not zipfile.is_zipfile(io.BytesIO(data)):
            return
        if nested:
            self.error(f"{name!a} is an archive within archives")
            return
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            self._members(archive, name, packed, nested=True)

    def whole(self, root: Path) -> dict[str, int]:
        """The two scanners as they come, for what they know by extension alone, and how many things each reported."""
        counts = {}
        for scanner, look in scan_whole.SCANNERS.items():
            seen = look(root)
            for file, severity, reason in seen.findings:
                self.add(file, severity, reason, scanner)
            for error in seen.errors:
                self.error(f"{scanner}: {error}")
            counts[scanner] = len(seen.findings) + len(seen.errors)
        return counts

    def error(self, text: str) -> None:
        self.errors.append(ascii(text)[1:-1])

    def add(self, name: str, severity: str, reason: str, scanner: str) -> None:
        finding = {"file": ascii(name)[1:-1], "severity": severity, "reason": ascii(reason)[1:-1], "scanner": scanner}
        if finding not in self.findings:
            self.findings.append(finding)

    def add_all(self, name: str, scanner: str, reasons: list[str]) -> None:
        for reason in reasons:
            self.add(name, "HIGH", reason, scanner)

    def _pickle(self, data: bytes, name: str) -> None:
        prefix = importing_prefix(data)
        if prefix is None:
            return
        verdict = scan_pickles.judge(prefix, name)
        for severity, reason, scanner in verdict.findings:
            self.add(name, severity, reason, scanner)
        for error in verdict.errors:
            self.error(f"{name!a}: {error}")

    def _array(self, data: bytes, name: str) -> None:
        """An array file; one of Python objects holds a pickle behind its header."""
        stream = io.BytesIO(data)
        try:
            version = npy.read_magic(stream)
            header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
            has_objects = header(stream)[2].hasobject
        except Exception as error:  # noqa: BLE001 - the header is parsed as Python, and fails in as many ways
            self.error(f"{name!a} is a broken array file: {type(error).__name__}")
            return
        if has_objects:
            self._pickle(data[stream.tell() :], name)

    def _skops(self, data: bytes, name: str) -> None:
        """The types that a skops file is made of lie open in its schema."""
        for reason in sorted(scan_archives.strange_nodes(self._json(data, name))):
            self.add(name, "UNLISTED", reason, "allow-list")

    def _keras(self, data: bytes, name: str) -> None:
        """The layers that a Keras model is made of lie open in its configuration."""
        for reason in scan_keras.strange_nodes(self._json(data, name)):
            self.add(name, "UNLISTED", reason, "allow-list")

    def _json(self, data: bytes, name: str) -> Any:
        try:
            return json.loads(data)
        except (ValueError, RecursionError) as error:
            self.error(f"{name!a} cannot be read: {error}")
            return None

    def _onnx(self, data: bytes, name: str) -> None:
        from . import onnx_check  # It takes a moment, and most models have no such file yet.

        try:
            onnx_check.check(onnx_check.parse(data))
        except Refused as refused:
            if refused.code in _ONNX_ATTACKS:
                self.add(name, "HIGH", refused.reason, "headgate")
