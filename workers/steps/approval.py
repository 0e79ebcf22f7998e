"""APPROVAL: wait until enough people have approved this digest and nothing is frozen, one rejects, or time runs out."""

from datetime import timedelta

from app.domain.approvals import Outcome as Answer
from app.domain.approvals import Verdict
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
        return End(State.EXPIRED, _too_late(context, verdict))
    if verdict.outcome is Answer.APPROVED:
        return Done({**verdict.as_evidence(), "digest": context.digest})
    left = [verdict.expires_at] if verdict.required else []
    if verdict.frozen is not None and verdict.frozen.until is not None:
        left.append(verdict.frozen.until)
    wait = min([moment - context.now for moment in left] + [_LOOK_AGAIN])
    inconclusive = _inconclusive(context.step(State.GATES))
    progress = {**verdict.as_json(), "roles": list(context.policy.approvals.roles), "inconclusive": inconclusive}
    return Wait(max(wait, timedelta(0)), progress)


def _too_late(context: Context, verdict: Verdict) -> str:
    within = context.policy.approvals.expires
    if not any(word.digest == context.digest for word in context.decisions):
        return f"nobody decided within {within}"
    return f"after {within}, {verdict.missing} of {verdict.required} approvals were missing or too old"


def _inconclusive(gates: Evidence) -> list[str]:
    """What a gate measured and could not decide: a person has to, even where the policy asks for nobody."""
    return [result["reason"] for result in gates["results"] if result["verdict"] == "inconclusive"]
