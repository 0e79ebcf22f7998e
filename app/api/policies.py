"""/api/v1/plan and /api/v1/policies: what would happen, and what another policy would have decided."""

from typing import Annotated, Any

from fastapi import APIRouter, Query

from app.api import schemas
from app.api.auth import Parts, Reader
from app.services import backtest, plan

router = APIRouter(prefix="/api/v1", tags=["policies"])


@router.get("/plan", response_model=schemas.Plan, summary="What a promotion would do")
def show_plan(
    core: Parts,
    _caller: Reader,
    model: Annotated[str, Query(min_length=1, max_length=255)],
    version: Annotated[str, Query(pattern=r"^[0-9]{1,18}$")],
    environment: Annotated[str, Query(pattern=r"^[A-Za-z0-9._-]{1,200}$")],
) -> dict[str, Any]:
    """Reads the policy, MLflow and the database, and changes nothing. `refused` says why nothing would be opened."""
    return plan.plan(core, model, version, environment)


@router.post("/policies/backtest", response_model=schemas.Backtest, summary="What a policy would have decided")
def backtest_policy(body: schemas.BacktestRequest, core: Parts, _caller: Reader) -> dict[str, Any]:
    """Judges past promotions by the policy in the body, from the measurements kept with them; nothing is written.
    What would need another measurement is `unknown`, with the reason."""
    return backtest.backtest(core, body.policy, body.last)
