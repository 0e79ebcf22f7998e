"""/api/v1/promotions: ask, look, watch, decide, cancel, retry."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Path, Response
from fastapi.responses import StreamingResponse
from starlette.concurrency import run_in_threadpool

from app.api import links, schemas
from app.api.auth import Breaker, Canceller, Decider, Parts, Promoter, Reader, Retrier, Store, Watching
from app.api.conditions import Asked, AskedOfOne
from app.domain.errors import NotFound, Transient
from app.domain.promotion import ENDED, State
from app.services import approvals, evidence, history, pictures, promotions
from app.services.terms import tag

router = APIRouter(prefix="/api/v1/promotions", tags=["promotions"])
WATCH_SECONDS = 0.5
WATCH_LIMIT_SECONDS = 3600
KEEPALIVE_SECONDS = 15


@router.post(
    "",
    status_code=201,
    response_model=schemas.Promotion,
    summary="Ask for a promotion",
    responses=links.to_promotion(201),
)
def request_promotion(body: schemas.PromotionRequest, core: Parts, caller: Promoter, asked: Asked) -> Response:
    """Opens a promotion as if the version had been marked in MLflow."""
    wanted = (body.model, body.version, body.environment, body.reason, caller.name)
    return asked.answer(
        core, caller, body, 201, lambda terms: promotions.request(core, *wanted, terms, caller.counts_as)
    )


@router.get("", response_model=schemas.PromotionPage, summary="List promotions")
def list_promotions(
    core: Parts,
    _caller: Reader,
    model: str | None = None,
    environment: str | None = None,
    state: State | None = None,
    cursor: schemas.Number | None = None,
) -> dict[str, Any]:
    """Newest first, fifty a page."""
    return history.search(core.db, model, environment, state, cursor)


@router.get(
    "/{promotion_id}",
    response_model=schemas.Promotion,
    summary="Look at one promotion",
    responses=links.to_promotion(200),
)
def show_promotion(promotion_id: schemas.Number, core: Parts, _caller: Reader, response: Response) -> dict[str, Any]:
    """State, steps with their seconds, gates, evidence, approvals, and the digest to approve. The `ETag` changes as
    soon as there is something new to see; a decision may send it as `If-Match`."""
    found = history.promotion(core.db, promotion_id)
    response.headers["ETag"] = tag(found)
    return found


@router.get("/{promotion_id}/pictures/{name}", summary="Look at a picture", response_class=Response)
def show_picture(
    promotion_id: schemas.Number,
    name: Annotated[str, Path(pattern=r"^[a-z0-9-]{1,40}$")],
    core: Parts,
    store: Store,
    _caller: Reader,
) -> Response:
    """A PNG that a step drew: `parity`, `latency`, `slices-1`, `served-latency`; `evidence.<step>.pictures` has their
    digests."""
    data = pictures.picture(core, store, promotion_id, name)
    return Response(data, media_type="image/png")


@router.get("/{promotion_id}/evidence", summary="Take the evidence away", response_class=Response)
def take_evidence(
    promotion_id: schemas.Number, core: Parts, store: Store, _caller: Reader, people: bool = True
) -> Response:
    """A zip that `headgate_verify.pyz pack` checks without the service: a page, gates, approvals, leaves with their
    proofs, the policy, a signed in-toto statement, a CycloneDX ML-BOM. With `people=false` it names nobody."""
    data = evidence.pack(core, store, promotion_id, people)
    headers = {
        "Content-Disposition": f'attachment; filename="promotion-{promotion_id}.zip"',
        "X-Content-Type-Options": "nosniff",
    }
    return Response(data, media_type="application/zip", headers=headers)


@router.get("/{promotion_id}/events", summary="Watch one promotion", response_class=StreamingResponse)
def watch_promotion(promotion_id: schemas.Number, core: Parts, _caller: Reader, _turn: Watching) -> StreamingResponse:
    """Server-sent events: one `promotion` event for each change, the last one when it has ended."""
    history.promotion(core.db, promotion_id)  # an unknown id is a 404, not an empty stream
    return StreamingResponse(_events(core, promotion_id), media_type="text/event-stream")


async def _events(core: Parts, promotion_id: int) -> AsyncIterator[str]:
    """It holds a thread only while it looks: else some dozens of watchers would keep everybody else waiting."""
    last, quiet_since = "", time.monotonic()
    end = quiet_since + WATCH_LIMIT_SECONDS
    while time.monotonic() < end:
        try:
            found = await run_in_threadpool(history.promotion, core.db, promotion_id)
        except NotFound:
            return
        except Transient as error:
            # The answer has begun: a watcher who is told to wait need not come back.
            yield f": {error.reason}\n\n"
            await asyncio.sleep(WATCH_SECONDS)
            continue
        seen = json.dumps(found, default=str)
        if seen != last:
            last, quiet_since = seen, time.monotonic()
            yield f"event: promotion\ndata: {seen}\n\n"
        elif time.monotonic() - quiet_since > KEEPALIVE_SECONDS:
            quiet_since = time.monotonic()
            yield ": still here\n\n"
        if found["state"] in ENDED:
            return
        await asyncio.sleep(WATCH_SECONDS)


@router.post(
    "/{promotion_id}/approvals",
    status_code=201,
    response_model=schemas.Decided,
    summary="Approve or reject",
    responses=links.to_proof(201),
)
def decide(
    promotion_id: schemas.Number, body: schemas.DecisionRequest, core: Parts, caller: Decider, asked: AskedOfOne
) -> Response:
    """Counts only for the digest that is echoed; where the promotion stands at another one this is a conflict. The
    answer proves that the decision is in the audit trail: keep its `proof`."""
    said = (body.decision, body.digest, body.reason)
    return asked.answer(
        core, caller, body, 201, lambda terms: approvals.decide(core, promotion_id, caller, *said, terms)
    )


@router.post(
    "/{promotion_id}/approvals/revoke",
    status_code=201,
    response_model=schemas.Decided,
    summary="Take an approval back",
    responses=links.to_promotion(201),
)
def revoke(
    promotion_id: schemas.Number, body: schemas.Revocation, core: Parts, caller: Decider, asked: AskedOfOne
) -> Response:
    """It stops counting. Where the rest is not enough for a rollout under way, traffic goes back to the stable release
    and the promotion ends ROLLED_BACK. An admin may take back anybody's."""
    said = (body.reason, body.person)
    return asked.answer(
        core, caller, body, 201, lambda terms: approvals.revoke(core, promotion_id, caller, *said, terms)
    )


