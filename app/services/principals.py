"""Principals: bearer tokens that are shown once and kept as hashes, and the roles behind them."""

import hashlib
import os
import re
import secrets
from pathlib import Path

from app.db import audit, openings, principals
from app.db.session import Database
from app.domain.errors import Conflict, Invalid, Unauthorized
from app.domain.permissions import Caller, Role

_NAME = re.compile(r"[A-Za-z0-9._@-]{1,100}\Z")


def create(db: Database, name: str, role: str, by: str) -> str:
    """Make a principal and return its token: this is the only time that anybody sees it.

    Raises:
        Invalid: the name or the role is malformed.
        Conflict: the name is taken.
    """
    if not _NAME.match(name):
        raise Invalid("name", "up to 100 letters, digits, dots, dashes, underscores and @", "Choose another name.")
    if role not in set(Role):
        raise Invalid("role", f"{role!r} is unknown", f"Choose one of {', '.join(Role)}.")
    token = "hg_" + secrets.token_urlsafe(32)
    with db.begin() as session:
        if not principals.add(session, name, role, _hash(token)):
            raise Conflict(f"There is already a principal named {name}.", "Choose another name.")
        who = {"name": openings.person(session, name), "by": openings.person(session, by)}
        audit.append(session, "principal.created", {**who, "role": role})
    return token


def authenticate(db: Database, token: str) -> Caller:
    """The caller behind a bearer token.

    Raises:
        Unauthorized: nobody has this token.
    """
    with db.read() as session:
        found = principals.by_token(session, _hash(token))
        if found is None:
            raise Unauthorized("The bearer token is not known.", "Ask an admin for one: headgate token create.")
        return Caller(found.name, found.role)


def bootstrap(db: Database, file: Path) -> bool:
    """On a fresh installation make the first admin and leave its token in `file` (mode 0600); True if it did.

    A token whose file was not written would lock everybody out, so the file comes first.
    """
    with db.read() as session:
        if principals.count(session):
            return False
    token = "hg_" + secrets.token_urlsafe(32)
    draft = file.with_suffix(f".{os.getpid()}")
    draft.touch(mode=0o600)
    draft.write_text(token + "\n")
    with db.begin() as session:
        if not principals.add(session, "admin", "admin", _hash(token)):
            draft.unlink()
            return False
        who = {"name": openings.person(session, "admin"), "by": None}
        audit.append(session, "principal.created", {**who, "role": "admin"})
        draft.replace(file)
    return True


def _hash(token: str) -> str:
    # A token holds 256 random bits, so a plain hash cannot be guessed back and needs no salt.
    return hashlib.sha256(token.encode()).hexdigest()
