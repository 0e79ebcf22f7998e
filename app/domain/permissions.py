"""Who may do what, and when: roles, permissions, the actions on a promotion, and the states in which each makes sense.

This is the only table of it: the API, the services, the document of all cells and its tests read it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from app.domain.promotion import OPEN, State


class Role(StrEnum):
    """What somebody is here for."""

    REQUESTER = "requester"
    REVIEWER = "reviewer"
    ADMIN = "admin"
    AUDITOR = "auditor"
    CI = "ci"


class Permission(StrEnum):
    """What a route asks for; a token's scopes are some of these."""

    READ = "read"
    PROMOTE = "promote"
    DECIDE = "decide"
    CANCEL = "cancel"
    RETRY = "retry"
    BREAK_GLASS = "break-glass"
    AUDIT = "audit"
    ADMINISTER = "administer"


PERMISSIONS: Mapping[Role, frozenset[Permission]] = {
    Role.REQUESTER: frozenset({Permission.READ, Permission.PROMOTE, Permission.CANCEL}),
    Role.REVIEWER: frozenset({Permission.READ, Permission.DECIDE, Permission.CANCEL, Permission.BREAK_GLASS}),
    Role.CI: frozenset({Permission.READ, Permission.PROMOTE, Permission.CANCEL}),
    Role.AUDITOR: frozenset({Permission.READ, Permission.AUDIT}),
    Role.ADMIN: frozenset(Permission),
}


class Action(StrEnum):
    """What can be done to one promotion."""

    LOOK = "look"
    APPROVE = "approve"
    REJECT = "reject"
    REVOKE = "revoke"
    CONTINUE = "continue"
    ROLL_BACK = "roll-back"
    BREAK_GLASS = "break-glass"
    CANCEL = "cancel"
    RETRY = "retry"


@dataclass(frozen=True)
class Rule:
    """The permission that an action asks for, and the states in which it makes sense."""

    permission: Permission
    states: frozenset[State]


ACTIONS: Mapping[Action, Rule] = {
    Action.LOOK: Rule(Permission.READ, frozenset(State)),
    Action.APPROVE: Rule(Permission.DECIDE, frozenset({State.APPROVAL})),
    Action.REJECT: Rule(Permission.DECIDE, frozenset({State.APPROVAL})),
    Action.REVOKE: Rule(Permission.DECIDE, frozenset({State.APPROVAL, State.ROLLOUT})),
    Action.CONTINUE: Rule(Permission.DECIDE, frozenset({State.ROLLOUT})),
    Action.ROLL_BACK: Rule(Permission.DECIDE, frozenset({State.ROLLOUT})),
    Action.BREAK_GLASS: Rule(Permission.BREAK_GLASS, frozenset({State.APPROVAL})),
    Action.CANCEL: Rule(Permission.CANCEL, OPEN),
    Action.RETRY: Rule(Permission.RETRY, frozenset({State.FAILED})),
}


@dataclass(frozen=True)
class Caller:
    """Who makes a request.

    `name` is the identity that was shown, `person` the one whose identity it is: two tokens of one person share it, so
    that she counts once. A machine never decides. `authenticated_at` is when the caller last proved to be it.
    """

    name: str
    role: str
    person: str = ""
    machine: bool = False
    authenticated_at: datetime | None = None
    scopes: frozenset[str] | None = None

    @property
    def counts_as(self) -> str:
        """The person's name, under which linked identities are one."""
        return self.person or self.name

    def may(self, permission: str) -> bool:
        """Whether the role has this permission and the token's scopes do not take it away."""
        granted = PERMISSIONS[Role(self.role)] if self.role in set(Role) else frozenset[Permission]()
        return permission in granted and (self.scopes is None or permission in self.scopes)
