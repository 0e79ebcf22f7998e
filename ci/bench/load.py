"""Drives the load generator: a few small client processes that begin together, and what they measured together."""

import base64
import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

_CLIENT = Path(__file__).with_name("client.py")


@dataclass(frozen=True)
class Load:
    """What a window of load came to: answers a second, latencies in milliseconds, CPU cores that the clients used."""

    rate: float
    latencies_ms: list[float]
    generator_cores: float


def http_request(url: str, body: bytes | None = None, headers: Mapping[str, str] | None = None) -> bytes:
    """The bytes of a POST of JSON, or of a GET where there is no body."""
    parts = urlsplit(url)
    lines = [f"{'GET' if body is None else 'POST'} {parts.path} HTTP/1.1", f"Host: {parts.netloc}"]
    if body is not None:
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    return "\r\n".join([*lines, "", ""]).encode() + (body or b"")


def closed(url: str, requests: Sequence[bytes], clients: int, seconds: float, processes: int = 1) -> Load:
    """`clients` connections, each of which asks again as soon as it is answered; they are shared by the processes."""
    shares = [clients // processes + (number < clients % processes) for number in range(processes)]
    return _run(url, [{"requests": requests, "connections": share, "open": False, "pace": seconds} for share in shares])


def paced(url: str, requests: Sequence[bytes], connections: int, rate: float) -> Load:
    """Each request once, `rate` a second; latencies count from when a request was due, so a stall is not forgotten."""
    return _run(url, [{"requests": requests, "connections": connections, "open": True, "pace": rate}])


def _run(url: str, plans: Sequence[Mapping[str, Any]]) -> Load:
    where = {"host": urlsplit(url).hostname, "port": urlsplit(url).port}
    with contextlib.ExitStack() as stack:
        clients = [_Client(stack, {**where, **plan}) for plan in plans]
        for client in clients:
            client.read()
        begun = time.monotonic()
        for client in clients:
            client.write("go")
        said = [json.loads(client.read()) for client in clients]
        seconds = time.monotonic() - begun
    latencies = [us / 1000 for one in said for us in one["latencies"]]
    return Load(sum(one["rate"] for one in said), latencies, sum(one["cpu"] for one in said) / seconds)


class _Client:
    """One client process. Its waits are bounded by itself, so that reading from it ends."""

    def __init__(self, stack: contextlib.ExitStack, plan: Mapping[str, Any]) -> None:
        # Without site packages a client starts within some ten milliseconds.
        command = [sys.executable, "-I", "-S", str(_CLIENT)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        stack.callback(self._end)
        encoded = [base64.b64encode(request).decode() for request in plan["requests"]]
        self.write(json.dumps({**plan, "requests": encoded}))

    def write(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def read(self) -> str:
        """The next line. Raises RuntimeError where the client broke off; it has said why on standard error."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("a client of the load generator broke off: see its last words above")
        return line

    def _end(self) -> None:
        self._process.kill()
        self._process.communicate()
