"""Sending what the outbox holds, in order for each model, and keeping our own writes from looking like requests."""

import logging
from datetime import timedelta
from typing import Any

from sqlalchemy.orm import Session

from app.db import outbox, registry
from app.db.models import OutboxRow
from app.domain.errors import HeadgateError
from app.domain.registry import ASK_TAG, NO_STAGE, Change, ModelView
from app.domain.retry import backoff
from app.parts import Core
from app.services import writeback

log = logging.getLogger(__name__)
MAX_ATTEMPTS = 60


def deliver(core: Core, owner: str) -> int:
    """Send all that is due; one process at a time. Returns how many were sent.

    A model whose write fails keeps the rest of its writes back, so that MLflow never sees them out of order.
    """
    sent = 0
    while True:
        with core.db.begin() as session:
            if not outbox.take_lease(session, "deliver", owner, timedelta(seconds=60)):
                return sent
            rows = list(outbox.pending(session)) if outbox.has_due(session) else []
        stuck: set[str] = set()
        before = sent
        for row in rows:
            if row.model not in stuck and _deliver_one(core, row):
                sent += 1
            else:
                stuck.add(row.model)
        if sent == before:
            break
    with core.db.begin() as session:
        outbox.drop_lease(session, "deliver", owner)
    return sent


def _deliver_one(core: Core, row: OutboxRow) -> bool:
    try:
        _send(core, row)
    except HeadgateError as error:
        pause = backoff(row.attempts + 1) if row.attempts + 1 < MAX_ATTEMPTS else None
        log.warning("outbox.failed", extra={"row": row.id, "operation": row.operation, "reason": error.reason})
        with core.db.begin() as session:
            outbox.mark_failed(session, row.id, error.reason, pause)
        return False
    with core.db.begin() as session:
        _note_own_write(session, row)
        outbox.mark_done(session, row.id)
    return True


def _send(core: Core, row: OutboxRow) -> None:
    model, arguments = row.model, row.arguments
    version = arguments["version"]
    match row.operation:
        case writeback.SET_TAG:
            core.registry.set_version_tag(model, version, arguments["key"], arguments["value"])
        case writeback.DELETE_TAG:
            core.registry.delete_version_tag(model, version, arguments["key"], arguments["value"])
        case writeback.SET_ALIAS:
            core.registry.set_alias(model, arguments["alias"], version)
        case writeback.DELETE_ALIAS:
            core.registry.delete_alias(model, arguments["alias"], version)
        case writeback.SET_STAGE:
            _set_stage(core, model, arguments)


def _set_stage(core: Core, model: str, arguments: dict[str, Any]) -> None:
    version, stage, only_from = arguments["version"], arguments["stage"], arguments.get("only_from")
    view = core.registry.read_model(model)
    present = view.stages.get(version, NO_STAGE) if view else None
    if present is None or present == stage or (only_from is not None and present != only_from):
        return
    core.registry.set_stage(model, version, stage, archive=False)


def is_own(pending: list[OutboxRow], change: Change) -> bool:
    """Whether a change is what a write that is still on its way would produce."""
    return any(_produces(row, change) for row in pending)


def _produces(row: OutboxRow, change: Change) -> bool:
    arguments = row.arguments
    match row.operation:
        case writeback.SET_STAGE:
            return change.field == "stage" and (change.version, change.after) == (
                arguments["version"],
                arguments["stage"],
            )
        case writeback.SET_ALIAS:
            return change.field == f"alias:{arguments['alias']}" and change.after == arguments["version"]
        case writeback.DELETE_ALIAS:
            return change.field == f"alias:{arguments['alias']}" and change.after is None
        case writeback.DELETE_TAG:
            return change.field == f"tag:{arguments['key']}" and change.after is None
    return False


def _note_own_write(session: Session, row: OutboxRow) -> None:
    # What we wrote is what we have seen: the next reading then finds no difference, and whatever a person does
    # afterwards, even back to the old value, is a difference again.
    view, generation = registry.observed(session, row.model)
    if view is None:
        return
    after = _apply(view, row)
    if after != view:
        registry.store(session, row.model, after, generation)


def _apply(view: ModelView, row: OutboxRow) -> ModelView:
    aliases, stages, asks = dict(view.aliases), dict(view.stages), dict(view.asks)
    arguments = row.arguments
    version = arguments["version"]
    match row.operation:
        case writeback.SET_ALIAS:
            aliases[arguments["alias"]] = version
        case writeback.DELETE_ALIAS if aliases.get(arguments["alias"]) == version:
            del aliases[arguments["alias"]]
        case writeback.DELETE_TAG if arguments["key"] == ASK_TAG and asks.get(version) == arguments["value"]:
            del asks[version]
        case writeback.SET_STAGE if arguments.get("only_from") in (None, stages.get(version, NO_STAGE)):
            stages[version] = arguments["stage"]
            if arguments["stage"] == NO_STAGE:
                del stages[version]
    return ModelView(view.name, aliases, stages, asks)
