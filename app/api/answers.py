"""What every answer has, whoever gives it: a request id, headers for browsers, and no word about what went wrong."""

import secrets
from collections.abc import Mapping

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.errors import defect
from app.logs import REQUEST

HEADERS: Mapping[str, str] = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_HTTPS = {"Strict-Transport-Security": "max-age=31536000"}


class Answers:
    """ASGI middleware, the outermost one. `https`: people reach the service by https, and by nothing else."""

    def __init__(self, app: ASGIApp, https: bool) -> None:
        self._app, self._headers = app, {**HEADERS, **(_HTTPS if https else {})}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request, begun = secrets.token_hex(12), False

        async def answer(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                headers = MutableHeaders(scope=message)
                for name, value in self._headers.items():
                    headers.setdefault(name, value)
                headers["X-Request-Id"] = request
            await send(message)

        token = REQUEST.set(request)
        try:
            await self._app(scope, receive, answer)
        except Exception as error:
            found = defect(error, scope["path"])
            if begun:
                raise  # the server cuts the answer off: half of one must not look like a whole
            await found(scope, receive, answer)
        finally:
            REQUEST.reset(token)
