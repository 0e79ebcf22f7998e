"""The first look at models: whatever asks for nothing is written down many models at a time, without a second look."""

from collections.abc import Sequence

from app.db import outbox, registry, releases
from app.domain.registry import POLL, Change, ModelView, diff
from app.parts import Core
from app.services import asks

CHUNK = 500


def take(core: Core, views: Sequence[ModelView], known: bool) -> set[str]:
    """Store models that were never seen before; returns the names of those that have to be observed by themselves.

    `known` False marks the first look at the registry: its legacy stages are history then. A model that wants an answer
    is left to `observe`, and so are all of them where another worker was faster.
    """
    lines = {view.name: _lines(core, view, known) for view in views}
    with core.db.begin() as session:
        busy = outbox.waiting_models(session) | {row.model for row in releases.serving(session)}
        quiet = [view for view in views if lines[view.name] is not None and view.name not in busy]
        if not registry.store_new(session, quiet):
            return set(lines)
        registry.add_changes(session, [line for view in quiet for line in lines[view.name] or ()], POLL)
    return set(lines) - {view.name for view in quiet}


def _lines(core: Core, view: ModelView, known: bool) -> list[tuple[Change, str]] | None:
    """The ledger's lines about a model with their notes; None where one of them wants an answer."""
    found = diff(None, view)
    if not found:
        return []
    try:
        policy, trouble = asks.policy_for(core, view.name, found)
    except Exception:  # noqa: BLE001 -- `observe` meets it again, and tells it without keeping others from being seen
        return None
    notes = [(change, asks.note_of_history(change, policy, known)) for change in found]
    told = [(change, note) for change, note in notes if note is not None]
    return told if len(told) == len(notes) and not trouble else None
