"""Reading: promotions with their steps and evidence, releases and the ledger, as plain JSON."""

from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy.orm import Session

from app.db import audit, openings, principals, promotions, registry, releases
from app.db.models import Approval, ChangeRow, Promotion, Release, StepRun
from app.db.session import Database
from app.domain import replay
from app.domain.errors import NotFound
from app.domain.promotion import State
from app.domain.three_way import three_way
from app.services import deliveries

PAGE = 50


def promotion(db: Database, promotion_id: int) -> dict[str, Any]:
    """Everything about one promotion: state, steps, evidence, approvals, digest.

    Raises:
        NotFound: there is no such promotion.
    """
    with db.read() as session:
        row = promotions.get(session, promotion_id)
        if row is None:
            raise NotFound(f"There is no promotion {promotion_id}.", "See `headgate status`.")
        return told(session, row)


def told(session: Session, row: Promotion) -> dict[str, Any]:
    """Everything about one promotion as the caller's transaction sees it."""
    steps = promotions.steps(session, row.id)
    evidence = {step.state.lower(): step.evidence for step in steps if step.finished_at and step.evidence}
    return {
        **_summary(row),
        "policy": row.policy,
        "policy_digest": row.policy_digest,
        "trigger": row.trigger,
        "requested_by": row.requested_by,
        "request_reason": row.request_reason,
        "attempt": row.attempt,
        "failures": row.failures or {},
        "last_error": row.last_error,
        "progress": row.progress,
        "stopping": row.stop,
        "steps": [_step(step) for step in steps],
        "evidence": evidence,
        "parity": three_way(evidence),
        "approvals": [_approval(row) for row in principals.approvals(session, row.id)],
    }


def search(
    db: Database, model: str | None, environment: str | None, state: State | None, before: int | None
) -> dict[str, Any]:
    """One page of promotions, newest first, and the cursor of the next page."""
    with db.read() as session:
        rows = promotions.search(session, model, environment, state, before, PAGE + 1)
        items = [_summary(row) for row in rows[:PAGE]]
        return {"items": items, "cursor": str(rows[PAGE - 1].id) if len(rows) > PAGE else None}


def serving(db: Database, model: str | None, environment: str | None, at: datetime | None) -> list[dict[str, Any]]:
    """What serves, or was stable at a time."""
    with db.read() as session:
        return [_release(row) for row in releases.search(session, model, environment, at)]


def at_a_time(db: Database, model: str, environment: str | None, at: datetime) -> list[dict[str, Any]]:
    """What of a model served at a time, with which weights, who had approved it, and on which evidence: as the audit
    trail tells it, each claim with its leaf. Nothing else is asked, so that it holds for any time and for
    deleted rows; only names and typed words are looked up, as far as nobody was erased.
    """
    until = at.astimezone(UTC).isoformat(timespec="microseconds")
    with db.read() as session:
        found = replay.serving(audit.about(session, model, replay.ABOUT, until))
        told = [row.as_json() for row in found if environment in (None, row.story.environment)]
        return [openings.opened(session, row) for row in told]


def changes(db: Database, model: str | None, before: int | None) -> dict[str, Any]:
    """One page of the ledger of registry changes, newest first, and counts over all of it."""
    with db.read() as session:
        rows = registry.changes(session, model, before, PAGE + 1)
        items = [_change(row) for row in rows[:PAGE]]
        cursor = str(rows[PAGE - 1].id) if len(rows) > PAGE else None
        return {"items": items, "cursor": cursor, "counts": deliveries.counts(session, model)}


def counts(db: Database) -> dict[str, int]:
    """Promotions by state."""
    with db.read() as session:
        return promotions.count_by_state(session)


def _summary(row: Promotion) -> dict[str, Any]:
    return {
        "id": row.id,
        "model": row.model,
        "version": row.version,
        "environment": row.environment,
        "state": row.state,
        "reason": row.reason,
        "digest": row.digest,
        "created_at": _text(row.created_at),
        "updated_at": _text(row.updated_at),
    }


def _step(step: StepRun) -> dict[str, Any]:
    end = step.finished_at
    seconds = (end - step.entered_at) / timedelta(seconds=1) if end else None
    return {
        "state": step.state,
        "entered_at": _text(step.entered_at),
        "finished_at": _text(end),
        "seconds": round(seconds, 3) if seconds is not None else None,
    }


def _approval(row: Approval) -> dict[str, Any]:
    keys = ("principal", "role", "decision", "digest", "weight", "reason")
    return {key: getattr(row, key) for key in keys} | {"at": _text(row.at)}


def _release(row: Release) -> dict[str, Any]:
    keys = ("model", "version", "environment", "promotion_id", "digest", "name", "role", "weight", "endpoint")
    times = ("created_at", "stable_at", "retired_at")
    return {key: getattr(row, key) for key in keys} | {key: _text(getattr(row, key)) for key in times}


def _change(row: ChangeRow) -> dict[str, Any]:
    keys = ("id", "model", "field", "version", "before", "after", "via", "promotion_id", "note", "webhook")
    return {key: getattr(row, key) for key in keys} | {"seen_at": _text(row.seen_at)}


def _text(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment is not None else None
