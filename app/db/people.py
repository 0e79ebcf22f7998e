"""All SQL that finds a person wherever she is named outside of the audit trail: to make two one, or to forget one."""

import re
from collections.abc import Collection, Mapping
from typing import Any

from sqlalchemy import delete, or_, select, update
from sqlalchemy.orm import Session

from app.db.models import Approval, IdempotentAnswer, Principal, Promotion, Token

ERASED = "(erased)"


def join(session: Session, person: str, into: str) -> None:
    """Make all identities of one person those of another, and what they have asked for and decided."""
    for column in (Principal.person, Approval.person, Approval.revoked_by, Promotion.requester):
        session.execute(update(column.class_).where(column == person).values({column: into}))


def names(session: Session, person: str) -> list[str]:
    """All names of a person, her own identities' and the one they are known under, machines' left out."""
    query = select(Principal.name).where(Principal.person == person, Principal.kind == "person")
    return sorted({person, *session.scalars(query)})


def forget(session: Session, known_as: Collection[str], stand_in: str) -> None:
    """Put `stand_in` in the place of these names, and `ERASED` in that of what she typed. Her identities and tokens go;
    machines of hers stay, as nobody's."""
    _forget_promotions(session, known_as, stand_in)
    mine = or_(Approval.principal.in_(known_as), Approval.person.in_(known_as))
    session.execute(update(Approval).where(mine).values(principal=stand_in, person=stand_in, reason=ERASED))
    session.execute(update(Approval).where(Approval.revoked_by.in_(known_as)).values(revoked_by=stand_in))
    session.execute(delete(IdempotentAnswer).where(IdempotentAnswer.principal.in_(known_as)))
    session.execute(delete(Token).where(Token.principal.in_(known_as)))
    session.execute(delete(Principal).where(Principal.name.in_(known_as)))
    session.execute(update(Principal).where(Principal.person.in_(known_as)).values(person=Principal.name))


def _forget_promotions(session: Session, known_as: Collection[str], stand_in: str) -> None:
    decided = select(Approval.promotion_id).where(
        or_(Approval.principal.in_(known_as), Approval.person.in_(known_as), Approval.revoked_by.in_(known_as))
    )
    found = or_(
        Promotion.id.in_(decided),
        Promotion.requested_by.in_(known_as),
        Promotion.requester.in_(known_as),
        Promotion.stop["by"].as_string().in_(known_as),
    )
    # Rows are locked in the order of their numbers, as nobody else locks more than one.
    for row in session.scalars(select(Promotion).where(found).order_by(Promotion.id).with_for_update()):
        _forget_one(row, known_as, stand_in)
    session.flush()


def _forget_one(row: Promotion, known_as: Collection[str], stand_in: str) -> None:
    if {row.requested_by, row.requester} & set(known_as):
        row.request_reason = row.request_reason and ERASED
        row.requested_by, row.requester = stand_in, stand_in
    if row.stop is not None and row.stop.get("by") in known_as:
        typed, row.stop = row.stop["reason"], {**row.stop, "by": stand_in, "reason": ERASED}
        row.reason = ERASED if row.reason == typed else row.reason
    pattern = re.compile("|".join(rf"(?<![\w.@-]){re.escape(name)}(?![\w@-])" for name in known_as))
    row.reason = pattern.sub(stand_in, row.reason)
    row.progress = _renamed(row.progress, pattern, stand_in)


def _renamed(value: Any, pattern: re.Pattern[str], stand_in: str) -> Any:
    if isinstance(value, str):
        return pattern.sub(stand_in, value)
    if isinstance(value, Mapping):
        return {pattern.sub(stand_in, key): _renamed(part, pattern, stand_in) for key, part in value.items()}
    if isinstance(value, list):
        return [_renamed(part, pattern, stand_in) for part in value]
    return value
