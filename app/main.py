"""The API process: `uvicorn app.main:app`."""

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI

from app import failpoints, logs, wiring
from app.adapters.mlflow_webhook import Delivery, verify
from app.api.app import create_app
from app.db.session import Database
from app.domain.errors import Transient
from app.edge import edge
from app.services.principals import bootstrap
from app.settings import Settings

log = logging.getLogger(__name__)


async def _first_admin(db: Database, file: Path, anew: bool) -> None:
    """Bootstrap as soon as the database is there: an API that starts before it answers 503 until then, and no restart
    is needed."""
    while True:
        try:
            await asyncio.to_thread(bootstrap, db, file, anew)
            return
        except Transient as error:
            log.warning("api.database_away", extra={"reason": error.reason, "remedy": error.remedy})
        await asyncio.sleep(1)


def build() -> FastAPI:
    """The application of this installation; the first start leaves an admin's token in the data folder."""
    logs.configure()
    failpoints.enter("api")
    settings = Settings()
    home = wiring.prepare_home(settings)
    core = wiring.core(settings)
    secrets = wiring.webhook_secrets(settings)
    issuer = wiring.identities(settings)

    def verify_webhook(headers: Mapping[str, str], body: bytes, now: float) -> Delivery:
        return verify(secrets, headers, body, now, settings.webhook_tolerance_seconds)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        admin = asyncio.create_task(_first_admin(core.db, home / "admin.token", anew=issuer is None))
        yield
        admin.cancel()
        await asyncio.gather(admin, return_exceptions=True)
        core.db.close()

    store = wiring.store(settings, read_only=True)
    app = create_app(core, verify_webhook, store, identities=issuer, edge=edge(settings))
    app.router.lifespan_context = lifespan
    return app


app = build()
