"""Bearer tokens: shown once, kept as hashes, with an end and with scopes; nobody gives away more than he has."""

import hashlib
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from sqlalchemy.orm import Session

from app.db import audit, openings, people, principals, tokens
from app.db.models import Principal, Token
from app.db.session import Database, now
from app.domain.errors import Conflict, Invalid, NotFound, Unauthorized
from app.domain.permissions import Caller, Role
from app.domain.tokens import LIFETIME, check_giver, check_kind, check_lifetime, check_scopes, usable

PREFIX = "hg_"
NAME = re.compile(r"[A-Za-z0-9._@-]{1,100}\Z")
Kind = Literal["person", "machine"]


@dataclass(frozen=True)
class Wanted:
    """A token that is asked for. With a `role` it is that of a new principal, of a `kind` (by default a person, for ci
    a machine) and perhaps one more identity of a `person` who is there; without one it is another token of the
    principal `name`. `scopes` None: all of the role."""

    name: str
    role: str | None = None
    kind: Kind | None = None
    expires: timedelta = LIFETIME
    scopes: Sequence[str] | None = None
    person: str | None = None


def fresh() -> str:
    """A new token, of 256 random bits."""
    return PREFIX + secrets.token_urlsafe(32)


def hashed(token: str) -> str:
    """What is kept of a token."""
    # A token holds 256 random bits, so a plain hash cannot be guessed back and needs no salt.
    return hashlib.sha256(token.encode()).hexdigest()


def issue(db: Database, wanted: Wanted, by: str, giver: Caller | None = None) -> Mapping[str, Any]:
    """Make a token, and its principal where that is new; the answer shows the token this once. Without a `giver`
    nobody's permissions set a limit.

    Raises:
        Invalid: a value is malformed, or the role does not have a scope.
        Conflict: the name is taken, or an issuer vouches for this principal.
        NotFound: there is no such principal or person.
        Forbidden: the giver does not have himself what he would give away.
    """
    check_lifetime(wanted.expires)
    token = fresh()
    with db.begin() as session:
        principal = _existing(session, wanted) if wanted.role is None else _new(session, wanted, wanted.role, by)
        machine = principal.kind == "machine"
        check_scopes(principal.role, machine, wanted.scopes)
        if giver is not None:
            check_giver(giver, usable(principal.role, machine, wanted.scopes))
        row = give(session, principal, token, by, wanted.expires, wanted.scopes)
        return {**shown(principal), **_told(row, now(session)), "token": token}


def _new(session: Session, wanted: Wanted, role: str, by: str) -> Principal:
    if not NAME.match(wanted.name):
        raise Invalid("name", "up to 100 letters, digits, dots, dashes, underscores and @", "Choose another name.")
    machine = wanted.kind == "machine" or (wanted.kind is None and role == Role.CI)
    check_kind(role, machine)
    if not principals.add(session, wanted.name, role, "machine" if machine else "person"):
        remedy = "Choose another name; or leave out the role for another token of that principal."
        raise Conflict(f"There is already a principal named {wanted.name}.", remedy)
    if wanted.person is not None:
        unite(session, wanted.name, wanted.person)
    row = principals.locked(session, [wanted.name])[wanted.name]
    tell_of(session, row, by)
    return row


def unite(session: Session, name: str, other: str) -> bool:
    """Make two identities, and all that are one with either of them, one person; False where they are already. A person
    is never called by the name of her machine. Raises NotFound."""
    for one in (name, other):
        known(session, one)
    principals.line_up_to_join(session)
    rows = principals.locked(session, [name, other])
    person, into = rows[name].person, rows[other].person
    if known(session, into).kind == "machine":
        person, into = into, person
    if person != into:
        people.join(session, person, into)
    return person != into


