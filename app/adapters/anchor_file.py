"""The port Anchor as a file that only grows: one note after another, with an empty line between them."""

import fcntl
import os
from pathlib import Path

from app.domain.errors import Fault


class AnchorFile:
    """Keeps checkpoints in `path`. On the database's own disk it shows less than on another machine's."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def keep(self, note: str) -> None:
        """Add the note, unless the file ends in it, and see that it is on the disk. Raises Fault where that fails."""
        data = f"{note}\n".encode()
        try:
            with self._path.open("a+b") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                end = file.seek(0, os.SEEK_END)
                file.seek(max(0, end - len(data)))
                if file.read() == data:
                    return
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            reason = f"Checkpoints cannot be kept in {self._path}: {error.strerror}."
            raise Fault(reason, "Make the file of HEADGATE_AUDIT_ANCHOR writable; nothing is lost.") from error
