"""Who may do what: each route names its permission, each role has a set of them, and nothing else is allowed."""

from collections.abc import Callable
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from app.domain.errors import Forbidden, Unauthorized
from app.domain.permissions import Caller, Permission
from app.parts import Core
from app.ports import ArtifactStore
from app.services import principals

_bearer = HTTPBearer(auto_error=False, description="A token from `headgate token create`.")


def core_of(request: Request) -> Core:
    """The parts that this process was started with."""
    core: Core = request.app.state.core
    return core


def store_of(request: Request) -> ArtifactStore:
    """Where pictures are kept."""
    store: ArtifactStore = request.app.state.store
    return store


def may(permission: Permission) -> Callable[..., Caller]:
    """A dependency that lets only callers with `permission` in and says who they are."""

    def check(request: Request, token: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]) -> Caller:
        if token is None:
            raise Unauthorized("This needs a bearer token.", "Send `Authorization: Bearer <token>`.")
        caller = principals.authenticate(core_of(request).db, token.credentials)
        if not caller.may(permission):
            raise Forbidden(f"{caller.name} is {caller.role} and may not {permission}.", "Ask an admin for the role.")
        return caller

    return check


Parts = Annotated[Core, Depends(core_of)]
Store = Annotated[ArtifactStore, Depends(store_of)]
Reader = Annotated[Caller, Depends(may(Permission.READ))]
Promoter = Annotated[Caller, Depends(may(Permission.PROMOTE))]
Decider = Annotated[Caller, Depends(may(Permission.DECIDE))]
Breaker = Annotated[Caller, Depends(may(Permission.BREAK_GLASS))]
Canceller = Annotated[Caller, Depends(may(Permission.CANCEL))]
Retrier = Annotated[Caller, Depends(may(Permission.RETRY))]
Auditor = Annotated[Caller, Depends(may(Permission.AUDIT))]
Administrator = Annotated[Caller, Depends(may(Permission.ADMINISTER))]
