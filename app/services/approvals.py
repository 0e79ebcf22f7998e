"""Approvals: what people decide on exactly one digest, what they take back, and the emergency way."""

import logging
from typing import Any

from sqlalchemy.orm import Session

from app.db import approvals, audit, openings, promotions
from app.db.models import Approval, Promotion
from app.db.session import now
from app.domain.approvals import APPROVE, BREAK_GLASS, CONTINUE, REJECT, REVOKE, Decision, Outcome, Verdict, objection
from app.domain.errors import Conflict, Forbidden
from app.domain.permissions import Action, Caller, Role
from app.domain.promotion import State
from app.parts import Core
from app.policy_files import thaw
from app.services import digest as digests
from app.services import review, writeback
from app.services.promotions import allow, existing, stop
from app.services.terms import ANY, Terms

log = logging.getLogger(__name__)
_ACTIONS = {APPROVE: Action.APPROVE, REJECT: Action.REJECT}
_HELPS = (APPROVE, BREAK_GLASS)


def decide(
    core: Core, promotion_id: int, caller: Caller, decision: str, digest: str, reason: str, terms: Terms = ANY
) -> int:
    """Record an approval or a rejection of the digest that the reviewer saw; returns the number of its leaf.

    Raises:
        NotFound: there is no such promotion.
        Stale: it is not as the caller has seen it.
        Forbidden: the policy does not let this caller decide.
        Conflict: the promotion does not wait for approval, stands at another digest, has expired, or the caller decided
            already.
    """
    with core.db.begin() as session:
        row = _open(session, promotion_id, _ACTIONS[decision], terms)
        word = _word(session, caller, decision, digest)
        _check(session, row, word)
        if any(_repeats(said, word) for said in approvals.of(session, promotion_id)):
            raise Conflict(f"{word.person} has already decided on this digest.")
        _add(session, row, word, reason)
        receipt = audit.append(session, "approval", _leaf(session, row, word, reason))
        promotions.wake(session, promotion_id)
        terms.done(session, row, receipt)
    core.queue.advance(promotion_id)
    return receipt.seq


def revoke(
    core: Core, promotion_id: int, caller: Caller, reason: str, person: str | None = None, terms: Terms = ANY
) -> int:
    """Take back what one has approved, or as an admin what `person` has; returns the number of its leaf. Where the rest
    is not enough for a canary that has traffic already, it is rolled back.

    Raises:
        NotFound: there is no such promotion.
        Stale: it is not as the caller has seen it.
        Forbidden: the caller is a machine, or takes back another person's word and is no admin.
        Conflict: the promotion is past that, or there is nothing to take back.
    """
    whose = person or caller.counts_as
    if caller.machine:
        raise Forbidden(f"{caller.name} is a machine, and machines never decide.", "A person has to.")
    if whose != caller.counts_as and caller.role != Role.ADMIN:
        raise Forbidden(f"{caller.name} is no admin and takes back only what {caller.name} approved.", "Ask an admin.")
    with core.db.begin() as session:
        row = _open(session, promotion_id, Action.REVOKE, terms)
        said = [word for word in approvals.of(session, promotion_id) if word.revoked_at is None]
        mine = [word for word in said if (word.person, word.digest) == (whose, row.digest) and word.decision in _HELPS]
        if not mine:
            raise Conflict(f"{whose} has no approval of this digest that could be taken back.")
        for word in mine:
            word.revoked_at, word.revoked_by = now(session), caller.counts_as
        session.flush()
        taken_back = _word(session, caller, REVOKE, row.digest or "")
        body = _leaf(session, row, taken_back, reason) | {"person": openings.person(session, whose)}
        receipt = audit.append(session, "approval.revoked", body)
        _follow_revocation(session, row, caller, reason)
        terms.done(session, row, receipt)
    core.queue.advance(promotion_id)
    return receipt.seq


def _follow_revocation(session: Session, row: Promotion, caller: Caller, reason: str) -> None:
    verdict = review.verdict(session, row)
    if row.state == State.ROLLOUT.value and verdict is not None and not verdict.enough:
        told = f"{caller.counts_as} took back an approval, and the rest is not enough: {reason}"
        stop(session, row, State.ROLLED_BACK, told, caller.counts_as)
    else:
        promotions.wake(session, row.id)


