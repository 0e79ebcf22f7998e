"""/api/v1/releases, /changes, /audit: what serves, what was seen, what was decided."""

from typing import Annotated, Any

from fastapi import APIRouter, Query
from fastapi.responses import StreamingResponse

from app.api import schemas
from app.api.auth import Auditor, Parts, Reader
from app.services import history, trail

router = APIRouter(prefix="/api/v1")


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


@router.get("/history", tags=["releases"], response_model=list[schemas.Served], summary="What served at a time")
def history_at(
    core: Parts,
    _caller: Reader,
    model: Annotated[str, Query(min_length=1, max_length=255)],
    at: schemas.Moment,
    environment: str | None = None,
) -> list[dict[str, Any]]:
    """Told by the audit trail alone, mid-canary and after rollbacks, too: `leaf` numbers can be proved by
    `/api/v1/audit/proof/{seq}`."""
    return history.at_a_time(core.db, model, environment, at)


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
    return trail.page(core.db, after, limit)


@router.get("/audit/checkpoint", tags=["audit"], response_model=schemas.Checkpoint, summary="The trail, signed")
def checkpoint(core: Parts, _caller: Auditor) -> dict[str, Any]:
    """Keep the note elsewhere: a trail that was cut off or made anew shows only against such a checkpoint."""
    return trail.checkpoint(core)


@router.get("/audit/proof/{seq}", tags=["audit"], response_model=schemas.Proof, summary="Prove that a leaf is there")
def proof(seq: schemas.Number, core: Parts, _caller: Auditor) -> dict[str, Any]:
    """The leaf with its path to the root of the present tree, and the signed checkpoint that has this root."""
    return trail.proof(core, seq)


@router.get(
    "/audit/consistency/{old}",
    tags=["audit"],
    response_model=schemas.Consistency,
    summary="Prove that nothing was changed since",
)
def consistency(old: schemas.Number, core: Parts, _caller: Auditor) -> dict[str, Any]:
    """That the trail as it was at `old` leaves is the beginning of the present one."""
    return trail.consistency(core, old)


@router.get("/audit/verify", tags=["audit"], response_model=schemas.Verification, summary="Verify the trail")
def verify(core: Parts, _caller: Auditor) -> dict[str, Any]:
    """Walks all leaves in the database and names the first one that does not hold."""
    verdict = trail.verify(core.db)
    return {**vars(verdict), "verified": verdict.verified}


@router.get("/audit/export", tags=["audit"], summary="The whole trail", response_class=StreamingResponse)
def export(core: Parts, _caller: Auditor) -> StreamingResponse:
    """One leaf a line behind its hash, then every checkpoint; `headgate_verify.pyz` checks it without the service."""
    return StreamingResponse(trail.export(core), media_type="text/plain; charset=utf-8")
