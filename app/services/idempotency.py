"""Idempotency-Key: a second call with the same key gets the first one's answer and does nothing."""

from collections.abc import Callable, Mapping
from typing import Any

from app.db import principals
from app.db.session import Database
from app.domain.digests import digest_json
from app.domain.errors import Conflict


def once(
    db: Database, principal: str, key: str | None, body: Mapping[str, Any], make: Callable[[], dict[str, Any]]
) -> dict[str, Any]:
    """Run `make` unless this principal has used `key` before.

    Raises:
        Conflict: the key was used with another body.
    """
    if key is None:
        return make()
    digest = digest_json(dict(body))
    with db.read() as session:
        known = principals.answer(session, principal, key)
    if known is not None:
        if known.body_digest != digest:
            raise Conflict("This Idempotency-Key was used with another body.", "Send a fresh key.")
        return known.answer
    answer = make()
    with db.begin() as session:
        principals.remember(session, principal, key, digest, 201, answer)
    return answer
