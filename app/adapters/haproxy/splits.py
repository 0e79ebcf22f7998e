"""A route as HAProxy needs it: checked names, addresses instead of host names, the share that really applies."""

import ipaddress
import json
import re
import socket
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from app.adapters.haproxy.layout import unknown
from app.domain.errors import Fault, Rejected, Transient
from app.ports import Route, Server

# The model repository allows the same names; they become section names, paths and map entries here.
_MODEL = re.compile(r"[A-Za-z0-9._-]{1,200}")
_RELEASE = re.compile(r"[A-Za-z0-9._@+-]{1,200}")


@dataclass(frozen=True)
class Target:
    """Where a release listens; `ip` is an address, never a name."""

    release: str
    ip: str
    http_port: int
    grpc_port: int


@dataclass(frozen=True)
class Split:
    """How the traffic of one model in one environment is divided; `share` is the canary's, in percent.

    A first release has nobody to share with: without `stable` the share is 100, or 0 to hold all traffic back.
    """

    environment: str
    model: str
    stable: Target | None = None
    canary: Target | None = None
    share: int = 0

    @property
    def key(self) -> tuple[str, str]:
        return self.environment, self.model

    def section(self, kind: str) -> str:
        """The name of a backend. No name has a colon in it, so no two routes can mean the same section."""
        return f"{self.environment}:{self.model}:{kind}"

    def emptied(self) -> "Split":
        """The same route without any server."""
        return Split(self.environment, self.model)


def split_of(route: Route, environments: Mapping[str, object]) -> Split:
    """Check a route and look up its hosts.

    Raises Rejected for a model's name that no path can carry, Fault for what Headgate itself got wrong, Transient where
    a host name does not resolve.
    """
    if not _MODEL.fullmatch(route.model):
        raise Rejected(
            f"A model named {route.model!r} cannot be routed.",
            "Register it under a name of at most 200 letters, digits, '.', '_' and '-'.",
        )
    if route.environment not in environments:
        raise unknown(route.environment, environments)
    if not 0 <= route.weight <= 100:
        raise Fault(f"A weight of {route.weight} % cannot be given.", "Set a weight from 0 to 100.")
    stable, canary = (_target(server) if server else None for server in (route.stable, route.canary))
    share = route.weight if canary else 0
    if share and stable is None:
        share = 100
    return Split(route.environment, route.model, stable, canary, share)


def _target(server: Server) -> Target:
    where = server.endpoint
    if not _RELEASE.fullmatch(server.release):
        raise Fault(f"{server.release!r} cannot name a release.", "Use <version>@<digest12>.")
    if not all(0 < port < 65536 for port in (where.http_port, where.grpc_port)):
        raise Fault(f"Release {server.release} has no ports.", "Start it before it is routed.")
    return Target(server.release, _ip(where.host), where.http_port, where.grpc_port)


def _ip(host: str) -> str:
    # HAProxy's runtime takes addresses only; a name would need a resolver section and could change under our feet.
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        pass  # a name, to be looked up
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError as error:
        raise Transient(f"The host {host!r} of a release does not resolve: {error}.", "See that it runs.") from error
    return str(ipaddress.ip_address(found[0][4][0]))


def merged(recorded: Iterable[Split], wanted: Iterable[Split], change: Split) -> list[Split]:
    """The routes to follow now: those recorded, those that are new, and the change.

    A worker that moves one model's traffic read the others some time ago, while another worker may just have moved
    them. So only `change` may alter what is recorded, and nothing is dropped because a list did not name it.
    """
    known = {split.key: split for split in recorded}
    for split in wanted:
        known.setdefault(split.key, split)
    known[change.key] = change
    return [known[key] for key in sorted(known)]


def dump(splits: Iterable[Split]) -> str:
    return json.dumps([asdict(split) for split in splits], indent=1)


def load(text: str) -> list[Split]:
    """What `dump` wrote. Raises ValueError, KeyError or TypeError for anything else."""
    return [_load_one(entry) for entry in json.loads(text)]


def load_fences(text: str) -> dict[str, int]:
    """The tokens by route. Raises ValueError, TypeError or AttributeError for anything else."""
    return {str(route): int(token) for route, token in json.loads(text).items()}


def _load_one(entry: dict[str, Any]) -> Split:
    stable, canary = (Target(**entry[role]) if entry[role] else None for role in ("stable", "canary"))
    return Split(entry["environment"], entry["model"], stable, canary, entry["share"])
