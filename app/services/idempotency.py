"""Idempotency-Key: a second call with the same key gets the first one's answer and does nothing."""

from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy.orm import Session

from app.db import principals
from app.db.session import Database
from app.domain.digests import digest_json
from app.domain.errors import Conflict

Keep = Callable[[Session, dict[str, Any]], None]
"""Keeps an answer in the transaction that did what it tells of, so that there is never the one without the other."""


def once(
    db: Database, principal: str, key: str | None, body: Mapping[str, Any], make: Callable[[Keep], object]
) -> dict[str, Any]:
    """The answer that `make` keeps, unless this principal has used `key` before: then the answer kept at that time.

    Raises:
        Conflict: the key was used with another body.
    """
    made: dict[str, Any] = {}
    digest = digest_json(dict(body))

    def keep(session: Session, answer: dict[str, Any]) -> None:
        if key is not None and not principals.remember(session, principal, key, digest, 201, answer):
            raise Conflict("This Idempotency-Key is in use at this moment.", "Send the request again.")
        made.update(answer)

    known = _known(db, principal, key, digest)
    if known is not None:
        return known
    try:
        make(keep)
    except Conflict:
        # The same call may have come twice at the same moment; then the other one did what this one could not.
        known = _known(db, principal, key, digest)
        if known is None:
            raise
        return known
    return made


def _known(db: Database, principal: str, key: str | None, digest: str) -> dict[str, Any] | None:
    if key is None:
        return None
    with db.read() as session:
        found = principals.answer(session, principal, key)
    if found is None:
        return None
    if found.body_digest != digest:
        raise Conflict("This Idempotency-Key was used with another body.", "Send a fresh key.")
    return found.answer
