"""Proving that the sandbox holds: real ways out are tried from inside, and watched from outside."""

import os
import secrets
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from app.domain.errors import Fault, Rejected

TIMEOUT = timedelta(seconds=60)
MEMORY_MIB = 2048
Probe = Callable[[Mapping[str, Path], Mapping[str, Any], Path], Mapping[str, Any]]
"""Runs the program `probe` inside with these inputs and this request, under MEMORY_MIB, and returns its result."""


def attempt_escape(probe: Probe, file_mib: int, remedy: str, container: Mapping[str, Any] | None = None) -> list[str]:
    """Have the probe try everything and return the names of what it tried in vain; `file_mib` is what one file may hold
    inside. `container` says that it is one: `engine`, the address of the daemon, and `threads`, how many it may have.

    Raises:
        Fault: something got out, or the probe could not do its work.
    """
    with tempfile.TemporaryDirectory(prefix="headgate-selftest-") as name, _watching(Path(name), file_mib) as watch:
        try:
            request = {**watch.request(), "container": container}
            result = probe({"planted": watch.planted / "input"}, request, _empty(Path(name, "out")))
        except Rejected as error:
            raise Fault(f"The sandbox's own probe failed: {error.reason}", "Check Python's packages.") from error
        open_ways = {*result["escaped"], *watch.seen()}
        bomb = _bomb(probe, watch, _empty(Path(name, "bomb")))
    open_ways |= {*bomb["escaped"]}
    if open_ways:
        raise Fault(f"The sandbox does not hold: {', '.join(sorted(open_ways))}.", remedy)
    if result["missing"]:
        raise Fault(f"The sandbox lacks Python packages: {', '.join(result['missing'])}.", "Install all of Headgate.")
    return sorted({*result["tried"], *bomb["tried"]})


def _bomb(probe: Probe, watch: "_Watch", output: Path) -> Mapping[str, Any]:
    """The thread bomb runs by itself: a sandbox that holds may end the whole program for it."""
    try:
        return probe({}, {**watch.request(), "bomb": True}, output)
    except Rejected:
        return {"tried": ["threads without end"], "escaped": []}


def _empty(folder: Path) -> Path:
    folder.mkdir()
    return folder


@dataclass(frozen=True)
class _Watch:
    """What the probe shall not reach, and ways to see from here that it did, whatever it says of itself."""

    planted: Path
    file_mib: int
    tcp: socket.socket
    named: socket.socket
    abstract: socket.socket
    udp: "_Echo"

    def request(self) -> dict[str, Any]:
        return {
            "tcp": self.tcp.getsockname(),
            "udp": self.udp.address,
            "name_servers": _name_servers(),
            "unix_socket": self.named.getsockname(),
            "abstract_socket": self.abstract.getsockname()[1:].decode(),
            "secret_file": str(self.planted / "secret.txt"),
            "outside": str(self.planted / "written.txt"),
            "input_file": "planted/plain.txt",
            "link": "planted/link",
            "memory_mib": MEMORY_MIB,
            "file_mib": self.file_mib,
            "host_pid": os.getpid(),
            "host_comm": Path("/proc/self/comm").read_text().strip(),
            "environment": sorted(os.environ),
        }

    def seen(self) -> Iterator[str]:
        listeners = {
            "tcp to the host": self.tcp,
            "a unix socket of the host": self.named,
            "an abstract unix socket": self.abstract,
        }
        yield from (way for way, listener in listeners.items() if _was_called(listener))
        if self.udp.heard:
            yield "udp to the host"
        if (self.planted / "written.txt").exists():
            yield "writing outside"


@contextmanager
def _watching(folder: Path, file_mib: int) -> Iterator[_Watch]:
    planted = folder / "planted"
    (planted / "input").mkdir(parents=True)
    (planted / "secret.txt").write_text(secrets.token_hex())
    (planted / "input" / "plain.txt").write_text("an input, which may be read")
    (planted / "input" / "link").symlink_to(planted / "secret.txt")
    # Open to everybody: no mere lack of rights shall hide that the place can be seen from inside.
    folder.chmod(0o755)
    planted.chmod(0o777)
    with ExitStack() as stack:
        tcp, named, abstract = (
            stack.enter_context(_listener(family, address))
            for family, address in (
                (socket.AF_INET, ("127.0.0.1", 0)),
                (socket.AF_UNIX, str(folder / "listener")),
                (socket.AF_UNIX, f"\0headgate-selftest-{secrets.token_hex(8)}".encode()),
            )
        )
        (folder / "listener").chmod(0o777)
        yield _Watch(planted, file_mib, tcp, named, abstract, stack.enter_context(_echo()))


def _listener(family: socket.AddressFamily, address: Any) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.bind(address)
    listener.listen()
    listener.setblocking(False)
    return listener


def _was_called(listener: socket.socket) -> bool:
    try:
        listener.accept()[0].close()
    except BlockingIOError:
        return False
    return True


@dataclass
class _Echo:
    """Answers every packet with itself, and remembers that one came."""

    address: tuple[str, int]
    heard: bool = False


@contextmanager
def _echo() -> Iterator[_Echo]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as end:
        end.bind(("127.0.0.1", 0))
        echo = _Echo(end.getsockname())

        def answer() -> None:
            while True:
                data, sender = end.recvfrom(512)
                if not data:  # our own word for the end
                    return
                echo.heard = True
                end.sendto(data, sender)

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        try:
            yield echo
        finally:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ours:
                ours.sendto(b"", echo.address)
            thread.join()


def _name_servers() -> list[tuple[str, int]]:
    try:
        lines = Path("/etc/resolv.conf").read_text().splitlines()
    except OSError:
        return []
    words = [line.split() for line in lines if line.startswith("nameserver")]
    return [(word[1], 53) for word in words if len(word) > 1]
