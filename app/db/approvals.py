"""All SQL about what people decided on a promotion, and about the digests that they decided on."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.db.models import Approval, DigestRow, Principal
from app.db.session import insert_or_ignore


def add(session: Session, row: Approval) -> None:
    session.add(row)
    session.flush()


def of(session: Session, promotion_id: int) -> Sequence[Approval]:
    """All decisions on a promotion, oldest first, as the database has them now."""
    query = select(Approval).where(Approval.promotion_id == promotion_id).order_by(Approval.id)
    return session.scalars(query.execution_options(populate_existing=True)).all()


def roles(session: Session, names: Collection[str]) -> dict[str, str]:
    """The roles that these identities have now, empty for a machine, which decides nothing whatever it was before; one
    that is not known here is missing."""
    query = select(Principal.name, Principal.role, Principal.kind).where(Principal.name.in_(sorted(set(names))))
    return {row.name: row.role if row.kind == "person" else "" for row in session.execute(query)}


def keep_parts(session: Session, promotion_id: int, digest: str, parts: Mapping[str, str]) -> None:
    """Keep what a digest that stands for approval from now on was made of."""
    insert_or_ignore(session, DigestRow, {"promotion_id": promotion_id, "digest": digest, "parts": dict(parts)})


def parts(session: Session, promotion_id: int, digest: str | None) -> dict[str, Any] | None:
    """What a digest of this promotion was made of; None where it never stood here."""
    found = session.get(DigestRow, (promotion_id, digest)) if digest is not None else None
    return found.parts if found is not None else None


def promotion_of(session: Session, digest: str) -> int | None:
    """The newest promotion for which this digest stood."""
    query = select(DigestRow.promotion_id).where(DigestRow.digest == digest).order_by(DigestRow.promotion_id.desc())
    return session.scalars(query.limit(1)).one_or_none()
