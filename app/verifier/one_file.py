"""The verifier as one file that Python runs (PEP 441), for machines that have nothing of Headgate."""

import io
import zipfile
from pathlib import Path

NAME = "headgate_verify.pyz"
_PACKAGE = Path(__file__).parent / "headgate_verify"
_MAIN = b"""import sys

from headgate_verify.cli import main

sys.exit(main())
"""


def one_file() -> bytes:
    """The archive: the sources as they are, always in the same bytes, so that two copies can be compared."""
    files = {f"{_PACKAGE.name}/{file.name}": file.read_bytes() for file in sorted(_PACKAGE.glob("*.py"))}
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, data in {"__main__.py": _MAIN, **files}.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = 0o644 << 16
            archive.writestr(info, data)
    return b"#!/usr/bin/env python3\n" + stream.getvalue()
