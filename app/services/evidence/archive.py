"""The archive itself: the same files give the same bytes, and every program that opens it sees the same files."""

import hashlib
import io
import zipfile
from collections.abc import Mapping

MANIFEST = "MANIFEST"
_BEGINNING = (1980, 1, 1, 0, 0, 0)  # the first moment that a zip knows
_PLAIN_FILE = 0o100644 << 16


def manifest(files: Mapping[str, bytes]) -> bytes:
    """The SHA-256 of each file, as `sha256sum -c MANIFEST` reads it."""
    return "".join(f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in sorted(files.items())).encode()


def archive(files: Mapping[str, bytes]) -> bytes:
    """A zip of the files. They are stored as they are: no version of a packer changes the bytes, and nobody who opens
    it can be made to unpack more than he was sent. Names are ASCII."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as target:
        for name, data in sorted(files.items()):
            entry = zipfile.ZipInfo(name, _BEGINNING)
            entry.create_system, entry.external_attr = 3, _PLAIN_FILE
            target.writestr(entry, data)
    return packed.getvalue()
