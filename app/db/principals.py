"""All SQL about principals and idempotent answers."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.db.models import IdempotentAnswer, Principal, Setting
from app.db.session import insert_or_ignore, now

_JOINING = "principals.joining"


def add(
    session: Session, name: str, role: str, kind: str, issuer: str | None = None, subject: str | None = None
) -> bool:
    """Add an identity, a person of its own; False where the name, or the issuer's subject, is there already."""
    values = {"name": name, "role": role, "kind": kind, "person": name, "created_at": now(session)}
    return insert_or_ignore(session, Principal, {**values, "issuer": issuer, "subject": subject}) is not None


def get(session: Session, name: str) -> Principal | None:
    return session.get(Principal, name)


def locked(session: Session, names: Collection[str]) -> Mapping[str, Principal]:
    """The identities of these names, as they are now, held until the transaction ends."""
    query = select(Principal).where(Principal.name.in_(names)).order_by(Principal.name).with_for_update()
    return {row.name: row for row in session.scalars(query.execution_options(populate_existing=True))}


def by_subject(session: Session, issuer: str, subject: str) -> Principal | None:
    """The identity that an issuer vouches for."""
    query = select(Principal).where(Principal.issuer == issuer, Principal.subject == subject)
    return session.scalars(query).one_or_none()


def page(session: Session, after: str, limit: int) -> Sequence[Principal]:
    """Identities behind a name, in the order of their names."""
    query = select(Principal).where(Principal.name > after).order_by(Principal.name).limit(limit)
    return session.scalars(query).all()


def line_up_to_join(session: Session) -> None:
    """Wait until nobody else joins people, and keep others waiting until the transaction ends: two who did it at the
    same moment could each miss what the other moves. It comes before every lock on identities."""
    insert_or_ignore(session, Setting, {"name": _JOINING, "value": ""})
    session.execute(select(Setting.name).where(Setting.name == _JOINING).with_for_update())


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
