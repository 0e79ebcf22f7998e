"""The ASGI application, put together from its routers."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fastapi import FastAPI
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from app.api import auth, errors, policies, principals, promotions, records, schemas, system, webhooks
from app.api.answers import Answers
from app.api.limits import Limited, Limits
from app.api.rates import Failures, Rates, Shares
from app.parts import Core
from app.ports import ArtifactStore, Identities

DESCRIPTION = """
Headgate stands between an MLflow Model Registry and production. A promotion is asked for in MLflow (an alias, a tag or
a legacy stage) or here, and goes REQUESTED > SNAPSHOT > SCAN > CONVERT > GATES > BUILD > PROVE > APPROVAL > ROLLOUT >
LIVE. Reviewers approve one digest over model, ONNX, configuration, image, policy and evidence.
"""
VerifyWebhook = Callable[[Mapping[str, str], bytes, float], Any]
_PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"model": schemas.Problem, "content": {errors.MEDIA_TYPE: {}}}
    for status in (400, 401, 403, 404, 408, 409, 412, 413, 414, 421, 422, 429, 431, 500, 503)
}


@dataclass(frozen=True)
class Edge:
    """How the application meets the outside. `proxies`: addresses and networks whose word on who calls is taken;
    `https`: people reach it by https only."""

    limits: Limits = field(default_factory=Limits)
    shares: Shares = field(default_factory=Shares)
    proxies: Sequence[str] = ()
    https: bool = False


def create_app(
    core: Core,
    verify_webhook: VerifyWebhook,
    store: ArtifactStore,
    identities: Identities | None = None,
    edge: Edge | None = None,
) -> FastAPI:
    """The application over `core`; `verify_webhook(headers, body, now)` returns the delivery or raises; `store` keeps
    the pictures; `identities` is the issuer whose bearer tokens count beside our own.

    There are no pages like /docs: their scripts come from elsewhere, and a page of this service is where people would
    type their tokens. No redirect is made either, for it would name the host that the caller says we are.

    Raises:
        RuntimeError: a route has no permission and is not among the open ones.
    """
    edge = edge or Edge()
    app = FastAPI(
        title="Headgate",
        version="1",
        description=DESCRIPTION,
        responses=_PROBLEMS,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        generate_unique_id_function=lambda route: route.name,  # links name them
    )
    app.state.core = core
    app.state.store = store
    app.state.verify_webhook = verify_webhook
    app.state.identities = identities
    app.state.rates = Rates(edge.shares)
    errors.install(app)
    for module in (promotions, policies, records, principals, webhooks, system):
        app.include_router(module.router)
    if undeclared := auth.undeclared(app):
        raise RuntimeError(f"no permission is declared for {', '.join(undeclared)}")
    # The last one is the outermost.
    app.add_middleware(Limited, limits=edge.limits)
    app.add_middleware(Failures, shares=edge.shares)
    app.add_middleware(Answers, https=edge.https)
    if edge.proxies:
        app.add_middleware(ProxyHeadersMiddleware, trusted_hosts=list(edge.proxies))
    return app
