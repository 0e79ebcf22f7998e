"""Idempotency-Key: a second call with the same key gets the first one's answer and does nothing."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy.orm import Session

from app.db import principals
from app.db.session import Database
from app.domain.digests import digest_json
from app.domain.errors import Conflict, RequestError
from app.services.terms import Keep


@dataclass(frozen=True)
class Call:
    """Who calls which route with what; a key is that principal's and that route's own. `status` is the answer's."""

    principal: str
    route: str
    key: str | None
    body: Mapping[str, Any]
    status: int

    @property
    def kept_as(self) -> str:
        """What the key is kept as: of one length, and never as it was sent."""
        return digest_json([self.route, self.key])


def once(db: Database, call: Call, act: Callable[[Keep], object]) -> tuple[int, Mapping[str, Any]]:
    """The status and the answer that `act` hands to its `Keep`, unless this principal has used the key before: then
    those that were kept at that time. An error is not kept: the same call may try again.

    Raises:
        Conflict: the key was used with another body.
    """
    made: dict[str, Any] = {}
    digest = digest_json(dict(call.body))

    def keep(session: Session, answer: Mapping[str, Any]) -> None:
        if call.key is not None and not principals.remember(
            session, call.principal, call.kept_as, digest, call.status, answer
        ):
            raise Conflict("This Idempotency-Key is in use at this moment.", "Send the request again.")
        made.update(answer)

    if (known := _known(db, call, digest)) is not None:
        return known
    try:
        act(keep)
    except RequestError:
        # The same call may have come twice at the same moment; then the other one did what this one could not.
        if (known := _known(db, call, digest)) is None:
            raise
        return known
    return call.status, made


def _known(db: Database, call: Call, digest: str) -> tuple[int, Mapping[str, Any]] | None:
    if call.key is None:
        return None
    with db.read() as session:
        found = principals.answer(session, call.principal, call.kept_as)
    if found is None:
        return None
    if found.body_digest != digest:
        raise Conflict("This Idempotency-Key was used with another body.", "Send a fresh key.")
    return found.status, found.answer
