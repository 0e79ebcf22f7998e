"""Files with secrets that Headgate makes itself, once."""

import contextlib
import os
from pathlib import Path
from tempfile import NamedTemporaryFile


def make_once(file: Path, content: bytes) -> None:
    """Write a file that only its owner can read, whole or not at all; of several processes that do so at once the first
    one wins. Raises OSError."""
    # A draft of its own: process ids are no names where containers share the folder.
    with NamedTemporaryFile(dir=file.parent, prefix=f".{file.name}.") as draft:
        draft.write(content)
        draft.flush()
        os.fsync(draft.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(draft.name, file)
