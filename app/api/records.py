"""/api/v1/releases, /changes, /audit, /tokens: what serves, what was seen, what was decided, who may call."""

import json
from collections.abc import Iterator
from typing import Annotated, Any

from fastapi import APIRouter, Query
from fastapi.responses import StreamingResponse

from app.api import schemas
from app.api.auth import Administrator, Auditor, Parts, Reader
from app.services import history, principals

router = APIRouter(prefix="/api/v1")
EXPORT_CHUNK = 500


@router.get("/releases", tags=["releases"], summary="What serves, or served at a time")
def releases(
    core: Parts,
    _caller: Reader,
    model: str | None = None,
    environment: str | None = None,
    at: schemas.Moment | None = None,
) -> list[dict[str, Any]]:
    """Stable and canary releases with their weights; with `at` (ISO 8601 with zone) what was stable then."""
    return history.serving(core.db, model, environment, at)


@router.get("/changes", tags=["intake"], response_model=schemas.ChangePage, summary="The ledger of registry changes")
def changes(
    core: Parts, _caller: Reader, model: str | None = None, cursor: schemas.Number | None = None
) -> dict[str, Any]:
    """Each net change that was seen in MLflow, how it was seen, and the promotion that it opened."""
    return history.changes(core.db, model, cursor)


@router.get("/audit", tags=["audit"], summary="Audit leaves in order")
def audit(
    core: Parts,
    _caller: Auditor,
    after: Annotated[int, Query(ge=0, le=2**31 - 1)] = 0,
    limit: Annotated[int, Query(ge=1, le=1000)] = 200,
) -> list[dict[str, Any]]:
    """Leaves with a sequence number above `after`."""
    return history.audit_page(core.db, after, limit)


@router.get("/audit/checkpoint", tags=["audit"], summary="The trail's length and head")
def checkpoint(core: Parts, _caller: Auditor) -> dict[str, Any]:
    """Keep it elsewhere: a trail that was cut off at its end shows only against such a checkpoint."""
    return history.audit_checkpoint(core.db)


@router.get("/audit/verify", tags=["audit"], response_model=schemas.Verification, summary="Verify the trail")
def verify(core: Parts, _caller: Auditor) -> dict[str, Any]:
    """Walks the whole chain in the database and names the first leaf that does not hold."""
    verdict = history.audit_verify(core.db)
    return {**vars(verdict), "verified": verdict.verified}


@router.get("/audit/export", tags=["audit"], summary="The whole trail", response_class=StreamingResponse)
def export(core: Parts, _caller: Auditor) -> StreamingResponse:
    """One JSON leaf a line; `headgate audit verify FILE` checks it without the service."""

    def lines() -> Iterator[str]:
        after = 0
        while page := history.audit_page(core.db, after, EXPORT_CHUNK):
            yield from (json.dumps(leaf, ensure_ascii=False) + "\n" for leaf in page)
            after = page[-1]["seq"]

    return StreamingResponse(lines(), media_type="application/jsonl")


@router.post("/tokens", tags=["principals"], status_code=201, response_model=schemas.Token, summary="Make a principal")
def create_token(body: schemas.TokenRequest, core: Parts, caller: Administrator) -> schemas.Token:
    """The token is shown this once."""
    token = principals.create(core.db, body.name, body.role, caller.name)
    return schemas.Token(name=body.name, role=body.role, token=token)
