"""All SQL about bearer tokens."""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.db.models import Principal, Token
from app.db.session import now


class Shown(NamedTuple):
    """A token that somebody has shown, and whose it is."""

    token: Token
    principal: Principal


def add(session: Session, principal: str, token_hash: str, scopes: Sequence[str] | None, expires_at: datetime) -> Token:
    """Add a token of a principal that exists."""
    row = Token(
        principal=principal,
        token_hash=token_hash,
        scopes=None if scopes is None else " ".join(sorted(scopes)),
        created_at=now(session),
        expires_at=expires_at,
    )
    session.add(row)
    session.flush()
    return row


def by_hash(session: Session, token_hash: str) -> Shown | None:
    """Whose token this is, also where it has expired or was revoked."""
    query = select(Token, Principal).join(Principal, Principal.name == Token.principal)
    found = session.execute(query.where(Token.token_hash == token_hash)).one_or_none()
    return Shown(found[0], found[1]) if found else None


def locked(session: Session, number: int) -> Token | None:
    """A token whose row is held until the transaction ends."""
    return session.scalars(select(Token).where(Token.id == number).with_for_update()).one_or_none()


def of(session: Session, principals: Sequence[str]) -> Sequence[Token]:
    """All tokens of these principals, oldest first."""
    return session.scalars(select(Token).where(Token.principal.in_(principals)).order_by(Token.id)).all()


def none_yet(session: Session) -> bool:
    """Whether no token was ever made."""
    return session.scalars(select(Token.id).limit(1)).one_or_none() is None


def admin_lives(session: Session) -> bool:
    """Whether a token of an admin still counts, with all that an admin may."""
    query = select(Token.id).join(Principal, Principal.name == Token.principal)
    live = (Token.revoked_at.is_(None), Token.expires_at > now(session), Token.scopes.is_(None))
    return session.scalars(query.where(Principal.role == "admin", *live).limit(1)).one_or_none() is not None
