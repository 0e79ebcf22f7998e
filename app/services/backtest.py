"""What another policy would have decided on past promotions, from the measurements that were kept with them."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy.orm import Session

from app import measurements
from app.db import approvals, promotions
from app.db.models import Promotion
from app.domain.approvals import APPROVE
from app.domain.gates import Rank, Verdict, judge
from app.domain.policy import EnvironmentPolicy
from app.domain.promotion import State
from app.parts import Core
from app.policy_files import parse, thaw

UNKNOWN = "unknown"


def backtest(core: Core, text: str, last: int) -> dict[str, Any]:
    """Judge the `last` promotions of the policy's model and environments, newest first, by the policy in `text`.

    Only what was measured then is judged: parity and gates, and how many approvals there were. A promotion of which a
    gate would need another measurement than the kept ones is `unknown`, with the reason; one that fails all the same is
    a `fail`.

    Raises:
        Invalid: the policy is malformed; with its line.
    """
    policy = parse(text)
    with core.db.read() as session:
        rows = promotions.latest(session, policy.model, sorted(policy.environments), last)
        gates = promotions.evidence_by_promotion(session, [row.id for row in rows], State.GATES)
        items = [_item(session, row, gates.get(row.id), policy.environments[row.environment]) for row in rows]
    counts = {
        word: sum(item["verdict"] == word for item in items) for word in ("pass", "inconclusive", "fail", UNKNOWN)
    }
    return {"model": policy.model, "counts": counts, "promotions": items}


def _item(
    session: Session, row: Promotion, gates: Mapping[str, Any] | None, rules: EnvironmentPolicy
) -> dict[str, Any]:
    then = (gates or {}).get("verdict")
    verdict, reasons = _verdict(row, gates, rules)
    decisions = [d for d in approvals.of(session, row.id) if d.decision == APPROVE and d.revoked_at is None]
    given = {d.person for d in decisions if d.role in rules.approvals.roles}
    least = max(rules.approvals.required, sum(rules.approvals.by_role.values()))
    required = max(least, 1) if verdict == "inconclusive" else least
    return {
        "id": row.id,
        "version": row.version,
        "environment": row.environment,
        "state": row.state,
        "verdict": verdict,
        "then": then,
        "differs": UNKNOWN not in (verdict, then or UNKNOWN) and verdict != then,
        "reasons": reasons,
        "approvals": {"required": required, "given": len(given)},
    }


def _verdict(row: Promotion, gates: Mapping[str, Any] | None, rules: EnvironmentPolicy) -> tuple[str, list[str]]:
    measured = measurements.thaw(gates["measurements"]) if gates and "measurements" in gates else None
    if measured is None:
        return UNKNOWN, ["nothing was measured: it ended before its gates, or an older release measured it"]
    if other := _other_measure(thaw(row.policy), rules):
        return UNKNOWN, other
    verdict = judge(measured, rules)
    if verdict.rank is Rank.ERROR:
        return UNKNOWN, _reasons(verdict, Rank.ERROR)
    return verdict.rank.name.lower(), _reasons(verdict, verdict.rank) if verdict.rank is not Rank.PASS else []


def _reasons(verdict: Verdict, rank: Rank) -> list[str]:
    return [f"{result.gate}: {result.reason}" for result in verdict.results if result.rank is rank]


def _other_measure(then: EnvironmentPolicy, now: EnvironmentPolicy) -> list[str]:
    """Why the numbers of then say nothing about this policy: they were taken on other rows, or with another ruler."""
    found = []
    if then.data != now.data:
        found.append(f"it was measured on other rows: {then.data.uri if then.data else 'its input example'}")
    if (then.parity.rtol, then.parity.atol) != (now.parity.rtol, now.parity.atol):
        found.append(f"its parity was measured with rtol {then.parity.rtol:g} and atol {then.parity.atol:g}")
    return found
