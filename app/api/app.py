"""The ASGI application, put together from its routers."""

from collections.abc import Callable, Mapping
from typing import Any

from fastapi import FastAPI

from app.api import auth, errors, policies, principals, promotions, records, schemas, system, webhooks
from app.parts import Core
from app.ports import ArtifactStore, Identities

DESCRIPTION = """
Headgate stands between an MLflow Model Registry and production. A promotion is asked for in MLflow (an alias, a tag or
a legacy stage) or here, and goes REQUESTED > SNAPSHOT > SCAN > CONVERT > GATES > BUILD > PROVE > APPROVAL > ROLLOUT >
LIVE. Reviewers approve one digest over model, ONNX, configuration, image, policy and evidence.
"""
VerifyWebhook = Callable[[Mapping[str, str], bytes, float], Any]
_PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"model": schemas.Problem, "content": {errors.MEDIA_TYPE: {}}} for status in (401, 403, 404, 409, 422, 503)
}


def create_app(
    core: Core, verify_webhook: VerifyWebhook, store: ArtifactStore, identities: Identities | None = None
) -> FastAPI:
    """The application over `core`; `verify_webhook(headers, body, now)` returns the delivery or raises; `store` keeps
    the pictures; `identities` is the issuer whose bearer tokens count beside our own.

    Raises:
        RuntimeError: a route has no permission and is not among the open ones.
    """
    app = FastAPI(title="Headgate", version="1", description=DESCRIPTION, responses=_PROBLEMS)
    app.state.core = core
    app.state.store = store
    app.state.verify_webhook = verify_webhook
    app.state.identities = identities
    errors.install(app)
    for module in (promotions, policies, records, principals, webhooks, system):
        app.include_router(module.router)
    if undeclared := auth.undeclared(app):
        raise RuntimeError(f"no permission is declared for {', '.join(undeclared)}")
    return app
