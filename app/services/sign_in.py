"""Callers whom a configured issuer vouches for: who they are here, and what the issuer says they may do."""

import hashlib
import re

from sqlalchemy.orm import Session

from app.db import audit, openings, principals
from app.db.models import Principal
from app.db.session import Database
from app.domain.errors import Conflict, Forbidden
from app.domain.permissions import Caller, Role
from app.domain.tokens import usable
from app.ports import Identity
from app.services.tokens import tell_of

_ODD = re.compile(r"[^A-Za-z0-9._@-]+")
_LONGEST = 80


def caller(db: Database, found: Identity) -> Caller:
    """The caller whom the issuer vouches for; at first sight he becomes a principal. The issuer's present word counts
    for role and kind, whatever it said before.

    Raises:
        Forbidden: nothing that the issuer says of him gives a role here.
        Conflict: no name is left for him.
    """
    if not found.role:
        remedy = "Have yourself put in a group that HEADGATE_OIDC_ROLES maps to a role."
        raise Forbidden(f"{found.issuer} vouches for you, but says nothing that gives you a role here.", remedy)
    machine = found.machine or found.role == Role.CI
    with db.read() as session:
        row = principals.by_subject(session, found.issuer, found.subject)
    if row is None or (row.role, row.kind) != (found.role, _kind(machine)):
        with db.begin() as session:
            row = _meet(session, found, machine)
    scopes = usable(found.role, machine, None)
    return Caller(row.name, found.role, row.person, machine, found.authenticated_at, scopes)


def _kind(machine: bool) -> str:
    return "machine" if machine else "person"


def _meet(session: Session, found: Identity, machine: bool) -> Principal:
    """See that the identity is there, with the role and the kind that it has now."""
    row = principals.by_subject(session, found.issuer, found.subject)
    if row is None:
        for name in _names(found):
            if principals.add(session, name, found.role, _kind(machine), found.issuer, found.subject):
                row = principals.locked(session, [name])[name]
                tell_of(session, row, None)
                return row
            # The name is somebody else's, or this very identity was added at the same moment by another request.
            row = principals.by_subject(session, found.issuer, found.subject)
            if row is not None:
                break
        else:
            raise Conflict("No name is left for this identity.", "Give it another name at the issuer.")
    row = principals.locked(session, [row.name])[row.name]
    if (row.role, row.kind) != (found.role, _kind(machine)):
        row.role, row.kind = found.role, _kind(machine)
        body = {
            "name": openings.person(session, row.name),
            "role": row.role,
            "kind": row.kind,
            "by": None,
            "issuer": row.issuer,
        }
        audit.append(session, "principal.changed", body)
    return row


def _names(found: Identity) -> list[str]:
    """What the identity may be called: as it would like, else that with a mark of its own, which nobody else can have
    by asking for it."""
    mark = hashlib.sha256(f"{found.issuer}\n{found.subject}".encode()).hexdigest()
    wished = _ODD.sub("-", found.name)[:_LONGEST].strip("-")
    marked = [f"{wished or 'somebody'}.{mark[:length]}" for length in (8, 16)]
    return [wished, *marked] if wished else marked
