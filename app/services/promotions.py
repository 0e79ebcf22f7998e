"""Promotions: opening one, asking one to stop, and `transition`, the only function that writes a state."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy.orm import Session

from app.db import audit, fences, openings, promotions, releases
from app.db.models import Promotion, Release
from app.db.promotions import Claim
from app.db.session import now
from app.domain.digests import digest_json
from app.domain.errors import Conflict, HeadgateError, Invalid, NotFound
from app.domain.policy import EnvironmentPolicy, Policy
from app.domain.promotion import ENDED, State, may_follow
from app.parts import Core
from app.policy_files import freeze, thaw
from app.services import digest, history, releases_follow, writeback
from app.services.idempotency import Keep


def request(
    core: Core,
    model: str,
    version: str,
    environment: str,
    reason: str,
    principal: str,
    keep: Keep = lambda _session, _answer: None,
) -> Promotion:
    """Open a promotion that somebody asks for by name; `keep` gets what they are answered.

    Raises:
        NotFound: MLflow has no such version.
        Invalid: the policy knows no such environment.
        Conflict: the version is already on its way, or already live there.
    """
    policy = core.policies.policy(model)
    rules_for(policy, environment)
    if core.registry.version(model, version) is None:
        raise NotFound(f"MLflow has no version {version} of a model named {model!r}.", "Check both in MLflow's UI.")
    with core.db.begin() as session:
        trigger = {"field": "request"}
        row = open_promotion(session, core, policy, (version, environment), trigger, principal, reason)
        if row is None:
            raise Conflict(
                f"{model} {version} is already on its way to {environment} or serves there.",
                f"See `headgate status --model {model} --env {environment}`.",
            )
        keep(session, history.told(session, row))
    core.queue.advance(row.id)
    return row


def rules_for(policy: Policy, environment: str) -> EnvironmentPolicy:
    """The rules of one environment. Raises Invalid where the policy knows no such one."""
    if environment not in policy.environments:
        known = ", ".join(sorted(policy.environments))
        raise Invalid(
            "environment", f"the policy of {policy.model} has no environment {environment!r}", f"It has: {known}."
        )
    return policy.environments[environment]


def open_promotion(
    session: Session,
    core: Core,
    policy: Policy,
    wanted: tuple[str, str],
    trigger: Mapping[str, Any],
    principal: str | None,
    reason: str = "",
) -> Promotion | None:
    """Open a promotion of `wanted` (version, environment), superseding an older one for another version.

    Returns None where the version is already on its way or already serves.
    """
    version, environment = wanted
    older = promotions.open_for(session, policy.model, environment)
    serving = releases.in_role(session, policy.model, environment, releases.STABLE)
    if occupied(version, older, serving) is not None:
        return None
    for row in older:
        stop(session, row, State.SUPERSEDED, f"version {version} was requested instead", principal)
    row = _insert(session, policy, wanted, trigger, principal, reason)
    body = {
        "promotion": row.id,
        "model": policy.model,
        "version": version,
        "environment": environment,
        "trigger": dict(trigger),
        "by": principal and openings.person(session, principal),
        "reason": _for_leaf(session, reason, principal),
        "policy": row.policy_digest,
    }
    audit.append(session, "promotion.requested", body)
    promotions.enter_step(session, row.id, State.REQUESTED)
    writeback.keep_marks(session, row, policy.environments[environment])
    writeback.announce(session, row, core.promotion_url(row.id))
    return row


def occupied(version: str, older: Sequence[Promotion], serving: Release | None) -> str | None:
    """Why a request for `version` would open nothing, beside these unfinished promotions and what serves; None where
    it would."""
    if any(row.version == version and not row.stop for row in older):
        return f"version {version} is already on its way"
    if serving is not None and serving.version == version and not older:
        return f"version {version} already serves"
    return None


def _insert(
    session: Session,
    policy: Policy,
    wanted: tuple[str, str],
    trigger: Mapping[str, Any],
    principal: str | None,
    reason: str,
) -> Promotion:
    frozen = freeze(policy.environments[wanted[1]])
    moment = now(session)
    values = {
        "model": policy.model,
        "version": wanted[0],
        "environment": wanted[1],
        "state": State.REQUESTED.value,
        "trigger": dict(trigger),
        "requested_by": principal,
        "request_reason": reason,
        "policy": frozen,
        "policy_digest": digest_json(frozen),
        "progress": {},
        "created_at": moment,
        "updated_at": moment,
        "next_run_at": moment,
    }
    row = promotions.add(session, values)
    if row is None:
        raise Conflict("another promotion was requested at the same moment", "Look at it first, then try again.")
    return row


def stop(session: Session, row: Promotion, state: State, reason: str, by: str | None) -> None:
    """Ask a promotion to end in `state`. One that has not begun ends here; a running one is ended by its worker,
    which first undoes what it did outside. The first request to stop wins."""
    if row.stop or row.state in ENDED:
        return
    told = {"to": state.value, "reason": _for_leaf(session, reason, by), "by": by and openings.person(session, by)}
    audit.append(session, "promotion.stop", {"promotion": row.id, **told})
    row.stop = {"state": state.value, "reason": reason, "by": by}
    if row.state == State.REQUESTED.value:
        # Nothing was done outside yet: a higher epoch shuts out whoever holds it, and the row ends at once.
        row.lease_epoch = fences.issue(session, row.model, row.environment)
        session.flush()
        transition(session, row, Claim(row.id, State.REQUESTED, row.lease_epoch, ""), state, reason, {}, by=by)
        return
    row.next_run_at = now(session)
    session.flush()


def transition(
    session: Session,
    row: Promotion,
    held: Claim,
    after: State,
    reason: str,
    evidence: Mapping[str, Any],
    delay: timedelta = timedelta(0),
    by: str | None = None,
) -> None:
    """Write a new state, and in the same transaction everything that must be true with it: the step's record, the
    release, the audit leaf, and what MLflow is to be told. `by` is the person whose words `reason` are.

    Raises:
        LostLease: the promotion no longer stands where `held` says.
        HeadgateError: the transition is not a legal one, which is a defect.
    """
    if not may_follow(held.state, after):
        raise HeadgateError(f"{held.state} may not be followed by {after}")
    if after is State.APPROVAL:
        row.digest = digest.of_promotion(session, row, evidence)
        session.flush()
    promotions.move(session, held, after, reason, _next_run(session, held.state, after, delay))
    evidence_digest = digest_json(dict(evidence))
    promotions.finish_step(session, row.id, held.state, evidence, evidence_digest)
    promotions.enter_step(session, row.id, after)
    writeback.tell(session, row, thaw(row.policy), after, reason)
    releases_follow.follow(session, row, after)
    body = {
        "promotion": row.id,
        "model": row.model,
        "version": row.version,
        "environment": row.environment,
        "from": held.state.value,
        "to": after.value,
        "reason": _for_leaf(session, reason, by),
        "evidence": evidence_digest,
        "digest": row.digest,
        "policy": row.policy_digest,
    }
    audit.append(session, "promotion.transition", body)
    if after in ENDED:
        promotions.wake_waiting(session, row.model, row.environment)


def _for_leaf(session: Session, reason: str, by: str | None) -> str:
    """Our own words as they are, a person's as a salted hash: leaves cannot be erased, what somebody typed must be."""
    return openings.said(session, reason, by) if reason and by is not None else reason


