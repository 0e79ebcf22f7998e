"""APPROVAL: wait until enough people have approved this digest and nothing is frozen, one rejects, or time runs out."""

from datetime import timedelta

from app.domain.approvals import Outcome as Answer
from app.domain.errors import Fault
from app.domain.promotion import Done, End, Outcome, State, Wait
from workers.context import Context, Evidence

# A decision wakes the promotion at once; this only bounds what a lost wake-up costs.
_LOOK_AGAIN = timedelta(seconds=30)


def run(context: Context) -> Outcome:
    """Count decisions on the digest that stands now; a decision on another one does not count."""
    verdict = context.verdict
    if verdict is None:
        raise Fault("a promotion without a digest waits for approval")
    if verdict.outcome is Answer.DENIED:
        return End(State.DENIED, f"{verdict.rejected_by} rejected it", by=verdict.rejected_by)
    if context.voided:
        return End(State.FAILED, context.voided)
    if verdict.outcome is Answer.EXPIRED:
        why = "it was approved, but nothing could be moved" if verdict.missing == 0 else "nobody decided"
        return End(State.EXPIRED, f"{why} within {context.policy.approvals.expires}")
    if verdict.outcome is Answer.APPROVED:
        return Done({**verdict.as_evidence(), "digest": context.digest})
    left = [verdict.expires_at] if verdict.required else []
    if verdict.frozen is not None and verdict.frozen.until is not None:
        left.append(verdict.frozen.until)
    wait = min([moment - context.now for moment in left] + [_LOOK_AGAIN])
    inconclusive = _inconclusive(context.step(State.GATES))
    progress = {**verdict.as_json(), "roles": list(context.policy.approvals.roles), "inconclusive": inconclusive}
    return Wait(max(wait, timedelta(0)), progress)


def _inconclusive(gates: Evidence) -> list[str]:
    """What a gate measured and could not decide: a person has to, even where the policy asks for nobody."""
    return [result["reason"] for result in gates["results"] if result["verdict"] == "inconclusive"]
