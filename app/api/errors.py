"""The only table from errors to HTTP: RFC 9457 problem documents with a stable `type`."""

import logging
from collections.abc import Mapping

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from app.domain.errors import (
    Conflict,
    Fault,
    Forbidden,
    HeadgateError,
    Invalid,
    NotFound,
    Rejected,
    Transient,
    Unauthorized,
)

log = logging.getLogger(__name__)
TYPE = "urn:headgate:problem:"
MEDIA_TYPE = "application/problem+json"
STATUS: Mapping[type[HeadgateError], tuple[int, str]] = {
    NotFound: (404, "not-found"),
    Conflict: (409, "conflict"),
    Forbidden: (403, "forbidden"),
    Unauthorized: (401, "unauthorized"),
    Invalid: (422, "invalid"),
    Rejected: (422, "rejected"),
    Transient: (503, "unavailable"),
    Fault: (500, "fault"),
}


def problem(status: int, kind: str, title: str, **more: str) -> JSONResponse:
    """One problem document."""
    body = {"type": TYPE + kind, "title": title, "status": status, **{k: v for k, v in more.items() if v}}
    headers = {"WWW-Authenticate": "Bearer"} if status == 401 else {}
    if status == 503:
        headers["Retry-After"] = "2"
    return JSONResponse(body, status, headers, media_type=MEDIA_TYPE)


def install(app: FastAPI) -> None:
    """Answer every error with a problem document."""
    app.add_exception_handler(HeadgateError, _own)
    app.add_exception_handler(RequestValidationError, _malformed)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(ClientDisconnect, _hung_up)
    app.add_exception_handler(Exception, _defect)


def _own(_request: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, HeadgateError):
        raise error
    status, kind = STATUS.get(type(error), (500, "fault"))
    return problem(status, kind, error.reason, detail=error.remedy, field=getattr(error, "field", ""))


def _malformed(_request: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, RequestValidationError):
        raise error
    first = error.errors()[0]
    field = ".".join(str(part) for part in first["loc"] if part not in ("body", "query", "path", "header"))
    return problem(422, "invalid", f"{field or 'body'}: {first['msg']}", field=field)


def _http(_request: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, HTTPException):
        raise error
    return problem(error.status_code, f"http-{error.status_code}", str(error.detail))


def _hung_up(_request: Request, _error: Exception) -> JSONResponse:
    # Nobody reads this, and it is no defect of ours: a caller may be killed in the middle of a word.
    return problem(400, "hung-up", "The caller went away before its request was complete.")


def _defect(request: Request, error: Exception) -> JSONResponse:
    log.error("api.defect", exc_info=error, extra={"path": request.url.path})
    return problem(500, "defect", "Headgate failed to answer.", detail="The service's log says more.")
