"""Approvals: the one function that says whether what people decided lets a promotion go on at this moment."""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from app.domain.freeze import Frozen, frozen
from app.domain.people import Person
from app.domain.permissions import PERMISSIONS, Permission
from app.domain.policy import EnvironmentPolicy

APPROVE, REJECT, REVOKE, CONTINUE, BREAK_GLASS = "approve", "reject", "revoke", "continue", "break-glass"
_BREAKERS = frozenset(role for role, granted in PERMISSIONS.items() if Permission.BREAK_GLASS in granted)


@dataclass(frozen=True)
class Facts:
    """What is known of a promotion: the digest that stands, when it began to wait for approval, under which names its
    requester is known (none where MLflow asked), MLflow's user of the training run, whether a gate proved nothing so
    that a person has to decide, and when its traffic began to move."""

    digest: str
    entered_at: datetime
    requester: AbstractSet[str] = frozenset()
    trainer: str | None = None
    inconclusive: bool = False
    begun: datetime | None = None


@dataclass(frozen=True)
class Decision:
    """One person's word on one digest. `name` is the identity that was shown, `role_now` the role that it has by now
    (None: not known here, the role at the time counts; empty: none any more); `weight` belongs to `continue`."""

    person: str
    role: str
    decision: str
    digest: str
    at: datetime
    name: str = ""
    machine: bool = False
    authenticated_at: datetime | None = None
    revoked: bool = False
    role_now: str | None = None
    weight: int | None = None


@dataclass(frozen=True)
class Objection:
    """Why somebody's word does not count, and what can be done about it."""

    reason: str
    remedy: str = "Ask somebody else."


class Outcome(StrEnum):
    """What follows from what people decided."""

    APPROVED = "approved"
    DENIED = "denied"
    EXPIRED = "expired"
    WAITING = "waiting"


@dataclass(frozen=True)
class Glass:
    """The emergency way: who asked for it, and until when it counts. It is `open` once two people have."""

    by: tuple[str, ...]
    until: datetime
    open: bool

    def as_json(self) -> dict[str, Any]:
        """For answers."""
        return {"by": list(self.by), "until": self.until.isoformat(), "open": self.open}


@dataclass(frozen=True)
class Verdict:
    """`enough` says that people's words suffice; nothing may move all the same while it is `frozen`. `missing` counts
    the approvals that are, `missing_roles` those of them that must come from a role; `excluded` says of people why
    their words do not count."""

    outcome: Outcome
    enough: bool
    required: int
    expires_at: datetime
    approved_by: tuple[str, ...] = ()
    missing: int = 0
    missing_roles: Mapping[str, int] = field(default_factory=dict)
    excluded: Mapping[str, str] = field(default_factory=dict)
    rejected_by: str | None = None
    frozen: Frozen | None = None
    glass: Glass | None = None

    def as_evidence(self) -> dict[str, Any]:
        """What is kept of it where it lets a promotion go on."""
        glass = self.glass
        return {
            "required": self.required,
            "approved_by": [Person(name) for name in self.approved_by],
            "missing": self.missing,
            "break_glass": glass and {**glass.as_json(), "by": [Person(name) for name in glass.by]},
        }

    def as_json(self) -> dict[str, Any]:
        """For answers and progress."""
        cold, glass = self.frozen, self.glass
        return {
            "outcome": self.outcome.value,
            "required": self.required,
            "approved_by": list(self.approved_by),
            "missing": self.missing,
            "missing_roles": dict(self.missing_roles),
            "excluded": dict(self.excluded),
            "rejected_by": self.rejected_by,
            "expires_at": self.expires_at.isoformat(),
            "frozen": cold and {"reason": cold.reason, "until": cold.until and cold.until.isoformat()},
            "break_glass": glass and glass.as_json(),
        }