def _existing(session: Session, wanted: Wanted) -> Principal:
    principal = known(session, wanted.name)
    if principal.issuer is not None:
        remedy = f"Make a principal of another name, and link it: headgate principal link NAME --person {wanted.name}"
        raise Conflict(f"{wanted.name} signs in at {principal.issuer} and has no tokens of ours.", remedy)
    if wanted.kind not in (None, principal.kind):
        raise Conflict(f"{wanted.name} is a {principal.kind}.", "Leave the kind out.")
    if wanted.person is not None:
        raise Conflict(f"{wanted.name} is there already.", "Use `headgate principal link`.")
    return principal


def known(session: Session, name: str) -> Principal:
    """The principal of a name. Raises NotFound."""
    found = principals.get(session, name)
    if found is None:
        raise NotFound(f"There is no principal {name}.", "See `headgate token list`.")
    return found


def tell_of(session: Session, row: Principal, by: str | None) -> None:
    """The leaf of a new principal; `by` None: Headgate itself. The issuer's own name for somebody stays out of it."""
    body = {
        "name": openings.person(session, row.name),
        "role": row.role,
        "kind": row.kind,
        "by": by and openings.person(session, by),
    }
    body["person"] = openings.person(session, row.person)
    audit.append(session, "principal.created", body if row.issuer is None else {**body, "issuer": row.issuer})


def give(
    session: Session, principal: Principal, token: str, by: str | None, expires: timedelta, scopes: Sequence[str] | None
) -> Token:
    """Keep a token's hash, and tell the trail."""
    row = tokens.add(session, principal.name, hashed(token), scopes, now(session) + expires)
    body = {
        "token": row.id,
        "name": openings.person(session, principal.name),
        "role": principal.role,
        "kind": principal.kind,
        "scopes": sorted(usable(principal.role, principal.kind == "machine", scopes)),
        "expires": row.expires_at.isoformat(),
        "by": by and openings.person(session, by),
    }
    audit.append(session, "token.created", body)
    return row


def revoke(db: Database, number: int, by: str) -> Mapping[str, Any]:
    """End a token now; one that was revoked before stays as it is.

    Raises:
        NotFound: there is no such token.
    """
    with db.begin() as session:
        row = tokens.locked(session, number)
        if row is None:
            raise NotFound(f"There is no token {number}.", "See `headgate token list`.")
        principal = known(session, row.principal)
        if row.revoked_at is None:
            row.revoked_at = now(session)
            body = {"token": row.id, "name": openings.person(session, row.principal), "role": principal.role}
            audit.append(session, "token.revoked", {**body, "by": by and openings.person(session, by)})
        return {**shown(principal), **_told(row, now(session))}


def check_live(row: Token, at: datetime) -> None:
    """Raises Unauthorized for a token that counts no more."""
    if row.revoked_at is not None:
        raise Unauthorized(f"The bearer token (number {row.id}) was revoked.", "Ask an admin for another one.")
    if row.expires_at <= at:
        raise Unauthorized(f"The bearer token (number {row.id}) has expired.", "Ask an admin for another one.")


def listed(db: Database, after: str, limit: int) -> dict[str, Any]:
    """Principals behind a name with their tokens, none of which is shown; `cursor` is the name to go on from."""
    with db.read() as session:
        rows, at = principals.page(session, after, limit), now(session)
        found = tokens.of(session, [row.name for row in rows])
    items = [{**shown(row), "tokens": [_told(one, at) for one in found if one.principal == row.name]} for row in rows]
    return {"items": items, "cursor": rows[-1].name if len(rows) == limit else None}


def shown(row: Principal) -> dict[str, Any]:
    """A principal as those see it who may."""
    return {
        "name": row.name,
        "role": row.role,
        "kind": row.kind,
        "person": row.person,
        "issuer": row.issuer,
        "subject": row.subject,
    }


def _told(row: Token, at: datetime) -> dict[str, Any]:
    ended = "revoked" if row.revoked_at else "expired" if row.expires_at <= at else "live"
    return {
        "id": row.id,
        "state": ended,
        "scopes": None if row.scopes is None else row.scopes.split(),
        "created_at": row.created_at.isoformat(),
        "expires_at": row.expires_at.isoformat(),
    }
