"""All SQL about principals and idempotent answers."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.db.models import IdempotentAnswer, Principal
from app.db.session import insert_or_ignore, now


def add(session: Session, name: str, role: str, token_hash: str) -> bool:
    """Add a principal; False where the name is taken."""
    values = {"name": name, "role": role, "token_hash": token_hash, "created_at": now(session)}
    return insert_or_ignore(session, Principal, values) is not None


def by_token(session: Session, token_hash: str) -> Principal | None:
    return session.scalars(select(Principal).where(Principal.token_hash == token_hash)).one_or_none()


def count(session: Session) -> int:
    return session.execute(select(func.count()).select_from(Principal)).scalar_one()


def answer(session: Session, principal: str, key: str) -> IdempotentAnswer | None:
    return session.get(IdempotentAnswer, (principal, key))


def remember(
    session: Session, principal: str, key: str, body_digest: str, status: int, body: Mapping[str, Any]
) -> bool:
    """Keep an answer under its Idempotency-Key; False where the key is taken."""
    values = {
        "principal": principal,
        "key": key,
        "body_digest": body_digest,
        "status": status,
        "answer": dict(body),
        "created_at": now(session),
    }
    return insert_or_ignore(session, IdempotentAnswer, values) is not None
