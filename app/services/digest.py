"""The digest of a promotion, put together from what its steps recorded: this is what a reviewer approves."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy.orm import Session

from app.db import approvals, promotions
from app.db.models import Promotion, StepRun
from app.domain.digests import changed_parts, digest_json, release_digest
from app.domain.promotion import State

JUDGED = (State.SNAPSHOT, State.SCAN, State.CONVERT, State.GATES, State.BUILD, State.PROVE)
"""The steps whose evidence is approved."""


def settle(session: Session, row: Promotion, prove: Mapping[str, Any]) -> dict[str, str]:
    """Give the promotion the digest over what is recorded and the evidence of PROVE, which has just ended; returns the
    digest's parts, which are kept with it."""
    parts = parts_of(row, {**promotions.evidence(session, row.id), State.PROVE.value: prove})
    row.digest = release_digest(parts)
    session.flush()
    approvals.keep_parts(session, row.id, row.digest, parts)
    return parts


def of_evidence(row: Promotion, evidence: Mapping[str, Mapping[str, Any]]) -> str:
    """The digest over what is recorded now. Raises KeyError where some is missing."""
    return release_digest(parts_of(row, evidence))


def parts_of(row: Promotion, evidence: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """What the digest is made of (`RELEASE_PARTS`), as it is recorded now. Raises KeyError where some is missing."""
    build = evidence[State.BUILD.value]
    return {
        "model": row.model,
        "version": row.version,
        "environment": row.environment,
        "tree": evidence[State.SNAPSHOT.value]["tree"],
        "onnx": evidence[State.CONVERT.value]["onnx"],
        "config": build["config"],
        "image": build["image"] or build["repository"],
        "policy": digest_json(row.policy),
        "evidence": digest_json({state.value: dict(evidence[state.value]) for state in JUDGED}),
    }


def voided(session: Session, row: Promotion, steps: Sequence[StepRun]) -> str:
    """Why the digest no longer stands for what is recorded, by the parts that have changed; empty where it does."""
    try:
        evidence = promotions.evidence_of(steps)
        if of_evidence(row, evidence) == row.digest:
            return ""
        parts = parts_of(row, evidence)
    except (KeyError, TypeError, ValueError):
        return "what was recorded no longer matches the digest: the record of a step is gone or broken"
    stood = approvals.parts(session, row.id, row.digest)
    if stood is None or release_digest(stood) != row.digest:
        return "what was recorded no longer matches the digest, nor does the record of its parts"
    told = [_named(part, steps) for part in changed_parts(stood, parts)]
    return f"what was recorded no longer matches the digest: changed since then: {', '.join(told)}"


def _named(part: str, steps: Sequence[StepRun]) -> str:
    """A part; of the evidence also the steps whose records are no longer what they were when they were written."""
    if part != "evidence":
        return part
    latest = {step.state: step for step in steps if step.finished_at is not None}
    changed = [name for name, step in latest.items() if step.digest != digest_json(step.evidence)]
    return f"{part} ({', '.join(changed)})" if changed else part


def other(session: Session, row: Promotion, digest: str) -> str:
    """What is known of a digest that somebody echoed and that does not stand here, for people; empty: nothing."""
    seen, stands = approvals.parts(session, row.id, digest), approvals.parts(session, row.id, row.digest)
    if seen is not None and stands is not None:
        return f"It stood here before; changed since then: {', '.join(changed_parts(seen, stands))}."
    elsewhere = approvals.promotion_of(session, digest)
    return f"It is that of promotion {elsewhere}." if elsewhere is not None else ""
