"""All SQL about fencing tokens: one counter for each model and environment, which only grows.

A counter and not the highest epoch of the promotions: on PostgreSQL two claims at the same moment would read the same
highest one, while the counter's row makes them take turns.
"""

from sqlalchemy import bindparam, select, update
from sqlalchemy.orm import Session

from app.db.columns import table
from app.db.models import Fence
from app.db.session import insert_or_ignore

_FENCES = table(Fence)
_RAISE = (
    update(_FENCES)
    .where(_FENCES.c.model == bindparam("of_model"), _FENCES.c.environment == bindparam("of_environment"))
    .values(token=_FENCES.c.token + 1)
    .returning(_FENCES.c.token)
)


def issue(session: Session, model: str, environment: str) -> int:
    """A token that is higher than all that were given out before; others wait for theirs until this one is committed.

    Whoever asks has locked its promotion before, never after: so nobody waits in a circle.
    """
    where = {"of_model": model, "of_environment": environment}
    token: int | None = session.execute(_RAISE, where).scalar_one_or_none()
    if token is None:
        insert_or_ignore(session, Fence, {"model": model, "environment": environment, "token": 0})
        token = session.execute(_RAISE, where).scalar_one()
    return token


def current(session: Session, model: str, environment: str) -> int:
    """The highest token that was given out, 0 where none was."""
    query = select(Fence.token).where(Fence.model == model, Fence.environment == environment)
    return session.execute(query).scalar_one_or_none() or 0


def catch_up(session: Session, model: str, environment: str, seen: int) -> None:
    """Go on from a token that the outside has seen. It is only higher than ours where the database was put back to an
    older copy, or begun anew: without this, all that Headgate does there would be refused for long."""
    query = update(Fence).where(Fence.model == model, Fence.environment == environment, Fence.token < seen)
    session.execute(query.values(token=seen).execution_options(synchronize_session=False))
