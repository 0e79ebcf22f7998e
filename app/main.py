"""The API process: `uvicorn app.main:app`."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from fastapi import FastAPI

from app import failpoints, logs, wiring
from app.adapters.mlflow_webhook import Delivery, verify
from app.api.app import create_app
from app.services.principals import bootstrap
from app.settings import Settings


def build() -> FastAPI:
    """The application of this installation; the first start leaves an admin's token in the data folder."""
    logs.configure()
    failpoints.enter("api")
    settings = Settings()
    home = wiring.prepare_home(settings)
    core = wiring.core(settings)
    secrets = wiring.webhook_secrets(settings)

    def verify_webhook(headers: Mapping[str, str], body: bytes, now: float) -> Delivery:
        return verify(secrets, headers, body, now, settings.webhook_tolerance_seconds)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        await asyncio.to_thread(bootstrap, core.db, home / "admin.token")
        yield
        core.db.close()

    app = create_app(core, verify_webhook)
    app.router.lifespan_context = lifespan
    return app


app = build()
