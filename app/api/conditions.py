"""Idempotency-Key and If-Match: how a route that changes a promotion takes them, and answers with an ETag."""

from collections.abc import Callable, Mapping
from typing import Annotated, Any

from fastapi import Depends, Header, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel

from app.domain.errors import Invalid
from app.domain.permissions import Caller
from app.parts import Core
from app.services import trail
from app.services.idempotency import Call, once
from app.services.terms import Terms, tag

_KEY = Header(
    max_length=200,
    description="the same call again with the same key gets the first answer; with another body it is a conflict",
)
_MATCH = Header(max_length=1000, description="the `ETag` that was seen; 412 where the promotion has changed since")


class Asking:
    """The headers of one request that changes something. A route hands on what is to be done, and returns `answer`."""

    def __init__(self, request: Request, idempotency_key: Annotated[str | None, _KEY] = None) -> None:
        self._route, self._key = f"{request.method} {request.url.path}", idempotency_key
        self._if_match: frozenset[str] | None = None

    def answer(
        self, core: Core, caller: Caller, body: BaseModel | None, status: int, act: Callable[[Terms], object]
    ) -> JSONResponse:
        """Have `act` change a promotion under the caller's terms; the promotion as it stands with the change, and for a
        decision the proof that it is in the audit trail. For a repetition the proof is made anew, of the same leaf."""
        sent: Mapping[str, Any] = body.model_dump(mode="json") if body is not None else {}
        call = Call(caller.name, self._route, self._key, sent, status)
        status, made = once(core.db, call, lambda keep: act(Terms(self._if_match, keep)))
        promotion, leaf = made["promotion"], made["leaf"]
        headers = {"ETag": tag(promotion), "Location": f"/api/v1/promotions/{promotion['id']}"}
        return JSONResponse({**promotion, "proof": trail.proof(core, leaf)} if leaf else promotion, status, headers)


class AskingOfOne(Asking):
    """The same for a promotion that is there already, which the caller may have seen."""

    def __init__(
        self,
        request: Request,
        idempotency_key: Annotated[str | None, _KEY] = None,
        if_match: Annotated[str | None, _MATCH] = None,
    ) -> None:
        super().__init__(request, idempotency_key)
        if if_match is not None:
            # A weak tag (W/"...") never matches, as RFC 9110 has it: it is no tag that we ever gave.
            self._if_match = frozenset(part.strip() for part in if_match.split(","))


def _no_key(idempotency_key: Annotated[str | None, Header(include_in_schema=False)] = None) -> None:
    if idempotency_key is not None:
        raise Invalid(
            "Idempotency-Key",
            "this answer holds a secret and is never kept, so that it cannot be given twice",
            "Leave the header out; where the answer was lost, make another token.",
        )


Asked = Annotated[Asking, Depends()]
AskedOfOne = Annotated[AskingOfOne, Depends()]
Unrepeatable = Annotated[None, Depends(_no_key)]
