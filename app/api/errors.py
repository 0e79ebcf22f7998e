"""The only table from errors to HTTP: RFC 9457 problem documents with a stable `type`."""

import json
import logging
from collections.abc import Mapping

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from fastapi.routing import iter_route_contexts
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import compile_path

from app.domain.errors import (
    Conflict,
    Fault,
    Forbidden,
    HeadgateError,
    Invalid,
    NotFound,
    Rejected,
    Stale,
    TooMany,
    Transient,
    Unauthorized,
)

log = logging.getLogger(__name__)
TYPE = "urn:headgate:problem:"
MEDIA_TYPE = "application/problem+json"
LONGEST = 2000
STATUS: Mapping[type[HeadgateError], tuple[int, str]] = {
    NotFound: (404, "not-found"),
    Conflict: (409, "conflict"),
    Forbidden: (403, "forbidden"),
    Unauthorized: (401, "unauthorized"),
    Stale: (412, "stale"),
    TooMany: (429, "too-many"),
    Invalid: (422, "invalid"),
    Rejected: (422, "rejected"),
    Transient: (503, "unavailable"),
    Fault: (500, "fault"),
}


def problem(status: int, kind: str, title: str, *, headers: Mapping[str, str] | None = None, **more: str) -> Response:
    """One problem document."""
    body = {"type": TYPE + kind, "title": title, "status": status, **{k: v[:LONGEST] for k, v in more.items() if v}}
    sent = {"WWW-Authenticate": "Bearer"} if status == 401 else {}
    if status == 503:
        sent["Retry-After"] = "2"
    # In ASCII: what a caller has sent may stand in it, and not all of that can be written in UTF-8.
    return Response(json.dumps(body), status, {**sent, **(headers or {})}, media_type=MEDIA_TYPE)


def defect(error: Exception, path: str) -> Response:
    """The answer to an error that nobody foresaw: what it says goes to the log and nowhere else."""
    log.error("api.defect", exc_info=error, extra={"path": path})
    return problem(500, "defect", "Headgate failed to answer.", detail="The log says more, under this X-Request-Id.")


def install(app: FastAPI) -> None:
    """Answer every error with a problem document; what nobody foresaw is `answers.Answers`' to catch."""
    app.add_exception_handler(HeadgateError, _own)
    app.add_exception_handler(RequestValidationError, _malformed)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(ClientDisconnect, _hung_up)


def _own(_request: Request, error: Exception) -> Response:
    if not isinstance(error, HeadgateError):
        raise error
    status, kind = STATUS.get(type(error), (500, "fault"))
    headers = {"Retry-After": str(error.seconds)} if isinstance(error, TooMany) else None
    return problem(status, kind, error.reason, headers=headers, detail=error.remedy, field=getattr(error, "field", ""))


def _malformed(_request: Request, error: Exception) -> Response:
    if not isinstance(error, RequestValidationError):
        raise error
    first = error.errors()[0]
    field = ".".join(str(part) for part in first["loc"] if part not in ("body", "query", "path", "header"))
    return problem(422, "invalid", f"{field or 'body'}: {first['msg']}", field=field)


def _http(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    headers = {"Allow": _allowed(request)} if error.status_code == 405 else error.headers
    return problem(error.status_code, f"http-{error.status_code}", str(error.detail), headers=headers)


def _allowed(request: Request) -> str:
    """All methods of the path: the framework names those of the first route that it finds there."""
    routes = [route for route in iter_route_contexts(request.app.routes) if route.path and route.methods]
    there = [route for route in routes if compile_path(str(route.path))[0].match(request.url.path)]
    return ", ".join(sorted({method for route in there for method in route.methods or ()}))


def _hung_up(_request: Request, _error: Exception) -> Response:
    # Nobody reads this, and it is no defect of ours: a caller may be killed in the middle of a word.
    return problem(400, "hung-up", "The caller went away before its request was complete.")
