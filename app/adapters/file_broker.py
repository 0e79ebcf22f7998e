"""Kombu's filesystem transport, made safe against a process that dies while it writes.

Kombu makes a file and then fills it: a worker that reads in between, or after a writer was killed, meets an empty one,
takes that for an unrecoverable error and ends; an empty table of queues keeps every later worker from starting. Here
whatever is written appears whole or not at all. What cannot be read is a lost message; the sweep makes up for it.
"""

import json
import logging
import os
import time
import uuid
from pathlib import Path
from queue import Empty
from typing import Any

from kombu.transport import filesystem
from kombu.transport.filesystem import exchange_queue_t

log = logging.getLogger(__name__)


class Channel(filesystem.Channel):
    """Messages and the table of queues, each a file that is renamed into place."""

    def _put(self, queue: str, payload: Any, **_options: Any) -> None:  # type: ignore[override]  # Kombu names it twice
        # The time comes first, so that older messages are read first; with a fixed width it also sorts as text.
        name = f"{time.time_ns():020d}_{uuid.uuid4()}.{queue}.msg"
        _write_whole(Path(self.data_folder_out, name), payload)

    def _get(self, queue: str, timeout: Any = None) -> Any:  # noqa: ARG002 -- signature of Kombu
        ours = f".{queue}.msg"
        for name in sorted(entry.name for entry in os.scandir(self.data_folder_in) if entry.name.endswith(ours)):
            waiting = Path(self.data_folder_in, name)
            taken = waiting.with_suffix(f".taken-{os.getpid()}")
            try:
                waiting.rename(taken)
            except FileNotFoundError:
                continue  # another worker was faster
            try:
                return json.loads(taken.read_bytes())
            except ValueError:
                log.warning("broker.unreadable_message", extra={"file": name})
            finally:
                taken.unlink()
        raise Empty

    def get_table(self, exchange: str) -> list[exchange_queue_t]:
        """The queues that are bound to an exchange."""
        try:
            return [exchange_queue_t(*row) for row in json.loads(self._file(exchange).read_bytes())]
        except (FileNotFoundError, ValueError):
            return []

    def _queue_bind(self, exchange: str, routing_key: str, pattern: str, queue: str) -> None:
        bound, known = exchange_queue_t(routing_key or "", pattern or "", queue or ""), self.get_table(exchange)
        if bound not in known:
            _write_whole(self._file(exchange), [bound, *known])

    def _file(self, exchange: str) -> Path:
        file: Path = self._exchange_file(exchange)  # type: ignore[no-untyped-call]  # Kombu has no types
        return file


class Transport(filesystem.Transport):
    """Kombu's transport with the channel above."""

    Channel = Channel


def _write_whole(file: Path, content: Any) -> None:
    draft = file.with_name(f".{uuid.uuid4()}")
    draft.write_text(json.dumps(content))
    draft.replace(file)