def break_glass(core: Core, promotion_id: int, caller: Caller, digest: str, reason: str, terms: Terms = ANY) -> int:
    """Ask for the emergency way; it is open once two people have within the policy's time box. It stands for missing
    approvals and passes a freeze, and nothing else; returns the number of its leaf.

    Raises:
        NotFound: there is no such promotion.
        Stale: it is not as the caller has seen it.
        Forbidden: the policy has no such way, or not for this caller.
        Conflict: the promotion does not wait for approval, stands at another digest, was rejected or has expired, or
            the caller has asked already: it takes somebody else.
    """
    with core.db.begin() as session:
        row = _open(session, promotion_id, Action.BREAK_GLASS, terms)
        word = _word(session, caller, BREAK_GLASS, digest)
        if thaw(row.policy).break_glass is None:
            raise Forbidden("The policy has no break-glass here.", "It takes the approvals that it asks for.")
        before = _check(session, row, word)
        if before.glass is not None and word.person in before.glass.by:
            until = f"until {before.glass.until.isoformat()}"
            raise Conflict(f"{word.person} has asked for break-glass already.", f"It takes somebody else {until}.")
        _add(session, row, word, reason)
        after = review.verdict(session, row)
        if after is None or after.glass is None:
            raise Conflict(f"Promotion {row.id} went on meanwhile.")
        glass = {"open": after.glass.open, "until": after.glass.until.isoformat()}
        receipt = audit.append(session, "break-glass", _leaf(session, row, word, reason) | glass)
        by = " and ".join(after.glass.by)
        writeback.tell_break_glass(session, row, f"{by}, until {glass['until']}: {reason}")
        promotions.wake(session, promotion_id)
        terms.done(session, row, receipt)
        of = {"promotion": row.id, "model": row.model, "environment": row.environment, "by": by, **glass}
    log.log(logging.ERROR if after.glass.open else logging.WARNING, "break-glass", extra=of)
    core.queue.advance(promotion_id)
    core.queue.deliver()
    return receipt.seq


def decide_canary(
    core: Core, promotion_id: int, caller: Caller, go_on: bool, reason: str, terms: Terms = ANY
) -> Promotion:
    """Answer an inconclusive canary: let it go on to the next weight, or roll it back.

    Raises:
        NotFound: there is no such promotion.
        Stale: it is not as the caller has seen it.
        Forbidden: the policy does not let this caller let it go on.
        Conflict: it does not ask.
    """
    with core.db.begin() as session:
        row = _open(session, promotion_id, Action.CONTINUE if go_on else Action.ROLL_BACK, terms)
        if not row.progress.get("question"):
            raise Conflict(f"Promotion {promotion_id} asks nothing at the moment.")
        if go_on:
            word = _word(session, caller, CONTINUE, row.digest or "", row.progress["weight"])
            _object(session, row, word)
            _add(session, row, word, reason)
            audit.append(session, "canary.decision", _leaf(session, row, word, reason) | {"weight": word.weight})
            promotions.wake(session, promotion_id)
        else:
            stop(session, row, State.ROLLED_BACK, reason or f"{caller.name} rolled it back", caller.counts_as)
        terms.done(session, row)
    core.queue.advance(promotion_id)
    return row


def _open(session: Session, promotion_id: int, action: Action, terms: Terms) -> Promotion:
    """The promotion, locked, if it is as the caller saw it and `action` makes sense now."""
    row = existing(session, promotion_id)
    terms.check(session, row)
    allow(row, action)
    if row.stop:
        raise Conflict(f"Promotion {row.id} is being ended {row.stop['state']}: {row.stop['reason']}.")
    return row


def _word(session: Session, caller: Caller, decision: str, digest: str, weight: int | None = None) -> Decision:
    return Decision(
        person=caller.counts_as,
        role=caller.role,
        decision=decision,
        digest=digest,
        at=now(session),
        name=caller.name,
        machine=caller.machine,
        authenticated_at=caller.authenticated_at,
        weight=weight,
    )


def _check(session: Session, row: Promotion, word: Decision) -> Verdict:
    """How things stand before this word, once it is sure that it would count."""
    _object(session, row, word)
    if word.digest != row.digest:
        known = digests.other(session, row, word.digest)
        raise Conflict(
            f"The digest {word.digest[:19]}... is not the one that waits for approval. {known}".strip(),
            f"Look again with `headgate show {row.id}`: what you saw is not what would go live.",
        )
    verdict = review.verdict(session, row)
    if verdict is None or verdict.outcome in (Outcome.DENIED, Outcome.EXPIRED):
        raise Conflict(
            f"Promotion {row.id} is {verdict.outcome if verdict else row.state} and waits for nobody's word."
        )
    if verdict.required and word.at >= verdict.expires_at and word.decision != REJECT:
        raise Conflict(f"Promotion {row.id} waited for approvals until {verdict.expires_at.isoformat()}.")
    return verdict


def _object(session: Session, row: Promotion, word: Decision) -> None:
    """Refuse a word that would not count, with the reason."""
    found = objection(thaw(row.policy), review.facts_of(session, row, promotions.steps(session, row.id)), word)
    if found is not None:
        raise Forbidden(found.reason, found.remedy)


def _repeats(said: Approval, word: Decision) -> bool:
    """Whether this person has decided on this digest before, in the same role, and it still counts."""
    same = (said.person, said.role, said.digest) == (word.person, word.role, word.digest)
    return same and said.revoked_at is None and said.decision in (APPROVE, REJECT)


def _add(session: Session, row: Promotion, word: Decision, reason: str) -> None:
    approval = Approval(
        promotion_id=row.id,
        principal=word.name,
        person=word.person,
        role=word.role,
        decision=word.decision,
        digest=word.digest,
        weight=word.weight,
        reason=reason,
        at=word.at,
        authenticated_at=word.authenticated_at,
    )
    approvals.add(session, approval)


def _leaf(session: Session, row: Promotion, word: Decision, reason: str) -> dict[str, Any]:
    return {
        "promotion": row.id,
        "by": openings.person(session, word.person),
        "role": word.role,
        "decision": word.decision,
        "digest": word.digest,
        "policy": row.policy_digest,
        "reason": openings.said(session, reason, word.person),
    }
