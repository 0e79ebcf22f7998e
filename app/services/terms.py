"""The terms of a change to a promotion: only as it was seen (If-Match), and only once (Idempotency-Key).

A service checks them when it holds the row's lock and hands its answer over before it commits, so that nothing comes
between the look and the deed, and there is never the one without the other.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy.orm import Session

from app.db.audit import Receipt
from app.db.models import Promotion
from app.db.session import at_last
from app.domain.errors import Stale
from app.services import history

Keep = Callable[[Session, Mapping[str, Any]], None]
"""Takes `{"promotion": as it stands with the change, "leaf": the decision's number in the trail, or None}` in the
transaction that made the change, as its last act."""
# Every look of a worker writes these, whether or not it saw anything new.
_BOOKKEEPING = ("updated_at", "attempt", "failures", "last_error")


@dataclass(frozen=True)
class Terms:
    """`if_match` holds the entity tags of which one must be the promotion's; None or "*": any will do."""

    if_match: frozenset[str] | None = None
    keep: Keep | None = None

    def check(self, session: Session, row: Promotion) -> None:
        """To be called with the row locked. Raises Stale where the promotion is not as it was seen."""
        if self.if_match is None or "*" in self.if_match:
            return
        if tag(history.told(session, row)) not in self.if_match:
            raise Stale(
                f"Promotion {row.id} has changed since you looked (it is {row.state} now).",
                f"Look again with `headgate show {row.id}`, and send the new ETag, or no If-Match.",
            )

    def done(self, session: Session, row: Promotion, receipt: Receipt | None = None) -> None:
        """To be called when all is written but the leaves, which are always written last."""
        keep = self.keep
        if keep is not None:
            promotion = history.told(session, row)
            at_last(session, lambda: keep(session, {"promotion": promotion, "leaf": receipt.seq if receipt else None}))


ANY = Terms()


def tag(promotion: Mapping[str, Any]) -> str:
    """The entity tag of a promotion as it is told: another one as soon as there is something new to see in it.

    The workers' own bookkeeping is left out, and the samples of a canary: they change every few seconds, and nobody
    could ever act on what he saw.
    """
    seen = {key: value for key, value in promotion.items() if key not in _BOOKKEEPING}
    seen["progress"] = {key: value for key, value in (promotion["progress"] or {}).items() if key != "history"}
    text = json.dumps(seen, sort_keys=True, separators=(",", ":"), default=str)
    return f'"{hashlib.sha256(text.encode(errors="backslashreplace")).hexdigest()[:32]}"'