def _next_run(session: Session, before: State, after: State, delay: timedelta) -> datetime | None:
    # An ended promotion runs once more to clean up what it left outside; one that never began left nothing.
    if after in ENDED and before is State.REQUESTED:
        return None
    return now(session) + delay


def cancel(core: Core, promotion_id: int, reason: str, by: str) -> Promotion:
    """Ask a promotion to end CANCELLED.

    Raises:
        NotFound: there is no such promotion.
        Conflict: it has already ended, or is being ended otherwise.
    """
    with core.db.begin() as session:
        row = _existing(session, promotion_id)
        if row.state in ENDED:
            raise Conflict(f"Promotion {promotion_id} has already ended {row.state}.")
        if row.stop and row.stop["state"] != State.CANCELLED.value:
            raise Conflict(f"Promotion {promotion_id} is being ended {row.stop['state']}: {row.stop['reason']}.")
        stop(session, row, State.CANCELLED, reason or f"cancelled by {by}", by)
    core.queue.advance(promotion_id)
    core.queue.deliver()
    return row


def retry(core: Core, promotion_id: int, by: str) -> Promotion:
    """Start a FAILED promotion anew.

    Raises:
        NotFound: there is no such promotion.
        Conflict: it did not fail, or a newer one has taken its place.
        Invalid: the model's policy, which is read anew, is malformed or has lost the environment.
    """
    with core.db.begin() as session:
        row = _existing(session, promotion_id)
        if row.state != State.FAILED.value:
            raise Conflict(f"Promotion {promotion_id} is {row.state}; only a FAILED one can be tried again.")
        if promotions.open_for(session, row.model, row.environment):
            raise Conflict("A newer promotion is under way for this model and environment.", "Cancel that one first.")
        row.policy = freeze(rules_for(core.policies.policy(row.model), row.environment))
        row.policy_digest = digest_json(row.policy)
        told = {"by": openings.person(session, by), "policy": row.policy_digest}
        audit.append(session, "promotion.retry", {"promotion": row.id, **told})
        row.lease_epoch = fences.issue(session, row.model, row.environment)
        row.stop, row.digest = None, None
        session.flush()
        held = Claim(row.id, State.FAILED, row.lease_epoch, "")
        transition(session, row, held, State.REQUESTED, "", {})
    core.queue.advance(promotion_id)
    return row


def _existing(session: Session, promotion_id: int) -> Promotion:
    row = promotions.get_locked(session, promotion_id)
    if row is None:
        raise NotFound(f"There is no promotion {promotion_id}.", "See `headgate status`.")
    return row
