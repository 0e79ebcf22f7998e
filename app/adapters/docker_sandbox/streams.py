"""The streams of an attached container: what the program says, and what the warden sends, under one deadline."""

import os
import select
import time
from typing import Any

from app.sandbox.ending import MAX_TALK_BYTES, Talk

_CHUNK, _HEADER = 1 << 16, 8
_STDOUT = 1


class Broken(Exception):
    """The container has to be stopped, for it broke the bound of that name."""


class Closed(Exception):
    """The container has ended, or nobody leads to it any more."""


class Streams:
    """Reads Docker's multiplexed stream: frames of one byte for the stream, three of nothing, and four of length.

    `socket` is what the SDK attaches; closing it tells the warden that nobody waits.
    """

    def __init__(self, socket: Any, seconds: float) -> None:
        self._socket, self._deadline = socket, time.monotonic() + seconds
        self.talk = Talk()
        self._raw, self._sent = bytearray(), bytearray()
        self._stream, self._left = 0, 0

    def close(self) -> None:
        """End the connection."""
        # The SDK gives out what is left of an HTTP response, and closes of that but the outermost.
        for layer in (self._socket._response, self._socket, self._socket._sock):
            layer.close()

    def read(self, most: int) -> bytes:
        """The next bytes that the warden sends, at least one and at most so many.

        Raises:
            Broken: time is over, or the program talks too much.
            Closed: there are none.
        """
        while not self._sent:
            self._pull()
        taken = bytes(self._sent[:most])
        del self._sent[:most]
        return taken

    def line(self, longest: int) -> bytes:
        """The next line that the warden sends, without its end; raises as `read`, and ValueError for a longer one."""
        while b"\n" not in self._sent:
            if len(self._sent) > longest:
                raise ValueError("a line without an end")
            self._pull()
        line, _, rest = bytes(self._sent).partition(b"\n")
        self._sent[:] = rest
        return line

    def _pull(self) -> None:
        left = self._deadline - time.monotonic()
        if left <= 0 or not select.select([self._socket], [], [], left)[0]:
            raise Broken("time")
        try:
            chunk = os.read(self._socket.fileno(), _CHUNK)
        except BlockingIOError:
            return
        except ConnectionError:
            chunk = b""
        if not chunk:
            raise Closed
        self._raw += chunk
        while self._take():
            pass
        if self.talk.total > MAX_TALK_BYTES:
            raise Broken("talk")

    def _take(self) -> bool:
        """Give a part of a frame to its stream; False where more bytes are needed."""
        if not self._left:
            if len(self._raw) < _HEADER:
                return False
            self._stream, self._left = self._raw[0], int.from_bytes(self._raw[4:_HEADER])
            del self._raw[:_HEADER]
        part = bytes(self._raw[: self._left])
        del self._raw[: len(part)]
        self._left -= len(part)
        if self._stream == _STDOUT:
            self._sent += part
        else:
            self.talk.add(part)
        return bool(self._raw)
