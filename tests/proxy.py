"""A TCP proxy in front of PostgreSQL that cuts a connection at a COMMIT: before the server gets it, or afterwards."""

import contextlib
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from tests.services import LOOPBACK

Moment = Literal["before", "after"]
COMMIT = b"COMMIT\0"


@dataclass
class Proxy:
    """Passes everything on until `cut` names the COMMIT at which a connection breaks; `cuts` counts those that did."""

    port: int
    server: int
    cuts: int = 0
    _left: int = 0
    _moment: Moment = "before"
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def cut(self, number: int, moment: Moment) -> None:
        """Break the connection at the COMMIT that is the `number`-th from now, 1 for the next one."""
        with self._lock:
            self._left, self._moment = number, moment

    def heal(self) -> None:
        """Cut nothing any more."""
        with self._lock:
            self._left = 0

    def _now(self, sent: bytes) -> Moment | None:
        """Whether the connection on which this was sent is to break, and when."""
        if COMMIT not in sent:
            return None
        with self._lock:
            self._left -= 1
            if self._left != 0:
                return None
            self.cuts += 1
            return self._moment

    def carry(self, client: socket.socket) -> None:
        """Serve one connection until either side closes it or it is cut."""
        with client, socket.create_connection((LOOPBACK, self.server)) as server:
            last = threading.Event()

            def back() -> None:
                with contextlib.suppress(OSError):
                    while (answer := server.recv(65536)) and not last.is_set():
                        client.sendall(answer)
                _close(client, server)

            returning = threading.Thread(target=back, daemon=True)
            returning.start()
            with contextlib.suppress(OSError):
                while sent := client.recv(65536):
                    moment = self._now(sent)
                    if moment == "before":
                        break
                    if moment == "after":
                        last.set()  # the answer that comes is read, which shows that it was done, and dropped
                    server.sendall(sent)
                    if moment == "after":
                        returning.join()
            _close(client, server)
            returning.join()


def _close(*sockets: socket.socket) -> None:
    for one in sockets:
        with contextlib.suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def proxy(server: int) -> Iterator[Proxy]:
    """A proxy on a free port of the loopback interface, in front of `server`, another port of it."""
    with socket.create_server((LOOPBACK, 0)) as listener:
        made = Proxy(listener.getsockname()[1], server)

        def listen() -> None:
            with contextlib.suppress(OSError):
                while True:
                    client, _ = listener.accept()
                    threading.Thread(target=made.carry, args=(client,), daemon=True).start()

        thread = threading.Thread(target=listen, daemon=True)
        thread.start()
        yield made
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
