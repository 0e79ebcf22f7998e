"""What a request may bring: so many bytes, in so much time, for a host of ours; all before anybody reads it."""

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.errors import problem

# A string, also one that does not end, or a bracket. No repetition gives back what it took: the time is linear.
_TOKENS = re.compile(rb'"(?:[^"\\]++|\\.)*+\\?(?:"|\Z)|[\[{\]}]', re.DOTALL)
# Up to so many times the limit is read and dropped, so that who sends too much can hear so; who sends more is cut off.
_DROPPED = 16


# The router and supervisors ask these by whatever name they know, and from an address that others may share.
OPEN = ("/healthz", "/readyz", "/lease/")


@dataclass(frozen=True)
class Limits:
    """`hosts`: the names that callers may know us by, lower case; empty: any."""

    body_bytes: int = 256 * 1024
    body_seconds: float = 15
    depth: int = 32
    url_bytes: int = 8 * 1024
    header_bytes: int = 32 * 1024
    hosts: frozenset[str] = frozenset()


class Limited:
    """ASGI middleware: takes the whole body before the application sees anything of the request."""

    def __init__(self, app: ASGIApp, limits: Limits) -> None:
        self._app, self._limits = app, limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        taken = self._head(scope) or await self._body(receive)
        if isinstance(taken, Response):
            await taken(scope, receive, send)
        elif taken is not None:  # else the caller went away
            await self._app(scope, _again(taken, receive), send)

    def _head(self, scope: Scope) -> Response | None:
        limits = self._limits
        if len(scope["raw_path"]) + len(scope["query_string"]) > limits.url_bytes:
            return problem(
                414, "too-long", f"The address has more than {limits.url_bytes} bytes.", detail="Shorten it."
            )
        if sum(len(name) + len(value) for name, value in scope["headers"]) > limits.header_bytes:
            reason = f"The headers have more than {limits.header_bytes} bytes."
            return problem(431, "too-long", reason, detail="Send fewer.")
        host = Headers(scope=scope).get("host", "").lower()
        if limits.hosts and not scope["path"].startswith(OPEN) and re.sub(r":[0-9]*\Z", "", host) not in limits.hosts:
            return problem(421, "host", "This service does not go by that name.", detail="See HEADGATE_ALLOWED_HOSTS.")
        return None

    async def _body(self, receive: Receive) -> bytes | Response | None:
        """The body, the refusal, or None where the caller went away. What Content-Length says counts for nothing."""
        limits, body, size = self._limits, bytearray(), 0
        try:
            async with asyncio.timeout(limits.body_seconds):
                more = True
                while more and size <= limits.body_bytes * _DROPPED:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return None
                    size += len(message.get("body", b""))
                    if size <= limits.body_bytes:
                        body += message.get("body", b"")
                    more = message.get("more_body", False)
        except TimeoutError:
            reason = f"The body took more than {limits.body_seconds:g} seconds."
            return _closing(408, "too-slow", reason, "Send it in one go.")
        if size > limits.body_bytes:
            reason = f"The body has more than {limits.body_bytes} bytes."
            return _closing(413, "too-large", reason, "No call of this API needs as much.")
        return self._form(bytes(body))

    def _form(self, body: bytes) -> bytes | Response:
        try:
            text = body.decode()
        except UnicodeDecodeError:
            text = "\0"
        if "\0" in text:  # JSON in UTF-16 has them, too: its brackets would not be found below
            return problem(400, "not-json", "The body is no text in UTF-8.", detail="Send JSON in UTF-8.")
        if _deeper(body, self._limits.depth):
            reason = f"The body has more than {self._limits.depth} levels of brackets."
            return problem(422, "too-deep", reason, detail="No call of this API needs as many.")
        return body


def _deeper(body: bytes, limit: int) -> bool:
    """Whether brackets are nested deeper than that; nothing is parsed for it."""
    if body.count(b"[") + body.count(b"{") <= limit:
        return False
    depth = 0
    for token in _TOKENS.finditer(body):
        first = token[0][:1]
        depth += (first in b"[{") - (first in b"]}")
        if depth > limit:
            return True
    return False


def _closing(status: int, kind: str, reason: str, remedy: str) -> Response:
    # The rest of the body may never come: the connection is of no use any more.
    headers: Mapping[str, str] = {"Connection": "close"}
    return problem(status, kind, reason, detail=remedy, headers=headers)


def _again(body: bytes, receive: Receive) -> Receive:
    """A `receive` that gives the body in one piece, and then what comes after it."""
    pending: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def next_message() -> Message:
        return pending.pop() if pending else await receive()

    return next_message
