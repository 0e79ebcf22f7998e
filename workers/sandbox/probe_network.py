"""Ways out of the sandbox by sockets: to the host, to name servers, and to the sockets of container engines."""

import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

_TIMEOUT = 0.5
_ENGINES = ("docker.sock", "podman/podman.sock", "containerd/containerd.sock", "dbus/system_bus_socket")
# A question for the address of example.com, as RFC 1035 writes it.
_QUESTION = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x07example\x03com\x00\x00\x01\x00\x01"


def attempts(request: dict[str, Any]) -> dict[str, Callable[[], bool]]:
    """By name; the self-test listens on the addresses in the request, and answers what comes by UDP."""
    return {
        "tcp to the host": lambda: _connects(tuple(request["tcp"])),
        "udp to the host": lambda: _is_answered(tuple(request["udp"]), b"x"),
        "name lookup": lambda: bool(socket.getaddrinfo("example.com", 80)),
        "asking a name server": lambda: _asks([*request["name_servers"], request["udp"]]),
        "sockets of the virtual machine's host": _speaks_to_the_hypervisor,
        "raw packets": _makes_raw_packets,
        "a route to a network": _has_a_route,
        "an abstract unix socket": lambda: _reaches("\0" + request["abstract_socket"]),
        "a unix socket of the host": lambda: _reaches(request["unix_socket"]),
        "the socket of a container engine": _reaches_an_engine,
    }


def _connects(address: tuple[str, int]) -> bool:
    with socket.create_connection(address, timeout=_TIMEOUT):
        return True


def _is_answered(address: tuple[str, int], message: bytes) -> bool:
    # That a packet could be sent says little: a sandbox may have a loopback device of its own.
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sender:
        sender.settimeout(_TIMEOUT)
        sender.sendto(message, address)
        return bool(sender.recv(512))


def _asks(servers: Sequence[tuple[str, int]]) -> bool:
    return any(_quietly(_is_answered, tuple(server), _QUESTION) for server in servers)


def _speaks_to_the_hypervisor() -> bool:
    # Network namespaces do not hold these sockets apart.
    with socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM):
        return True


def _makes_raw_packets() -> bool:
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW):
        return True


def _has_a_route() -> bool:
    # The first line is a heading.
    return len(Path("/proc/net/route").read_text().splitlines()) > 1


def _reaches(address: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(_TIMEOUT)
        client.connect(address)
        return True


def _reaches_an_engine() -> bool:
    places = [Path(folder, name) for folder in ("/run", "/var/run") for name in _ENGINES]
    # One that is there and refuses this user is one too many.
    return any(place.exists() or _quietly(_reaches, str(place)) for place in places)


def _quietly(attempt: Callable[..., bool], *arguments: Any) -> bool:
    try:
        return attempt(*arguments)
    except OSError:
        return False
