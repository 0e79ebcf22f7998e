"""The archive of a pack of evidence: a hostile zip is refused, and what is in it is what MANIFEST lists."""

import hashlib
import io
import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .checkpoints import Checkpoint
from .reading import Bad, json_of, text_of

LARGEST_PACK = 256 << 20
MOST_FILES = 5000
REMOVABLE = re.compile(r"people\.json|index\.html")
"""What may be taken out of a pack when a person has to be forgotten: nothing that is proved stands on it."""
STEP = re.compile(r"evidence/([0-9]{3,})-([a-z_]+)\.json")
_NAME = re.compile(r"(?=.{1,100}\Z)[A-Za-z0-9][A-Za-z0-9._-]*(?:/[A-Za-z0-9][A-Za-z0-9._-]*)?")
_LINE = re.compile(r"([0-9a-f]{64})  (.+)")


@dataclass(frozen=True)
class Pack:
    """A pack that was read: its files by name, the leaves in it, each proved, and the checkpoint that they are in."""

    files: Mapping[str, bytes]
    missing: Sequence[str]
    predicate: Mapping[str, Any]
    point: Checkpoint
    leaves: Sequence[Mapping[str, Any]]

    def json(self, name: str) -> Any:
        """A file as JSON; None where the pack has no such file. Raises Bad where it means more than one thing."""
        return json_of(self.files[name], name) if name in self.files else None


def read_pack(data: bytes) -> dict[str, bytes]:
    """The files of a pack. It must be laid out as the service does it: plain files that are stored as they are, one
    behind the other with nothing between, so that every program that opens it sees the same.

    Raises:
        Bad: it is anything else.
    """
    files: dict[str, bytes] = {}
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            end = 0
            for info in archive.infolist()[: MOST_FILES + 1]:
                _check_entry(info, end, files)
                files[info.filename] = archive.read(info)
                end += 30 + len(info.filename) + info.file_size
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, ValueError, EOFError, OSError) as error:
        raise Bad(f"this is no sound archive ({type(error).__name__}: {str(error)[:80]})") from None
    if len(files) > MOST_FILES or end + sum(46 + len(name) for name in files) + 22 != len(data):
        raise Bad("the archive holds more than its files")
    return files


def _check_entry(info: zipfile.ZipInfo, end: int, files: Mapping[str, bytes]) -> None:
    shown = ascii(info.orig_filename)[:120]
    if not _NAME.fullmatch(info.orig_filename) or info.filename != info.orig_filename or info.filename in files:
        raise Bad(f"the archive has a file of the name {shown}, which is no plain one or stands twice")
    if info.flag_bits or info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
        raise Bad(f"{shown} is packed or encrypted; files of a pack are stored as they are")
    if info.external_attr >> 16 != 0o100644 or info.header_offset != end or info.extra or info.comment:
        raise Bad(f"{shown} is no plain file, or does not stand where it should")


def check_manifest(files: Mapping[str, bytes]) -> list[str]:
    """Returns the files that were taken out."""
    listed: dict[str, str] = {}
    for line in text_of(files, "MANIFEST").splitlines():
        found = _LINE.fullmatch(line)
        if found is None or found[2] in listed:
            raise Bad(f"MANIFEST has a line that is none, or stands twice: {line[:80]!a}")
        listed[found[2]] = found[1]
    for name in sorted(files.keys() - listed.keys() - {"MANIFEST", "statement.dsse.json"}):
        raise Bad(f"{name} is not in MANIFEST")
    for name, digest in listed.items():
        if name in files and hashlib.sha256(files[name]).hexdigest() != digest:
            raise Bad(f"{name} was changed")
        if name not in files and not REMOVABLE.fullmatch(name):
            raise Bad(f"{name[:100]} is missing")
    return sorted(listed.keys() - files.keys())


def entries(files: Mapping[str, bytes], name: str, keys: Sequence[str], within: str = "") -> list[dict[str, Any]]:
    """The list of objects in a file, each with just these keys; nothing where there is no such file."""
    found = json_of(files[name], name) if name in files else []
    if within and isinstance(found, dict):
        found = found.get(within)
    if not isinstance(found, list) or not all(isinstance(entry, dict) and entry.keys() == {*keys} for entry in found):
        raise Bad(f"{name} has another form than it should have")
    if any(not isinstance(entry["path"], list) for entry in found if "path" in entry):
        raise Bad(f"{name} has another form than it should have")
    return found
