"""Everybody's share: calls of a principal, failures of an address, event streams at a time. Counted in this process."""

import hashlib
import math
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.errors import problem
from app.api.limits import OPEN
from app.domain.errors import TooMany

REMEMBERED = 10_000


@dataclass(frozen=True)
class Shares:
    """`per_second` calls of one principal, `burst` at once; `failures` at once of one address, as many again in a
    minute; `streams` of events at a time for one principal."""

    per_second: float = 100
    burst: int = 1000
    failures: int = 60
    streams: int = 10


class Buckets:
    """Token buckets by name: each holds up to `burst` and gains `per_second`. The least used are forgotten."""

    def __init__(self, per_second: float, burst: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate, self._burst, self._clock = per_second, burst, clock
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._lock = threading.Lock()

    def take(self, name: str) -> float:
        """Take one; 0, or the seconds until there is one again."""
        with self._lock:
            left, moment = self._level(name), self._clock()
            self._left[name] = (left - 1 if left >= 1 else left, moment)
            self._left.move_to_end(name)
            if len(self._left) > REMEMBERED:
                self._left.popitem(last=False)
        return 0 if left >= 1 else (1 - left) / self._rate

    def wait(self, name: str) -> float:
        """The same without taking any."""
        with self._lock:
            left = self._level(name)
        return 0 if left >= 1 else (1 - left) / self._rate

    def _level(self, name: str) -> float:
        left, since = self._left.get(name, (float(self._burst), self._clock()))
        return min(self._burst, left + (self._clock() - since) * self._rate)


class Rates:
    """Who has used what. Raises TooMany where it is more than the share."""

    def __init__(self, shares: Shares) -> None:
        self._shares, self._calls = shares, Buckets(shares.per_second, shares.burst)
        self._streams, self._lock = Counter[str](), threading.Lock()

    def call(self, principal: str) -> None:
        """Count one call of a principal that has shown its token."""
        wait = self._calls.take(principal)
        if wait:
            remedy = f"{self._shares.per_second:g} a second are {principal}'s share."
            raise TooMany("Too many calls.", remedy, math.ceil(wait))

    @contextmanager
    def stream(self, principal: str) -> Iterator[None]:
        """Count a stream of events as long as it lasts."""
        with self._lock:
            if self._streams[principal] >= self._shares.streams:
                remedy = f"{self._shares.streams} at a time are {principal}'s share: end one first."
                raise TooMany("Too many event streams.", remedy, 5)
            self._streams[principal] += 1
        try:
            yield
        finally:
            with self._lock:
                self._streams[principal] -= 1
                if not self._streams[principal]:
                    del self._streams[principal]


class Failures:
    """ASGI middleware: an address that has failed too often to show a valid token waits, but for callers whose token
    was good here before. So whoever guesses costs no look into the database, and shuts nobody else out."""

    def __init__(self, app: ASGIApp, shares: Shares) -> None:
        self._app, self._buckets = app, Buckets(shares.failures / 60, shares.failures)
        self._good: OrderedDict[bytes, None] = OrderedDict()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].startswith(OPEN):
            await self._app(scope, receive, send)
            return
        address = (scope.get("client") or ("",))[0]
        shown = Headers(scope=scope).get("authorization")
        mark = hashlib.sha256(shown.encode("latin-1")).digest() if shown else b""
        wait = self._buckets.wait(address)
        if wait and mark not in self._good:
            refused = problem(
                429,
                "too-many",
                "Too many calls without a valid token.",
                detail="Wait, then send one.",
                headers={"Retry-After": str(math.ceil(wait))},
            )
            await refused(scope, receive, send)
            return

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._note(message["status"] == 401, "principal" in state, address, mark)
            await send(message)

        state = scope.setdefault("state", {})

        await self._app(scope, receive, answer)

    def _note(self, failed: bool, known: bool, address: str, mark: bytes) -> None:
        if failed:
            self._buckets.take(address)
            self._good.pop(mark, None)
        elif known:
            self._good[mark] = None
            self._good.move_to_end(mark)
            if len(self._good) > REMEMBERED:
                self._good.popitem(last=False)
