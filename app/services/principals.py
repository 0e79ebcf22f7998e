"""Principals: people and machines, which of them are one person, and who a bearer token belongs to."""

from collections.abc import Mapping
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

from sqlalchemy.orm import Session

from app.db import audit, openings, principals, tokens
from app.db.session import Database, now
from app.domain.errors import Unauthorized
from app.domain.permissions import Caller, Role
from app.domain.tokens import LONGEST, usable
from app.ports import Identities
from app.services import sign_in
from app.services.tokens import PREFIX, Wanted, check_live, fresh, give, hashed, issue, shown, tell_of, unite

ADMIN = "admin"


def create(db: Database, name: str, role: str, by: str) -> str:
    """Make a principal and return its token: this is the only time that anybody sees it.

    Raises:
        Invalid: the name or the role is malformed.
        Conflict: the name is taken.
    """
    return str(issue(db, Wanted(name, role), by)["token"])


def authenticate(db: Database, token: str, identities: Identities | None = None) -> Caller:
    """The caller behind a bearer token: one of ours, or one of the configured issuer.

    Raises:
        Unauthorized: nobody has this token, or it counts no more.
        Forbidden: the issuer's token holds, but gives no role here.
        Transient: the issuer, or the database, is away.
    """
    if identities is not None and not token.startswith(PREFIX):
        return sign_in.caller(db, identities.verify(token))
    with db.read() as session:
        found = tokens.by_hash(session, hashed(token))
        if found is None:
            raise Unauthorized("The bearer token is not known.", "Ask an admin for one: headgate token create.")
        check_live(found.token, now(session))
    row, machine = found.principal, found.principal.kind == "machine"
    scopes = usable(row.role, machine, found.token.scopes and found.token.scopes.split())
    return Caller(row.name, row.role, row.person, machine, found.token.created_at, scopes)


def link(db: Database, name: str, person: str, by: str) -> Mapping[str, Any]:
    """Say that two identities are one person (or that a machine is that person's); all who were one with either of them
    are one from now on. There is no way back: who was one person must not become two.

    Raises:
        NotFound: one of them is not there.
    """
    with db.begin() as session:
        news = unite(session, name, person)
        row = principals.locked(session, [name])[name]
        if news:
            body = {"name": openings.person(session, name), "role": row.role, "with": openings.person(session, person)}
            one = {"person": openings.person(session, row.person), "by": openings.person(session, by)}
            audit.append(session, "principal.linked", {**body, **one})
        return shown(row)


def bootstrap(db: Database, file: Path, anew: bool = True) -> bool:
    """On a fresh installation make the first admin and leave its token in `file` (mode 0600); True if it did. With
    `anew` also where no admin's token counts any more, so that nobody is locked out of his own machine.

    A token whose file was not written would lock everybody out, so the file comes first.
    """
    with db.read() as session:
        if not _is_needed(session, anew):
            return False
    token = fresh()
    # A draft of its own: process ids are no names where containers share the folder.
    with NamedTemporaryFile("w", dir=file.parent, prefix=f".{file.name}.", delete=False) as draft:
        draft.write(token + "\n")
    try:
        return _first_admin(db, token, Path(draft.name), file, anew)
    finally:
        Path(draft.name).unlink(missing_ok=True)


def _first_admin(db: Database, token: str, draft: Path, file: Path, anew: bool) -> bool:
    with db.begin() as session:
        if principals.add(session, ADMIN, Role.ADMIN, "person"):
            row = principals.locked(session, [ADMIN])[ADMIN]
            tell_of(session, row, None)
        else:
            # Several processes may start at the same moment: the row is the line in which they stand.
            row = principals.locked(session, [ADMIN])[ADMIN]
            if not _is_needed(session, anew) or row.role != Role.ADMIN or row.issuer is not None:
                return False
        give(session, row, token, None, LONGEST, None)
        draft.replace(file)
    return True


def _is_needed(session: Session, anew: bool) -> bool:
    return tokens.none_yet(session) or (anew and not tokens.admin_lives(session))
