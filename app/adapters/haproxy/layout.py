"""What is fixed while a router runs: its folder, addresses and secrets, checked so that nothing can inject config."""

import hashlib
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from app.domain.errors import Fault

ENVIRONMENT = re.compile(r"[A-Za-z0-9._-]{1,60}")
_HOST = re.compile(r"[A-Za-z0-9._:-]{1,253}")
_PATH = re.compile(r"[A-Za-z0-9/._+@~-]+")
# A shared secret that could be guessed is worse than none.
_TOKEN = re.compile(r"[\x21-\x7e]{16,512}")
# HAProxy binds a socket under a longer temporary name first, and a socket's path may have 107 bytes.
_SOCKET_PATH = 90
_ANY = {"0.0.0.0": "127.0.0.1", "::": "::1", "*": "127.0.0.1"}  # noqa: S104 - the wildcard is compared, not bound


@dataclass(frozen=True)
class Layout:
    """A router's fixed part.

    `environments` maps a name to its (HTTP port, gRPC port); both listen on the address `bind`. `lease` is the host and
    port of the controller's lease endpoint, a name is resolved when HAProxy starts. `variant_token` lets a caller ask
    for a variant; None: nobody can. `max_body` is in bytes, `ring` is the size in bytes of the log kept in memory.

    Raises Fault where a value cannot stand in a configuration.
    """

    folder: Path
    environments: Mapping[str, tuple[int, int]]
    bind: str
    lease: tuple[str, int]
    variant_token: str | None = None
    max_body: int = 64 << 20
    ring: int = 16 << 20

    def __post_init__(self) -> None:
        if not _PATH.fullmatch(str(self.folder)) or not self.folder.is_absolute():
            raise Fault(
                f"HAProxy cannot keep its files in {str(self.folder)!r}.",
                "Choose an absolute path of letters, digits and '/._+@~-' for HEADGATE_ROUTER_DIR.",
            )
        if len(str(self.admin_socket)) > _SOCKET_PATH:
            raise Fault(
                f"The path {self.admin_socket} is too long for a socket.",
                f"Choose a HEADGATE_ROUTER_DIR so that it has at most {_SOCKET_PATH} characters.",
            )
        for host in (self.bind, self.lease[0]):
            if not _HOST.fullmatch(host):
                raise Fault(f"{host!r} is no host name or address.", "Correct the router's bind and lease address.")
        for name in self.environments:
            if not ENVIRONMENT.fullmatch(name):
                raise Fault(
                    f"{name!r} cannot name an environment.", "Use at most 60 letters, digits, '.', '_' and '-'."
                )
        counted = Counter(port for pair in self.environments.values() for port in pair)
        wrong = [port for port, times in counted.items() if times > 1 or not 0 < port < 65536]
        if wrong or not 0 < self.lease[1] < 65536:
            raise Fault(
                f"Ports {wrong or self.lease[1]} cannot be used.", "Give each environment two ports of its own."
            )
        if self.variant_token is not None and not _TOKEN.fullmatch(self.variant_token):
            raise Fault("The variant token is malformed.", "Use 16 or more printable characters without spaces.")

    @property
    def config(self) -> Path:
        return self.folder / "haproxy.cfg"

    @property
    def models_map(self) -> Path:
        """From the first bytes of a gRPC message, in hex, to the model that it names."""
        return self.folder / "models.map"

    @property
    def releases_map(self) -> Path:
        """From a server's `ip:port` to the release that listens there."""
        return self.folder / "releases.map"

    @property
    def state(self) -> Path:
        """The health that servers start with."""
        return self.folder / "servers.state"

    @property
    def record(self) -> Path:
        """The routes that the router last followed, as JSON."""
        return self.folder / "routes.json"

    @property
    def fences(self) -> Path:
        """The highest fencing token seen for each route, as JSON; no restart forgets one."""
        return self.folder / "fences.json"

    @property
    def kept_events(self) -> Path:
        """The log lines that a worker held in memory before it was replaced."""
        return self.folder / "events.log"

    @property
    def lock(self) -> Path:
        return self.folder / "lock"

    @property
    def admin_socket(self) -> Path:
        return self.folder / "admin.sock"

    @property
    def master_socket(self) -> Path:
        return self.folder / "master.sock"

    @property
    def token_digest(self) -> str | None:
        """What the configuration holds of the variant token: HAProxy compares digests, so the file tells nobody."""
        return hashlib.sha256(self.variant_token.encode()).hexdigest().upper() if self.variant_token else None

    def address(self, environment: str, grpc: bool = False) -> str:
        """Base URL for HTTP, `host:port` for gRPC. A wildcard is answered with loopback, where it listens as well."""
        try:
            port = self.environments[environment][int(grpc)]
        except KeyError:
            raise unknown(environment, self.environments) from None
        host = _ANY.get(self.bind, self.bind)
        host = f"[{host}]" if ":" in host else host
        return f"{host}:{port}" if grpc else f"http://{host}:{port}"


def unknown(environment: str, known: Mapping[str, object]) -> Fault:
    """The error for an environment that the router has no ports for."""
    return Fault(
        f"The router has no environment {environment!r}, only {', '.join(sorted(known)) or 'none'}.",
        "Give it ports in HEADGATE_ROUTER_PORTS and start again.",
    )
