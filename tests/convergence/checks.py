"""What must be true once everything has come to rest."""

import json
import time
from collections import Counter
from datetime import datetime
from typing import Any

from sqlalchemy import select

from app.db import registry
from app.db.models import ChangeRow, OutboxRow, Promotion
from app.db.session import Database, now
from app.domain.errors import Transient
from app.domain.promotion import ENDED
from app.domain.registry import OWN, Event, ModelView
from app.services.pace import LAST_POLL
from tests.convergence.people import Crowd
from tests.convergence.proxies import Key
from tests.convergence.rig import Rig

PATIENCE = 120.0
Place = tuple[str, str, str | None]
"""A model, a field, and for stages and tags the version."""


def wait_for_rest(found: Rig, quiet: float = 0.0) -> None:
    """Until a whole poll, begun `quiet` seconds after the call, has found nothing to do, and nothing is on its way."""
    with found.database.read() as session:
        begun = now(session)
    end = time.monotonic() + PATIENCE
    why = ""
    while time.monotonic() < end:
        why = _unrest(found, begun, quiet)
        if not why:
            return
        time.sleep(0.1)
    raise AssertionError(f"no rest after {PATIENCE:g} s: {why}")


def _unrest(found: Rig, begun: datetime, quiet: float) -> str:
    if found.post.on_the_way:
        return "webhooks are on their way"
    with found.database.read() as session:
        told = registry.fact(session, LAST_POLL)
        if told is None or not _polled(json.loads(told), begun, quiet):
            return f"the last poll was {told}, and rest is waited for since {begun}"
        unread = registry.unobserved_models(session)
        unsent = [row.operation for row in session.scalars(select(OutboxRow).where(OutboxRow.next_try_at.is_not(None)))]
        due = [(row.id, row.state) for row in session.scalars(select(Promotion)) if row.next_run_at is not None]
        seen = registry.all_observed(session)
    if unread or unsent or due:
        return f"unread {unread}, unsent {unsent}, due {due}"
    try:
        return "" if seen == _truth(found) else "what was seen is not what MLflow says"
    except Transient as error:
        return str(error)


def _polled(last: dict[str, Any], begun: datetime, quiet: float) -> bool:
    """Whether the last poll worked and began `quiet` seconds after a time."""
    after = (datetime.fromisoformat(last["ended"]) - begun).total_seconds() - last["took"]
    return bool(last["worked"]) and after >= quiet


def _truth(found: Rig) -> dict[str, ModelView]:
    mlflow = found.truth()
    try:
        return {view.name: view for view in mlflow.snapshot()}
    finally:
        mlflow.close()


def ledger(database: Database) -> list[ChangeRow]:
    """All of it, oldest first."""
    with database.read() as session:
        return list(session.scalars(select(ChangeRow).order_by(ChangeRow.id)))


def check_chain(found: Rig) -> None:
    """Each change begins where the one before it ended, and the last one ends in what MLflow says now."""
    holds: dict[Place, str] = {}
    for row in ledger(found.database):
        place = (row.model, row.field, None if row.field.startswith("alias:") else row.version)
        before, after = (
            None if value == "None" and row.field == "stage" else value for value in (row.before, row.after)
        )
        assert holds.get(place) == before, f"change {row.id} of {place} begins with {before}, not {holds.get(place)}"
        holds.pop(place, None)
        if after is not None:
            holds[place] = after
    assert holds == _places(_truth(found))


def _places(views: dict[str, ModelView]) -> dict[Place, str]:
    places: dict[Place, str] = {}
    for name, view in views.items():
        places |= {(name, f"alias:{alias}", None): version for alias, version in view.aliases.items()}
        places |= {(name, "stage", version): stage for version, stage in view.stages.items()}
        places |= {(name, "tag:headgate.to", version): ask for version, ask in view.asks.items()}
    return places


def check_promotions(found: Rig, crowd: Crowd) -> None:
    """What asks in the end has been answered, nothing was asked twice by one mark, and by none of our own."""
    with found.database.read() as session:
        rows = list(session.scalars(select(Promotion)))
    assert [row.state for row in rows if row.state not in ENDED] == []
    opened = [change for change in ledger(found.database) if change.promotion_id is not None]
    assert sorted(change.promotion_id or 0 for change in opened) == [row.id for row in sorted(rows, key=lambda r: r.id)]
    assert [change.id for change in opened if change.via == OWN] == []
    answered = {(row.model, row.version, row.environment) for row in rows}
    assert {key[1:] for key in answered} <= set(crowd.asked)
    assert standing(_truth(found)) <= answered


def standing(views: dict[str, ModelView]) -> set[tuple[str, str, str]]:
    """(model, version, environment) of whatever MLflow still asks for."""
    asks = set()
    for name, view in views.items():
        asks |= {(name, v, alias[3:]) for alias, v in view.aliases.items() if alias.startswith("to-")}
        asks |= {(name, v, stage.lower()) for v, stage in view.stages.items() if stage in ("Staging", "Production")}
        asks |= {(name, v, ask) for v, ask in view.asks.items() if ask in ("staging", "production")}
    return asks


def check_webhooks(found: Rig) -> None:
    """No change counts as announced whose webhook never came; none that came is looked for among the missing, unless
    it came for another change of the same kind."""
    due, came = Counter[Key](), Counter[Key]()
    for row in ledger(found.database):
        version = None if row.field.startswith("alias:") else row.version
        key = (row.model, Event(row.field, version, row.after))
        due.update([key] if row.webhook == "due" else [])
        came.update([key] if row.webhook == "came" else [])
    assert came <= found.post.arrived


def missing(found: Rig) -> int:
    """How many webhooks are missing, as `GET /api/v1/changes` says a minute from now."""
    counts: Any = found.changes()["counts"]
    waiting = sum(row.webhook == "due" for row in ledger(found.database))
    assert counts["missing"] <= waiting
    return waiting
