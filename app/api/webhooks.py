"""/webhooks: signed calls from outside, remembered by their delivery id and answered before any work is done."""

import time

from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool

from app.api import schemas
from app.api.auth import core_of
from app.services.intake import Call, receive

router = APIRouter(prefix="/webhooks", tags=["webhooks"])


@router.post("/mlflow", status_code=202, response_model=schemas.Accepted, summary="MLflow's webhook")
async def mlflow(request: Request) -> schemas.Accepted:
    """Verified over the raw bytes (`X-MLflow-Signature`). It is only a hint: the model is re-read from MLflow."""
    body = await request.body()
    delivery = request.app.state.verify_webhook(request.headers, body, time.time())
    event = f"{delivery.entity}.{delivery.action}"
    call = Call("mlflow", delivery.id, event, delivery.model, delivery.event, delivery.sent_at)
    fresh = await run_in_threadpool(receive, core_of(request), call)
    return schemas.Accepted(delivery=delivery.id, duplicate=not fresh, see="/api/v1/changes")
