"""The judging rows in a step: where they lie, which of them are drawn, and whose fault it is where they do not fit."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from app.domain.promotion import End, State
from workers.context import Context

SEED = 20240229
INPUT_EXAMPLE_ROWS = 5000
_POLICYS_FAULT = frozenset({"missing-columns", "bad-rows", "no-judging-rows"})


def rows_input(context: Context) -> dict[str, Path]:
    """The judging rows as a sandbox input; none where the input example serves."""
    data = context.step(State.SNAPSHOT).get("data")
    return {"rows": context.plant.store.file(data)} if data else {}


def rows_request(context: Context) -> dict[str, Any]:
    """Which rows every program draws: the same ones for the same policy, whatever the model."""
    data = context.policy.data
    if data is None:
        return {"file": None, "label": None, "count": INPUT_EXAMPLE_ROWS, "seed": SEED}
    return {"file": "rows", "label": data.label, "count": data.rows, "seed": data.seed}


def refused_end(context: Context, refused: Mapping[str, Any]) -> End:
    """How a promotion ends that a program refused. Judging rows that a model cannot be judged on are not its fault:
    then the promotion fails, at once, for a later try finds the same rows."""
    if refused.get("code") in _POLICYS_FAULT:
        field = f"environments.{context.environment}.data"
        remedy = f"Mend {field} in the policy of {context.model}, then `headgate retry`."
        return End(State.FAILED, f"{field}: {refused['reason']} {remedy}", {"refused": dict(refused), "field": field})
    reason = f"{refused['reason']} {refused.get('remedy', '')}".strip()
    return End(State.REJECTED, reason, {"refused": dict(refused)})
