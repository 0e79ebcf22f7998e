"""What a bearer token may be: how long it lives, what it may be used for, and who may give it away."""

from collections.abc import Collection
from datetime import timedelta

from app.domain.errors import Forbidden, Invalid
from app.domain.permissions import PERMISSIONS, Caller, Permission, Role

LIFETIME = timedelta(days=90)
LONGEST = timedelta(days=365)
# What a machine never gets, whatever its role: decisions are people's.
DECIDING = frozenset({Permission.DECIDE, Permission.BREAK_GLASS})


def usable(role: str, machine: bool, scopes: Collection[str] | None) -> frozenset[str]:
    """The permissions of a token: those of the role, less what its scopes leave out, less what machines never get."""
    granted = PERMISSIONS[Role(role)] - (DECIDING if machine else frozenset())
    return frozenset(granted if scopes is None else granted & frozenset(scopes))


def check_kind(role: str, machine: bool) -> None:
    """Raises Invalid for a role that people or machines cannot have."""
    if role not in set(Role):
        raise Invalid("role", f"{role!r} is unknown", f"Choose one of {', '.join(Role)}.")
    if role == Role.CI and not machine:
        raise Invalid("kind", "ci is always a machine", "Leave the kind out, or choose another role.")
    if role == Role.REVIEWER and machine:
        raise Invalid("role", "a machine never decides", "Choose ci or requester.")


def check_lifetime(expires: timedelta) -> None:
    """Raises Invalid for a lifetime that no token may have."""
    if not timedelta(minutes=1) <= expires <= LONGEST:
        raise Invalid("expires", f"between one minute and {LONGEST.days} days", f"Leave it out for {LIFETIME.days}d.")


def check_scopes(role: str, machine: bool, scopes: Collection[str] | None) -> None:
    """Raises Invalid for scopes that the role does not have: they would promise what the token cannot do."""
    if scopes is not None and not scopes:
        raise Invalid("scopes", "a token without any scope is of no use", "Leave them out for all of the role.")
    beyond = sorted(frozenset(scopes or ()) - usable(role, machine, None))
    if beyond:
        have = ", ".join(sorted(usable(role, machine, None)))
        raise Invalid("scopes", f"{role} does not have {', '.join(beyond)}", f"It has {have}.")


def check_giver(giver: Caller, given: Collection[str]) -> None:
    """Raises Forbidden where somebody would give away what he may not do himself: a narrow token makes no wide one."""
    beyond = sorted(permission for permission in given if not giver.may(permission))
    if beyond:
        remedy = "Use a token that has these scopes, or choose a narrower role or --scope."
        raise Forbidden(f"{giver.name} may not give away {', '.join(beyond)}: this token has it not.", remedy)
