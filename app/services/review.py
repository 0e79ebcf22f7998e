"""Whether a promotion may go on now: what is recorded of it and what people decided, put before the domain's rules."""

from collections.abc import Collection, Sequence

from sqlalchemy.orm import Session

from app.db import approvals, openings, promotions
from app.db.models import Promotion, StepRun
from app.db.session import now
from app.domain.approvals import Decision, Facts, Verdict, judge
from app.domain.policy import EnvironmentPolicy
from app.domain.promotion import State
from app.policy_files import thaw

_WAIT: Collection[str] = {State.APPROVAL.value, State.ROLLOUT.value}


def waits(row: Promotion) -> bool:
    """Whether the promotion stands where people's words decide whether it goes on."""
    return row.state in _WAIT and row.digest is not None


def verdict(session: Session, row: Promotion) -> Verdict | None:
    """Whether the promotion may go on at this moment; None where nothing waits for people's words."""
    if not waits(row):
        return None
    facts = facts_of(session, row, promotions.steps(session, row.id))
    return again(session, row.id, thaw(row.policy), facts)


def again(session: Session, promotion_id: int, policy: EnvironmentPolicy, facts: Facts) -> Verdict:
    """The same from facts that are known already: only people's words, their roles and the time are read anew."""
    return judge(policy, facts, decisions_of(session, promotion_id), now(session))


def facts_of(session: Session, row: Promotion, steps: Sequence[StepRun]) -> Facts:
    """What is recorded of the promotion, as far as the rules ask for it.

    Traffic counts as begun when ROLLOUT was entered, once any of it has moved: until then all is checked by the clock.
    """
    evidence = promotions.evidence_of(steps)
    entered = {step.state: step.entered_at for step in steps}
    results = evidence.get(State.GATES.value, {}).get("results", [])
    moved = row.state == State.ROLLOUT.value and bool(row.progress.get("weight"))
    return Facts(
        digest=row.digest or "",
        entered_at=entered.get(State.APPROVAL.value, row.updated_at),
        requester=frozenset(name for name in (row.requested_by, row.requester) if name),
        trainer=openings.opened(session, evidence.get(State.SNAPSHOT.value, {}).get("trained_by")),
        inconclusive=any(result["verdict"] == "inconclusive" for result in results),
        begun=entered[State.ROLLOUT.value] if moved else None,
    )


def decisions_of(session: Session, promotion_id: int) -> list[Decision]:
    """All that people decided, each with the role that the identity has by now."""
    rows = approvals.of(session, promotion_id)
    roles = approvals.roles(session, {row.principal for row in rows}) if rows else {}
    return [
        Decision(
            person=row.person,
            role=row.role,
            decision=row.decision,
            digest=row.digest,
            at=row.at,
            name=row.principal,
            authenticated_at=row.authenticated_at,
            revoked=row.revoked_at is not None,
            role_now=roles.get(row.principal),
            weight=row.weight,
        )
        for row in rows
    ]
