"""Moves the traffic of a running HAProxy by its runtime API, in an order that loses no request."""

import time
from collections.abc import Callable
from pathlib import Path

from app.adapters.haproxy.admin import Admin, ServerState
from app.adapters.haproxy.config import releases
from app.adapters.haproxy.splits import Split, Target
from app.adapters.haproxy.words import CANARY, PLACES
from app.domain.errors import Fault, Transient

_POLL = 0.05


class Live:
    """The servers of one split in the running process.

    `patience` is how many seconds a new release may take to be healthy, or an old one to finish its last requests.
    """

    def __init__(self, admin: Admin, split: Split, releases_map: Path, patience: float) -> None:
        self._admin, self._split, self._map, self._patience = admin, split, releases_map, patience

    def follow(self) -> None:
        """Make the process follow the split. What is as wanted is left alone, so a second call does nothing.

        The order is the point: a new stable is healthy before it gets traffic, it has traffic before the canary loses
        its share, and what is no longer wanted goes last.
        """
        self._label()
        if self._split.stable:
            self._place_stable(self._split.stable)
        self._place_canary()
        if not self._split.stable:
            for place in PLACES:
                self._retire_place(place)
        self._verify()

    def active_place(self) -> str | None:
        """Where stable is now; None where the route has none."""
        states = self._states()
        return next((place for place in PLACES if _serves(states["http", place])), None)

    def _states(self) -> dict[tuple[str, str], ServerState]:
        """The route's servers by (probe | http | grpc, server)."""
        everything = self._admin.servers()
        kinds = {self._split.section(kind): kind for kind in ("probe", "http", "grpc")}
        found = {(kinds[backend], name): state for (backend, name), state in everything.items() if backend in kinds}
        if len(found) != 8:
            raise Fault(
                f"HAProxy does not know {self._split.model} in {self._split.environment}.",
                "Restart it with the written configuration.",
            )
        return found

    def _label(self) -> None:
        """Name the releases before they answer. Old names stay until the next reload: late answers need them."""
        known = self._admin.map(self._map)
        for place, release in releases([self._split]).items():
            if known.get(place) != release:
                self._admin.tell(f"{'set' if place in known else 'add'} map {self._map} {place} {release}")

    def _place_stable(self, target: Target) -> None:
        active = self.active_place()
        other = PLACES[1] if active == PLACES[0] else PLACES[0]
        if active is None or not self._is_at(active, target):
            self._move(other, target)
            self._wake(f"{self._split.section('probe')}/{other}")
            self._wait(
                lambda: self._states()["http", other].up,
                f"Release {target.release} is not ready behind the router.",
                "See that it runs and that HAProxy reaches it.",
            )
            active, other = other, active or ""
        # Both count for a moment and nobody minds; none would be an outage.
        self._weigh(active, 100)
        if other:
            self._retire_place(other)

    def _retire_place(self, place: str) -> None:
        """Take a place out of service. Requests that it is answering go on."""
        state = self._states()["http", place]
        self._weigh(place, 0)
        if not state.maintenance:
            self._admin.tell(f"set server {self._split.section('probe')}/{place} state maint")

    def _place_canary(self) -> None:
        canary = f"{self._split.section('http')}/{CANARY}"
        target = self._split.canary
        placed = target is not None and self._is_at(CANARY, target)
        if not placed:
            self._weigh(CANARY, 0)
            if not self._states()["http", CANARY].maintenance:
                self._admin.tell(f"set server {canary} state maint")
        if target is None:
            return
        if not placed:
            self._move(CANARY, target)
        woken = self._states()["http", CANARY].maintenance
        if woken:
            self._wake(canary)
        self._weigh(CANARY, self._split.share)
        if woken:
            self._settle()

    def _wake(self, server: str) -> None:
        """End a server's maintenance. It would count as healthy at once; it has to pass its check first, and the
        canary's asks for the controller's word as well."""
        self._admin.tell(f"set server {server} state ready", f"set server {server} health down")

    def _settle(self) -> None:
        """Give the canary a moment to come up, so that the caller's clock starts with its traffic. It may well stay
        down, when its controller does not vouch for it: that is the rule at work and status() says so."""
        end = time.monotonic() + min(self._patience, 3.0)
        while time.monotonic() < end and not self._states()["http", CANARY].up:
            time.sleep(_POLL)

    def _is_at(self, server: str, target: Target) -> bool:
        states = self._states()
        return (states["http", server].ip, states["http", server].port, states["grpc", server].port) == (
            target.ip,
            target.http_port,
            target.grpc_port,
        )

    def _move(self, server: str, target: Target) -> None:
        """Give an unused server another address.

        HAProxy closes its idle connections when an address changes but keeps the busy ones and reuses them later: they
        would go on to lead to the old release. So the last answer has to be out.
        """
        sections = [self._split.section(kind) for kind in ("http", "grpc")]
        self._wait(
            lambda: not any(self._admin.sessions(f"{section}/{server}") for section in sections),
            f"An old release of {self._split.model} has not finished its last requests.",
            "Wait for them to end; after 60 s HAProxy ends them itself.",
        )
        kinds = ["http", "grpc"] if server == CANARY else ["probe", "http", "grpc"]
        self._admin.tell(
            *(
                f"set server {self._split.section(kind)}/{server} addr {target.ip} "
                f"port {target.grpc_port if kind == 'grpc' else target.http_port}"
                for kind in kinds
            )
        )

    def _weigh(self, server: str, weight: int) -> None:
        states = self._states()
        # HTTP's servers decide for both protocols; gRPC's weights only matter when a server fails.
        wrong = [kind for kind in ("grpc", "http") if states[kind, server].weight != weight]
        if wrong:
            self._admin.tell(*(f"set server {self._split.section(kind)}/{server} weight {weight}" for kind in wrong))

    def _wait(self, done: Callable[[], bool], reason: str, remedy: str) -> None:
        end = time.monotonic() + self._patience
        while not done():
            if time.monotonic() > end:
                raise Transient(reason, remedy)
            time.sleep(_POLL)

    def _verify(self) -> None:
        """Read everything back. Raises Fault where the process is not as the split wants it."""
        states, split = self._states(), self._split
        serving = [place for place in PLACES if _serves(states["http", place])]
        canary = states["http", CANARY]
        right = (
            len(serving) == (1 if split.stable else 0)
            and (split.stable is None or self._is_at(serving[0], split.stable))
            and canary.maintenance is (split.canary is None)
            and canary.weight == states["grpc", CANARY].weight == split.share
            and (split.canary is None or self._is_at(CANARY, split.canary))
        )
        if not right:
            raise Fault(
                f"HAProxy does not follow the route of {split.model} in {split.environment}.",
                "See that nothing else changes it by its sockets.",
            )


def _serves(state: ServerState) -> bool:
    return state.weight > 0 and not state.maintenance
