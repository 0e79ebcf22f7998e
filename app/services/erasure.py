"""Forgetting a person: her names and words go from the database, and every audit leaf and proof still holds."""

from collections.abc import Mapping
from typing import Any

from app.db import audit, openings, people
from app.db.session import Database
from app.domain.errors import Conflict
from app.services.tokens import known


def erase(db: Database, name: str, by: str) -> Mapping[str, Any]:
    """Forget the person whose identity `name` is, under all her names; returns how many those were and what stands for
    her from now on. What MLflow was told before stays there, and copies of evidence that were taken away.

    Raises:
        NotFound: there is no such principal.
        Conflict: it is a machine, or the caller himself.
    """
    with db.begin() as session:
        row = known(session, name)
        if row.kind == "machine":
            raise Conflict(f"{name} is a machine, and no person to be forgotten.", "Revoke its tokens.")
        if row.person == by:
            raise Conflict("Nobody erases himself.", "Have another admin do it, who is there to answer for it.")
        token = openings.person(session, row.person)
        leaf = {"person": token, "by": openings.person(session, by)}
        known_as = people.names(session, row.person)
        stand_in = f"erased-{token.partition(':')[2][:12]}"
        people.forget(session, known_as, stand_in)
        for each in known_as:
            openings.erase(session, each)
        audit.append(session, "person.erased", leaf)
        return {"person": stand_in, "names": len(known_as)}
