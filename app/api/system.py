"""/healthz, /readyz and the router's question whether a canary's controller is alive."""

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from app.api.auth import Parts, core_of
from app.domain.errors import Transient
from app.services import history
from app.services.releases import canary_lease_holds

router = APIRouter()


@router.get("/healthz", tags=["system"], summary="The process runs")
def healthz() -> dict[str, str]:
    """Answers as long as the process does; it asks nothing else."""
    return {"status": "ok"}


@router.get("/readyz", tags=["system"], summary="The service can work")
def readyz(core: Parts) -> dict[str, Any]:
    """503 while the database is away."""
    return {"status": "ok", "promotions": history.counts(core.db)}


@router.get("/lease/{environment}/{model}", include_in_schema=False)
def lease(environment: str, model: str, request: Request) -> Response:
    """200 while a worker vouches for the canary of this model; whatever else, the router gives it no traffic."""
    try:
        holds = canary_lease_holds(core_of(request).db, model, environment)
    except Transient:
        holds = False
    return JSONResponse({"lease": holds}, 200 if holds else 503)