def judge(policy: EnvironmentPolicy, facts: Facts, decisions: Sequence[Decision], now: datetime) -> Verdict:
    """Whether this promotion may go on now. The same words give the same answer when they come in, while they are
    waited for, and before each move of traffic.

    A rejection vetoes. Words on another digest, words that were taken back, and those of somebody excluded count for
    nothing; one person counts once. Words have to come before the question expires, and an approval counts for that
    long from when it was given; so does break-glass for its time box. That is measured where traffic begins to move,
    and not after it; a freeze holds at any moment.
    """
    rules, moment = policy.approvals, facts.begun or now
    required = max(rules.required, sum(rules.by_role.values()), int(facts.inconclusive))
    expires_at = facts.entered_at + rules.expires
    words = sorted((d for d in decisions if d.digest == facts.digest and not d.revoked), key=lambda d: d.at)
    valid = [d for d in words if objection(policy, facts, d) is None]
    timely = [d for d in valid if d.at < expires_at or not required]
    approvers = {d.person: d.role for d in timely if d.decision == APPROVE and moment < d.at + rules.expires}
    short = {r: n - sum(role == r for role in approvers.values()) for r, n in rules.by_role.items()}
    short = {role: count for role, count in short.items() if count > 0}
    missing = max(required - len(approvers), sum(short.values()), 0)
    glass = _glass(policy, timely, moment)
    through = glass is not None and glass.open
    cold = None if through else frozen(policy.freeze, now)
    rejected_by = next((d.person for d in valid if d.decision == REJECT), None)
    enough = missing == 0 or through
    outcome = Outcome.APPROVED if enough and cold is None else Outcome.WAITING
    if rejected_by is not None:
        outcome, enough = Outcome.DENIED, False
    elif not enough and moment >= expires_at:
        outcome = Outcome.EXPIRED
    return Verdict(
        outcome=outcome,
        enough=enough,
        required=required,
        expires_at=expires_at,
        approved_by=tuple(sorted(approvers)),
        missing=missing,
        missing_roles=short,
        excluded=_excluded(policy, facts, words),
        rejected_by=rejected_by,
        frozen=cold,
        glass=glass,
    )


def objection(policy: EnvironmentPolicy, facts: Facts, word: Decision) -> Objection | None:
    """Why this word does not count, whoever else has said what; None where it does."""
    rules, who = policy.approvals, word.person
    if word.machine:
        return Objection(f"{who} is a machine, and machines never decide.", "A person has to.")
    if word.role_now is not None and word.role_now != word.role:
        return Objection(f"{who} is no longer {word.role}.", "Whoever has the role by now decides.")
    if word.decision == BREAK_GLASS and word.role not in _BREAKERS:
        return Objection(f"{who} is {word.role} and may not break the glass.")
    if word.decision in (APPROVE, REJECT) and word.role not in rules.roles:
        return Objection(f"The policy asks for a {' or '.join(rules.roles)}; {who} is {word.role}.")
    if rules.prevent_self_review and facts.requester & {who, word.name}:
        return Objection(f"{who} requested this promotion and cannot decide on it.")
    if rules.exclude_trainer and facts.trainer and any(same_name(facts.trainer, n) for n in (who, word.name)):
        return Objection(f"{who} trained this version, as MLflow has it, and cannot decide on it.")
    if rules.fresh is not None and word.decision != REJECT:
        proved = word.authenticated_at
        if proved is None or word.at - proved > rules.fresh:
            told = f"This takes a login that is at most {rules.fresh} old"
            return Objection(f"{told}; {who}'s is {'not known' if proved is None else 'older'}.", "Log in anew.")
    return None


def same_name(one: str, other: str) -> bool:
    """Whether two names may be one person's: the same up to an @, in any case. It compares names, not people."""
    return bool(other) and one.partition("@")[0].casefold() == other.partition("@")[0].casefold()


def _glass(policy: EnvironmentPolicy, valid: Sequence[Decision], moment: datetime) -> Glass | None:
    """Each word counts for the time box; the glass is broken while those of two people do."""
    if policy.break_glass is None:
        return None
    box = policy.break_glass.within
    said = {d.person: d.at for d in valid if d.decision == BREAK_GLASS and d.at <= moment < d.at + box}
    if not said:
        return None
    latest = sorted(said, key=lambda person: said[person])[-2:]
    return Glass(tuple(latest), said[latest[0]] + box, len(latest) == 2)


def _excluded(policy: EnvironmentPolicy, facts: Facts, words: Sequence[Decision]) -> dict[str, str]:
    """Who cannot decide, as far as that is known before they try, and whose words do not count."""
    known = dict[str, str]()
    if policy.approvals.prevent_self_review:
        known |= dict.fromkeys(sorted(facts.requester), "requested this promotion")
    if policy.approvals.exclude_trainer and facts.trainer:
        known[facts.trainer] = "trained this version, as MLflow has it"
    found = ((word.person, objection(policy, facts, word)) for word in words)
    return known | {person: why.reason for person, why in found if why is not None and person not in known}
