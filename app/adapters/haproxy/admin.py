"""Speaks to a running HAProxy by its sockets and parses what it says."""

import csv
import re
import socket
from dataclasses import dataclass
from pathlib import Path

from app import failpoints
from app.domain.errors import Fault, Transient

_TIMEOUT = 10.0
_RUNNING = 2
# Forced, inherited from the server that it tracks, or for want of an address. The bit for "by configuration" is no
# state: it stays when the server has long been made ready.
_MAINTENANCE = 0x01 | 0x02 | 0x20
# What `set server ... addr` says of a success; every other command says nothing.
_MOVED = re.compile(r"(no need to change|IP changed|port changed)")


@dataclass(frozen=True)
class ServerState:
    """One server as `show servers state` has it. `weight` is what was set, whatever its health."""

    ip: str
    port: int
    weight: int
    running: bool
    maintenance: bool

    @property
    def up(self) -> bool:
        return self.running and not self.maintenance


class Admin:
    """The sockets of one HAProxy. Every method raises Transient where it does not answer.

    Commands go through the master with the prefix `@1`, which always means the worker that took over last: on the
    worker's own socket an old one may answer for a moment after a reload.
    """

    def __init__(self, master: Path, worker: Path) -> None:
        self._master, self._worker = master, worker

    def ask(self, command: str) -> str:
        """The answer of the present worker to one command."""
        answer = _exchange(self._master, f"@1 {command}").decode(errors="replace")
        if answer.startswith("Can't connect to the target CLI"):
            raise Transient("HAProxy's worker does not answer.", "See HAProxy's own log, then try again.")
        return answer

    def tell(self, *commands: str) -> None:
        """Run commands as one line, so that nothing comes between them. Raises Fault for what HAProxy refuses."""
        line = "; ".join(f"@1 {command}" for command in commands)
        with failpoints.around("haproxy.tell"):
            said = _exchange(self._master, line).decode(errors="replace")
        refused = [text for text in said.splitlines() if text.strip() and not _MOVED.search(text)]
        if refused:
            raise Fault(f"HAProxy refused {commands}: {' '.join(refused)}", "See that its version is 2.6 or later.")

    def reload(self) -> None:
        """Ask the master for a new worker; it closes the connection before there is one."""
        with failpoints.around("haproxy.reload"):
            _exchange(self._master, "reload")

    def structure(self) -> str:
        """The digest that the running configuration was written with, or nothing."""
        found = re.search(r"^description: headgate-(\w+)$", self.ask("show info"), re.MULTILINE)
        return found[1] if found else ""

    def servers(self) -> dict[tuple[str, str], ServerState]:
        """The state of every server by (backend, server)."""
        return parse_servers(self.ask("show servers state"))

    def sessions(self, server: str) -> int:
        """Requests that the servers of this name and their backends are answering, by `backend/server`."""
        backend, _, name = server.partition("/")
        rows = csv.DictReader(self.ask("show stat").lstrip("# ").splitlines())
        return sum(int(row["scur"] or 0) for row in rows if (row["pxname"], row["svname"]) == (backend, name))

    def map(self, path: Path) -> dict[str, str]:
        """A map as the worker holds it. Every line is a pointer, the key and the value."""
        fields = (line.split(" ", 2) for line in self.ask(f"show map {path}").splitlines())
        return {found[1]: found[2] for found in fields if len(found) == 3}

    def events(self, ring: str) -> bytes:
        """All lines that a ring holds, oldest first."""
        return _exchange(self._worker, f"show events {ring}")


def parse_servers(text: str) -> dict[tuple[str, str], ServerState]:
    """The rows of `show servers state`, whose second line names the columns."""
    lines = text.splitlines()
    header = next((line for line in lines if line.startswith("# be_id")), "")
    columns = header.removeprefix("# ").split()
    rows = (line.split() for line in lines if line and not line.startswith("#"))
    named = (dict(zip(columns, row, strict=True)) for row in rows if len(row) == len(columns) > 1)
    return {
        (row["be_name"], row["srv_name"]): ServerState(
            row["srv_addr"],
            int(row["srv_port"]),
            int(row["srv_uweight"]),
            int(row["srv_op_state"]) == _RUNNING,
            bool(int(row["srv_admin_state"]) & _MAINTENANCE),
        )
        for row in named
    }


def _exchange(path: Path, line: str) -> bytes:
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(_TIMEOUT)
            connection.connect(str(path))
            connection.sendall(f"{line}\n".encode())
            connection.shutdown(socket.SHUT_WR)
            parts = bytearray()
            while part := connection.recv(1 << 18):
                parts += part
            return bytes(parts)
    except OSError as error:
        raise Transient(
            f"HAProxy does not answer on {path.name}: {error.strerror or error}.",
            "Start it with the command that the router gives, then try again.",
        ) from error
