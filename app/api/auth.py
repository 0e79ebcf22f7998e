"""Who may do what: each route names its permission, each role has a set of them, and nothing else is allowed."""

from collections.abc import Callable, Iterator
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from app.api.rates import Rates
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


def rates_of(request: Request) -> Rates:
    """Who has used what of its share in this process."""
    rates: Rates = request.app.state.rates
    return rates


def may(permission: Permission) -> Callable[..., Caller]:
    """A dependency that lets only callers with `permission` in and says who they are."""

    def check(request: Request, token: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]) -> Caller:
        if token is None:
            raise Unauthorized("This needs a bearer token.", "Send `Authorization: Bearer <token>`.")
        caller = principals.authenticate(core_of(request).db, token.credentials)
        request.state.principal = caller.counts_as
        rates_of(request).call(caller.counts_as)
        if not caller.may(permission):
            raise Forbidden(f"{caller.name} is {caller.role} and may not {permission}.", "Ask an admin for the role.")
        return caller

    return check


Parts = Annotated[Core, Depends(core_of)]
Store = Annotated[ArtifactStore, Depends(store_of)]
Reader = Annotated[Caller, Depends(may(Permission.READ))]
Promoter = Annotated[Caller, Depends(may(Permission.PROMOTE))]
Decider = Annotated[Caller, Depends(may(Permission.DECIDE))]
Canceller = Annotated[Caller, Depends(may(Permission.CANCEL))]
Retrier = Annotated[Caller, Depends(may(Permission.RETRY))]
Auditor = Annotated[Caller, Depends(may(Permission.AUDIT))]
Administrator = Annotated[Caller, Depends(may(Permission.ADMINISTER))]


def _watching(request: Request, caller: Reader) -> Iterator[None]:
    with rates_of(request).stream(caller.counts_as):
        yield


Watching = Annotated[None, Depends(_watching)]