@router.post(
    "/{promotion_id}/break-glass",
    status_code=201,
    response_model=schemas.Decided,
    summary="Ask for the emergency way",
    responses=links.to_promotion(201),
)
def break_glass(
    promotion_id: schemas.Number, body: schemas.BreakGlassRequest, core: Parts, caller: Breaker, asked: AskedOfOne
) -> Response:
    """Two people who ask within the policy's time box stand for all approvals that are missing, and pass a freeze, for
    a rollout that begins within it. Gates, parity, the digest and a rejection hold all the same."""
    said = (body.digest, body.reason)
    return asked.answer(
        core, caller, body, 201, lambda terms: approvals.break_glass(core, promotion_id, caller, *said, terms)
    )


@router.post(
    "/{promotion_id}/decide",
    response_model=schemas.Promotion,
    summary="Answer an inconclusive canary",
    responses=links.to_promotion(200),
)
def decide_canary(
    promotion_id: schemas.Number, body: schemas.CanaryDecision, core: Parts, caller: Decider, asked: AskedOfOne
) -> Response:
    """Lets the canary go on to the next weight or rolls it back."""
    said = (body.decision == "continue", body.reason)
    return asked.answer(
        core, caller, body, 200, lambda terms: approvals.decide_canary(core, promotion_id, caller, *said, terms)
    )


@router.post(
    "/{promotion_id}/cancel",
    status_code=202,
    response_model=schemas.Promotion,
    summary="Cancel",
    responses=links.to_promotion(202),
)
def cancel(
    promotion_id: schemas.Number, body: schemas.Reason, core: Parts, caller: Canceller, asked: AskedOfOne
) -> Response:
    """A rollout under way is first brought back to the stable release."""
    said = (body.reason, caller.counts_as)
    return asked.answer(core, caller, body, 202, lambda terms: promotions.cancel(core, promotion_id, *said, terms))


@router.post(
    "/{promotion_id}/retry",
    status_code=202,
    response_model=schemas.Promotion,
    summary="Try again",
    responses=links.to_promotion(202),
)
def retry(promotion_id: schemas.Number, core: Parts, caller: Retrier, asked: AskedOfOne) -> Response:
    """Starts a FAILED promotion anew, with the policy as it is now."""
    return asked.answer(
        core, caller, None, 202, lambda terms: promotions.retry(core, promotion_id, caller.counts_as, terms)
    )
