"""/api/v1/principals and /api/v1/tokens: who may call, with which tokens, and who is one person."""

from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query

from app.api import schemas
from app.api.auth import Administrator, Auditor, Parts
from app.api.conditions import Unrepeatable
from app.domain.tokens import LIFETIME
from app.services import erasure, principals, tokens

router = APIRouter(prefix="/api/v1", tags=["principals"])
Name = Annotated[str, Path(pattern=r"^[A-Za-z0-9._@-]{1,255}$")]


@router.get("/principals", response_model=schemas.PrincipalPage, summary="List principals and their tokens")
def list_principals(
    core: Parts,
    _caller: Auditor,
    after: Annotated[str, Query(max_length=255)] = "",
    limit: Annotated[int, Query(ge=1, le=500)] = 200,
) -> dict[str, Any]:
    """In the order of names, behind `after`; no token is shown. Those with the same `person` are one person."""
    return tokens.listed(core.db, after, limit)


@router.post("/principals/{name}/link", response_model=schemas.Principal, summary="Say that two are one person")
def link(name: Name, body: schemas.LinkRequest, core: Parts, caller: Administrator) -> Mapping[str, Any]:
    """From now on they count once, wherever people are counted. There is no way back."""
    return principals.link(core.db, name, body.person, caller.counts_as)


@router.post("/principals/{name}/erase", response_model=schemas.Erased, summary="Forget a person")
def erase_person(name: Name, core: Parts, caller: Administrator) -> Mapping[str, Any]:
    """All her names and words go, and her tokens; every audit leaf and proof still holds, and the trail says that
    somebody was forgotten, and by whom. There is no way back. What MLflow was told before stays there."""
    return erasure.erase(core.db, name, caller.counts_as)


@router.post("/tokens", status_code=201, response_model=schemas.NewToken, summary="Make a token")
def create_token(
    body: schemas.TokenRequest, core: Parts, caller: Administrator, _once: Unrepeatable
) -> Mapping[str, Any]:
    """With a `role` it is that of a new principal, without one it is another token of the principal `name`. It is shown
    this once, so the call takes no `Idempotency-Key`. Nobody can give a token more than his own may do."""
    wanted = tokens.Wanted(body.name, body.role, body.kind, body.expires or LIFETIME, body.scopes, body.person)
    return tokens.issue(core.db, wanted, caller.counts_as, caller)


@router.post("/tokens/{number}/revoke", response_model=schemas.TokenOf, summary="Revoke a token")
def revoke_token(number: schemas.Number, core: Parts, caller: Administrator) -> Mapping[str, Any]:
    """It counts no more, from the next request on."""
    return tokens.revoke(core.db, number, caller.counts_as)
