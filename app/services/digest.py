"""The digest of a promotion, put together from what its steps recorded: this is what a reviewer approves."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy.orm import Session

from app.db import promotions
from app.db.models import Promotion
from app.domain.digests import digest_json, release_digest
from app.domain.promotion import State


def of_promotion(session: Session, row: Promotion, prove: Mapping[str, Any]) -> str:
    """The release digest, from the recorded evidence and that of PROVE, which has just ended."""
    return of_evidence(row, {**promotions.evidence(session, row.id), State.PROVE.value: prove})


def of_evidence(row: Promotion, evidence: Mapping[str, Mapping[str, Any]]) -> str:
    """The release digest over everything up to PROVE."""
    return release_digest(parts_of(row, evidence))


def parts_of(row: Promotion, evidence: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """What the release digest is made over."""
    judged = (State.SNAPSHOT, State.SCAN, State.CONVERT, State.GATES, State.BUILD, State.PROVE)
    build = evidence[State.BUILD.value]
    return {
        "model": row.model,
        "version": row.version,
        "environment": row.environment,
        "tree": evidence[State.SNAPSHOT.value]["tree"],
        "onnx": evidence[State.CONVERT.value]["onnx"],
        "config": build["config"],
        "image": build["image"] or build["repository"],
        "policy": row.policy_digest,
        "evidence": digest_json({state.value: dict(evidence[state.value]) for state in judged}),
    }
