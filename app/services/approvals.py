"""Approvals: a person decides on exactly one digest."""

from app.db import audit, openings, principals, promotions
from app.db.models import Approval, Promotion
from app.db.session import now
from app.domain.errors import Conflict, Forbidden, NotFound
from app.domain.permissions import Caller
from app.domain.promotion import State
from app.parts import Core
from app.policy_files import thaw
from app.services.promotions import stop

APPROVE, REJECT, CONTINUE = "approve", "reject", "continue"


def decide(core: Core, promotion_id: int, caller: Caller, decision: str, digest: str, reason: str) -> int:
    """Record an approval or a rejection of the digest that the reviewer saw; returns the number of its leaf.

    Raises:
        NotFound: there is no such promotion.
        Forbidden: the policy does not let this caller decide, or the caller requested the promotion.
        Conflict: the promotion does not wait for approval, stands at another digest, or the caller decided already.
    """
    with core.db.begin() as session:
        row = promotions.get_locked(session, promotion_id)
        if row is None:
            raise NotFound(f"There is no promotion {promotion_id}.", "See `headgate status`.")
        _check(row, caller, digest)
        if any(a.principal == caller.name and a.digest == digest for a in principals.approvals(session, promotion_id)):
            raise Conflict(f"{caller.name} has already decided on this digest.")
        approval = Approval(
            promotion_id=promotion_id,
            principal=caller.name,
            role=caller.role,
            decision=decision,
            digest=digest,
            reason=reason,
            at=now(session),
        )
        principals.add_approval(session, approval)
        body = {
            "promotion": promotion_id,
            "by": openings.person(session, caller.counts_as),
            "role": caller.role,
            "decision": decision,
            "digest": digest,
            "policy": row.policy_digest,
            "reason": openings.said(session, reason, caller.counts_as),
        }
        receipt = audit.append(session, "approval", body)
        promotions.wake(session, promotion_id)
    core.queue.advance(promotion_id)
    return receipt.seq


def _check(row: Promotion, caller: Caller, digest: str) -> None:
    rules = thaw(row.policy).approvals
    if row.stop:
        raise Conflict(f"Promotion {row.id} is being ended {row.stop['state']}: {row.stop['reason']}.")
    if row.state != State.APPROVAL.value:
        raise Conflict(f"Promotion {row.id} is {row.state} and does not wait for approval.")
    if caller.role not in rules.roles:
        wanted = " or ".join(rules.roles)
        raise Forbidden(f"The policy asks for a {wanted}; {caller.name} is {caller.role}.")
    if rules.prevent_self_review and row.requested_by is not None and row.requested_by == caller.name:
        raise Forbidden(f"{caller.name} requested this promotion and cannot decide on it.", "Ask somebody else.")
    if digest != row.digest:
        raise Conflict(
            f"The digest {digest[:19]}... is not the one that waits for approval.",
            f"Look again with `headgate show {row.id}`: what you saw is not what would go live.",
        )


def decide_canary(core: Core, promotion_id: int, caller: Caller, go_on: bool, reason: str) -> Promotion:
    """Answer an inconclusive canary: let it go on to the next weight, or roll it back.

    Raises:
        NotFound: there is no such promotion.
        Conflict: it does not ask.
    """
    with core.db.begin() as session:
        row = promotions.get_locked(session, promotion_id)
        if row is None:
            raise NotFound(f"There is no promotion {promotion_id}.", "See `headgate status`.")
        if row.state != State.ROLLOUT.value or row.stop or not row.progress.get("question"):
            raise Conflict(f"Promotion {promotion_id} asks nothing at the moment.")
        if go_on:
            approval = Approval(
                promotion_id=promotion_id,
                principal=caller.name,
                role=caller.role,
                decision=CONTINUE,
                digest=row.digest or "",
                weight=row.progress["weight"],
                reason=reason,
                at=now(session),
            )
            principals.add_approval(session, approval)
            body = {
                "promotion": promotion_id,
                "by": openings.person(session, caller.counts_as),
                "role": caller.role,
                "decision": CONTINUE,
                "digest": row.digest,
                "policy": row.policy_digest,
                "weight": row.progress["weight"],
                "reason": openings.said(session, reason, caller.counts_as),
            }
            audit.append(session, "canary.decision", body)
            promotions.wake(session, promotion_id)
        else:
            stop(session, row, State.ROLLED_BACK, reason or f"{caller.name} rolled it back", caller.name)
    core.queue.advance(promotion_id)
    return row
