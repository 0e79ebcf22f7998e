"""Who may do what: each route names its permission, each role has a set of them, and nothing else is allowed."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, FastAPI, Request
from fastapi.dependencies.models import Dependant
from fastapi.routing import RouteContext, iter_route_contexts
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from app.api.rates import Rates
from app.domain.errors import Forbidden, Unauthorized
from app.domain.permissions import Caller, Permission
from app.parts import Core
from app.ports import ArtifactStore
from app.services import principals

# All that answers without a token, and why.
OPEN: Mapping[str, str] = {
    "/healthz": "says only that the process runs, to whoever watches it",
    "/readyz": "says only that the database is there, and counts",
    "/lease/{environment}/{model}": "the router asks it, and learns one bit",
    "/webhooks/mlflow": "is signed by MLflow over its raw bytes",
    "/openapi.json": "describes the API, as the documents do",
}
_bearer = HTTPBearer(auto_error=False, description="A token from `headgate token create`, or of the issuer.")


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


@dataclass(frozen=True)
class May:
    """A dependency that lets only callers with `permission` in and says who they are."""

    permission: Permission

    def __call__(
        self, request: Request, token: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
    ) -> Caller:
        if token is None:
            raise Unauthorized("This needs a bearer token.", "Send `Authorization: Bearer <token>`.")
        caller = principals.authenticate(core_of(request).db, token.credentials, request.app.state.identities)
        request.state.principal = caller.counts_as
        rates_of(request).call(caller.counts_as)
        if not caller.may(self.permission):
            kind = "a machine" if caller.machine else "a person"
            said = f"{caller.name}, {kind} with the role {caller.role}, may not {self.permission} with this token."
            raise Forbidden(said, "Ask an admin for the role, or use a token with this scope.")
        return caller


def undeclared(app: FastAPI) -> list[str]:
    """The routes that neither ask for a permission nor are among the open ones: there must be none."""
    return [str(route.path) for route in iter_route_contexts(app.routes) if not _is_declared(route)]


def _is_declared(route: RouteContext) -> bool:
    dependant = getattr(route, "dependant", None)
    return route.path in OPEN or (dependant is not None and any(_permissions(dependant)))


def _permissions(dependant: Dependant) -> Iterator[Permission]:
    if isinstance(dependant.call, May):
        yield dependant.call.permission
    for below in dependant.dependencies:
        yield from _permissions(below)


Parts = Annotated[Core, Depends(core_of)]
Store = Annotated[ArtifactStore, Depends(store_of)]
Reader = Annotated[Caller, Depends(May(Permission.READ))]
Promoter = Annotated[Caller, Depends(May(Permission.PROMOTE))]
Decider = Annotated[Caller, Depends(May(Permission.DECIDE))]
Breaker = Annotated[Caller, Depends(May(Permission.BREAK_GLASS))]
Canceller = Annotated[Caller, Depends(May(Permission.CANCEL))]
Retrier = Annotated[Caller, Depends(May(Permission.RETRY))]
Auditor = Annotated[Caller, Depends(May(Permission.AUDIT))]
Administrator = Annotated[Caller, Depends(May(Permission.ADMINISTER))]


def _watching(request: Request, caller: Reader) -> Iterator[None]:
    with rates_of(request).stream(caller.counts_as):
        yield


Watching = Annotated[None, Depends(_watching)]
