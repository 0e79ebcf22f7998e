"""Stands between the SDK and a Docker Engine and changes what containers are made of: takes layers away, really."""

import json
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

Change = Callable[[dict[str, Any]], None]


@contextmanager
def changing(host: str, change: Change) -> Iterator[str]:
    """The address of an engine that makes containers as `change` leaves their description; it is given those that run
    something with a network of their own kind only, and not those that are merely filled."""
    with (
        tempfile.TemporaryDirectory(prefix="headgate-") as short,
        socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as door,
    ):
        path = str(Path(short, "docker.sock"))
        door.bind(path)
        door.listen()
        server = threading.Thread(target=_serve, args=(door, host.removeprefix("unix://"), change), daemon=True)
        server.start()
        try:
            yield f"unix://{path}"
        finally:
            door.shutdown(socket.SHUT_RDWR)
            server.join()


def _serve(door: socket.socket, engine: str, change: Change) -> None:
    threads = []
    while True:
        try:
            client, _ = door.accept()
        except OSError:  # our own word for the end
            break
        threads.append(threading.Thread(target=_pass_on, args=(client, engine, change), daemon=True))
        threads[-1].start()
    for thread in threads:
        thread.join(10)


def _pass_on(client: socket.socket, engine: str, change: Change) -> None:
    """One request and its answer: the engine is told to close the connection after it."""
    with client, socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.connect(engine)
        head, body = _head(client)
        if not head:
            return
        lines = head.split(b"\r\n")
        if b"/containers/create" in lines[0]:
            size = int(next(line for line in lines if line.lower().startswith(b"content-length:")).split(b":")[1])
            while len(body) < size:
                body += client.recv(1 << 16)
            asked = json.loads(body)
            if asked["HostConfig"].get("ReadonlyRootfs"):
                change(asked)
            body = json.dumps(asked).encode()
            lines = [line for line in lines if not line.lower().startswith(b"content-length:")]
            lines.append(b"Content-Length: %d" % len(body))
        if not any(line.lower().startswith(b"upgrade:") for line in lines):
            lines = [line for line in lines if not line.lower().startswith(b"connection:")] + [b"Connection: close"]
        server.sendall(b"\r\n".join(lines) + b"\r\n\r\n" + body)
        onward = threading.Thread(target=_pump, args=(client, server), daemon=True)
        onward.start()
        _pump(server, client)
        onward.join(10)


def _head(client: socket.socket) -> tuple[bytes, bytes]:
    data = b""
    while b"\r\n\r\n" not in data:
        chunk = client.recv(1 << 16)
        if not chunk:
            return b"", b""
        data += chunk
    head, _, rest = data.partition(b"\r\n\r\n")
    return head, rest


def _pump(source: socket.socket, sink: socket.socket) -> None:
    try:
        while chunk := source.recv(1 << 16):
            sink.sendall(chunk)
        sink.shutdown(socket.SHUT_WR)
    except OSError:  # the other side has gone
        return
