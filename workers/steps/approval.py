"""APPROVAL: wait until the policy's number of people have approved this digest, one rejects, or time runs out."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from app.domain.promotion import Done, End, Outcome, State, Wait
from workers.context import Context

# A decision wakes the promotion at once; this only bounds what a lost wake-up costs.
_LOOK_AGAIN = timedelta(seconds=30)


def run(context: Context) -> Outcome:
    """Count decisions on the digest that stands now; a decision on another one does not count."""
    rules = context.policy.approvals
    inconclusive = _inconclusive(context.step(State.GATES))
    required = max(rules.required, 1) if inconclusive else rules.required
    counted = [d for d in context.decisions if d.digest == context.digest and d.role in rules.roles]
    rejection = next((d for d in counted if d.decision == "reject"), None)
    if rejection is not None:
        return End(State.DENIED, f"{rejection.principal} rejected it", by=rejection.principal)
    approvers = sorted({d.principal for d in counted if d.decision == "approve"})
    if context.digest != context.digest_now:
        return End(State.FAILED, "what was recorded no longer matches the digest: the evidence was changed")
    if len(approvers) >= required:
        return Done({"approved_by": approvers, "digest": context.digest})
    left = context.entered_at + rules.expires - context.now
    if left.total_seconds() <= 0:
        return End(State.EXPIRED, f"nobody decided within {rules.expires}")
    missing = required - len(approvers)
    progress = {"missing": missing, "roles": list(rules.roles), "approved_by": approvers, "inconclusive": inconclusive}
    return Wait(min(left, _LOOK_AGAIN), progress)


def _inconclusive(gates: Mapping[str, Any]) -> list[str]:
    """What a gate measured and could not decide: a person has to, even where the policy asks for nobody."""
    return [result["reason"] for result in gates["results"] if result["verdict"] == "inconclusive"]
