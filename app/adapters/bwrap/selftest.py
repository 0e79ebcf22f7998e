"""Proving that the sandbox holds: real ways out are tried from inside, and watched from outside."""

import os
import secrets
import socket
import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

from app.domain.errors import Fault, Rejected

TIMEOUT = timedelta(seconds=60)
_REMEDY = "Do not promote anything on this machine: mend bubblewrap or the kernel's namespaces first."

Probe = Callable[[Mapping[str, Path], Mapping[str, Any], Path], Mapping[str, Any]]
"""Runs the program `probe` inside with these inputs and this request, and returns its result."""


def attempt_escape(probe: Probe) -> list[str]:
    """Have the probe try everything and return the names of what it tried in vain.

    Raises:
        Fault: something got out, or the probe could not do its work.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="headgate-selftest-")))
        planted = _plant(folder)
        tcp = stack.enter_context(_listener(socket.SOCK_STREAM))
        udp = stack.enter_context(_listener(socket.SOCK_DGRAM))
        request = {
            "tcp": tcp.getsockname(),
            "udp": udp.getsockname(),
            "secret_file": str(planted / "secret.txt"),
            "outside": str(planted / "written.txt"),
            "input_file": "planted/secret.txt",
            "host_pid": os.getpid(),
            "host_comm": Path("/proc/self/comm").read_text().strip(),
            "environment": sorted(os.environ),
        }
        (folder / "out").mkdir()
        try:
            result = probe({"planted": planted / "input"}, request, folder / "out")
        except Rejected as error:
            raise Fault(f"The sandbox's own probe failed: {error.reason}", "Check Python's packages.") from error
        open_ways = {*result["escaped"], *_seen_outside(tcp, udp, planted)}
    if open_ways:
        raise Fault(f"The sandbox does not hold: {', '.join(sorted(open_ways))}.", _REMEDY)
    if result["missing"]:
        raise Fault(f"The sandbox lacks Python packages: {', '.join(result['missing'])}.", "Install all of Headgate.")
    return sorted(result["tried"])


def _plant(folder: Path) -> Path:
    planted = folder / "planted"
    (planted / "input").mkdir(parents=True)
    (planted / "secret.txt").write_text(secrets.token_hex())
    (planted / "input" / "secret.txt").write_text("an input, which may be read")
    return planted


def _listener(kind: socket.SocketKind) -> socket.socket:
    listener = socket.socket(socket.AF_INET, kind)
    listener.bind(("127.0.0.1", 0))
    if kind == socket.SOCK_STREAM:
        listener.listen()
    listener.setblocking(False)
    return listener


def _seen_outside(tcp: socket.socket, udp: socket.socket, planted: Path) -> list[str]:
    """What got out as seen from here, whatever the probe says of itself."""
    seen = []
    try:
        tcp.accept()[0].close()
        seen.append("tcp to the host")
    except BlockingIOError:
        pass
    try:
        udp.recv(1)
        seen.append("udp to the host")
    except BlockingIOError:
        pass
    if (planted / "written.txt").exists():
        seen.append("writing outside")
    return seen
