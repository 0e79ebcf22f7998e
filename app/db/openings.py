"""All SQL about openings: what the salted hashes that stand in audit leaves for names and typed words stand for.

A leaf is for ever, personal data is not: a leaf holds HMAC-SHA256 with a salt of its own, and the salt with the value
lies here. Whoever gets both can check the leaf; when the row is gone, the leaf still holds and says nothing of anybody.
"""

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from app.db.columns import storable
from app.db.models import OpeningRow
from app.db.session import insert_or_ignore
from app.domain.people import Person

PERSON, SAID = "person", "said"
_TOKEN = re.compile(rf"(?:{PERSON}|{SAID}):[0-9a-f]{{64}}")


@dataclass(frozen=True)
class Opening:
    """`token` is what leaves hold; `salt` is 32 bytes in hex; HMAC-SHA256(salt, value in UTF-8) is the token's hash."""

    token: str
    salt: str
    value: str


def commitment(kind: str, salt: str, value: str) -> str:
    """What stands in leaves for a value: `<kind>:<64 hex digits>`."""
    return f"{kind}:{hmac.new(bytes.fromhex(salt), value.encode(), hashlib.sha256).hexdigest()}"


def person(session: Session, name: str) -> str:
    """What stands in leaves for a person: always the same, so that leaves show who is another and who is not."""
    query = select(OpeningRow.token).where(OpeningRow.person == name, OpeningRow.kind == PERSON)
    while (token := session.scalars(query).one_or_none()) is None:
        # Somebody else may add the same person at this moment: the index lets one in, and both read that one.
        _add(session, PERSON, name, name)
    return token


def said(session: Session, text: str, by: str) -> str:
    """What stands in a leaf for words that a person typed."""
    return _add(session, SAID, text, by)


def _add(session: Session, kind: str, value: str, by: str) -> str:
    salt, value = secrets.token_hex(32), storable(value)  # what is kept must be what was hashed
    token = commitment(kind, salt, value)
    insert_or_ignore(session, OpeningRow, {"token": token, "kind": kind, "person": by, "salt": salt, "value": value})
    return token


def tokens(value: Any) -> Iterable[str]:
    """All that stands for personal data in a JSON value."""
    if isinstance(value, str) and _TOKEN.fullmatch(value):
        yield value
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from tokens(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from tokens(part)


def sealed(session: Session, value: Any) -> Any:
    """A JSON value with each `Person` in it replaced by what stands for that person."""
    if isinstance(value, Person):
        return person(session, value)
    if isinstance(value, Mapping):
        return {key: sealed(session, part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [sealed(session, part) for part in value]
    return value


def of(session: Session, values: Iterable[Any]) -> list[Opening]:
    """The openings of all that stands in these JSON values, as far as they are still there, in the order of tokens."""
    wanted = sorted({token for value in values for token in tokens(value)})
    found: list[Opening] = []
    for start in range(0, len(wanted), 500):
        query = select(OpeningRow).where(OpeningRow.token.in_(wanted[start : start + 500])).order_by(OpeningRow.token)
        found += [Opening(row.token, row.salt, row.value) for row in session.scalars(query)]
    return found


def opened(session: Session, value: Any) -> Any:
    """A JSON value with every token replaced by what it stands for; one that was erased stays as it is."""
    known = {opening.token: opening.value for opening in of(session, [value])}
    return _replaced(value, known)


def erase(session: Session, name: str) -> int:
    """Forget a person's name and words; returns how many openings went."""
    return len(session.scalars(delete(OpeningRow).where(OpeningRow.person == name).returning(OpeningRow.token)).all())


def _replaced(value: Any, known: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        return known.get(value, value)
    if isinstance(value, Mapping):
        return {key: _replaced(part, known) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_replaced(part, known) for part in value]
    return value
