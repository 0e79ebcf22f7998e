"""Reading all that the evidence of a promotion is made of, in one transaction: its leaves, and what they stand on."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from typing import Any

from sqlalchemy.orm import Session

from app.db import audit, openings, promotions
from app.db.models import Promotion
from app.db.openings import Opening
from app.domain.audit import Leaf
from app.domain.errors import Fault, NotFound
from app.domain.notes import Checkpoint
from app.domain.promotion import State
from app.parts import Core
from app.services import digest, trail

MOST_PROOFS = 16
"""So many of the newest checkpoints that were given away are proved to be beginnings of the pack's own."""


@dataclass(frozen=True)
class Step:
    """One finished step: its place in the order in which they ran, from 1, and what it left behind."""

    number: int
    state: str
    entered_at: str
    seconds: float
    evidence: Mapping[str, Any]

    @property
    def file(self) -> str:
        """Its name in the pack."""
        return f"evidence/{self.number:03}-{self.state.lower()}.json"


@dataclass(frozen=True)
class Dossier:
    """One promotion at one size of the trail. `proofs` are the leaves' paths (base64, from the leaf up), `beginnings`
    the sizes of older checkpoints with the proofs that they began this trail. `release` has the parts of the digest
    that was, or is, to be approved; None where it never came to one. `openings` say what hashes in leaves and in the
    evidence stand for."""

    id: int
    model: str
    version: str
    environment: str
    state: str
    request_reason: str
    policy: Mapping[str, Any]
    policy_digest: str
    release: Mapping[str, Any] | None
    release_digest: str | None
    steps: Sequence[Step]
    leaves: Sequence[Leaf]
    proofs: Sequence[Sequence[str]]
    point: Checkpoint
    beginnings: Mapping[int, Sequence[str]]
    openings: Sequence[Opening]

    @property
    def evidence(self) -> dict[str, Mapping[str, Any]]:
        """What the steps left, by state; what was before a new try does not count."""
        again = max((step.number for step in self.steps if step.state == State.FAILED.value), default=0)
        return {step.state: step.evidence for step in self.steps if step.number > again}

    def opened(self, value: Any) -> Any:
        """A value of a leaf with what its hashes stand for, as far as that is known."""
        return self._values.get(value, value)

    @cached_property
    def _values(self) -> Mapping[str, str]:
        return {opening.token: opening.value for opening in self.openings}

    def transitions(self) -> Iterator[Leaf]:
        """The leaves that write a new state."""
        return (leaf for leaf in self.leaves if leaf.kind == "promotion.transition")


def read(core: Core, promotion_id: int, people: bool) -> Dossier:
    """The dossier of a promotion, with or without what is known of people.

    Raises:
        NotFound: there is no such promotion.
        Fault: the audit trail in the database does not hold.
    """
    with core.db.read() as session:
        row = promotions.get(session, promotion_id)
        if row is None:
            raise NotFound(f"There is no promotion {promotion_id}.", "See `headgate status`.")
        origin, tree = audit.head(session)
        leaves = list(audit.of_promotion(session, promotion_id, tree.size))
        if not leaves:
            raise Fault(f"No leaf is about promotion {promotion_id}.", "See `headgate audit verify`; restore a backup.")
        steps = _steps(session, promotion_id)
        told = [*(leaf.body for leaf in leaves), *(step.evidence for step in steps)]
        known = openings.of(session, told) if people else []
        asked = _asked(leaves)
        older = [kept.size for kept in audit.checkpoints(session) if 0 < kept.size < tree.size][-MOST_PROOFS:]
        return Dossier(
            id=row.id,
            model=row.model,
            version=row.version,
            environment=row.environment,
            state=next((leaf.body["to"] for leaf in leaves[::-1] if "to" in leaf.body and "from" in leaf.body), "")
            or State.REQUESTED.value,
            request_reason=_typed(row, leaves[0], known),
            policy=row.policy,
            policy_digest=row.policy_digest,
            release=_parts(session, row, asked) if asked is not None else None,
            release_digest=asked.body["digest"] if asked is not None else None,
            steps=steps,
            leaves=leaves,
            proofs=[trail.path_of(session, leaf, tree) for leaf in leaves],
            point=Checkpoint(origin, tree.size, tree.root()),
            beginnings={size: trail.beginning(session, size, tree.size) for size in older},
            openings=known,
        )


def _typed(row: Promotion, requested: Leaf, known: Sequence[Opening]) -> str:
    """What the requester typed, where the leaf does not have it; nothing of one who is forgotten."""
    by = requested.body.get("by")
    told = by is None or by in {opening.token for opening in known}
    return row.request_reason if told and "reason" not in requested.body else ""


def _asked(leaves: Sequence[Leaf]) -> Leaf | None:
    """The leaf that says which digest waits, or waited, for approval; those before a new try do not count."""
    again = max((leaf.seq for leaf in leaves if leaf.kind == "promotion.retry"), default=0)
    found = (leaf for leaf in leaves[::-1] if leaf.seq > again and leaf.body.get("to") == State.APPROVAL.value)
    return next(found, None)


def _parts(session: Session, row: Promotion, asked: Leaf) -> Mapping[str, Any]:
    kept: Mapping[str, Any] | None = asked.body.get("parts")
    return kept if kept is not None else digest.parts_of(row, promotions.evidence(session, row.id))


def _steps(session: Session, promotion_id: int) -> list[Step]:
    found: list[Step] = []
    for row in promotions.steps(session, promotion_id):
        if row.finished_at is not None:
            seconds = round((row.finished_at - row.entered_at) / timedelta(seconds=1), 3)
            found.append(Step(len(found) + 1, row.state, row.entered_at.isoformat(), seconds, row.evidence))
    return found
