"""Writes docs/permissions.md, every role x action x state, from the one table in app/domain/permissions.py:
`python -m ci.permissions_table`."""

import inspect
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from fastapi import FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.routing import iter_route_contexts

from app.adapters.audit_keys import KeyFiles
from app.adapters.local_store import LocalStore
from app.api.app import create_app
from app.db.session import Database
from app.domain.permissions import ACTIONS, PERMISSIONS, Action, Permission, Role
from app.domain.promotion import FLOW, State
from app.parts import Core
from tests.fakes import FakePolicies, FakeQueue, FakeRegistry

DOCUMENT = Path(__file__).parents[1] / "docs" / "permissions.md"
MAY, NOT_NOW, NEVER = "yes", "409", "403"
STATES = (*FLOW, *(state for state in State if state not in FLOW))
_PROMOTION = "/api/v1/promotions/{promotion_id}"
REQUESTS = {
    Action.LOOK: f"GET {_PROMOTION}",
    Action.APPROVE: f"POST {_PROMOTION}/approvals",
    Action.REJECT: f"POST {_PROMOTION}/approvals",
    Action.REVOKE: f"POST {_PROMOTION}/approvals/revoke",
    Action.CONTINUE: f"POST {_PROMOTION}/decide",
    Action.ROLL_BACK: f"POST {_PROMOTION}/decide",
    Action.BREAK_GLASS: f"POST {_PROMOTION}/break-glass",
    Action.CANCEL: f"POST {_PROMOTION}/cancel",
    Action.RETRY: f"POST {_PROMOTION}/retry",
}
_HEAD = """# Who may do what, and when

Written by `python -m ci.permissions_table` from [app/domain/permissions.py](../app/domain/permissions.py); a test fails
where the two differ, and another one tries every cell over the API.

All else is refused. What a table allows can be narrowed further, never widened:

- a token's scopes are some of its role's permissions, and take the others away;
- the policy says which roles' decisions count, and how many; whoever requested a promotion, or trained the model, and
  machines decide nothing; a decision is on the digest that stands;
- `continue` and `roll-back` answer a canary that asks; one that does not ask is a 409;
- a promotion that is being ended already is a 409, but for `look`, and for `cancel` where it is being cancelled.

Two things that a table cannot show. An admin can make principals, and so another person who approves: the trail has a
leaf for each one made; keep the role for those who run the installation. And whoever may ask for promotions may
`cancel` those of others: that never brings anything to traffic, and a rollout goes back to what was stable.
"""


def cell(role: Role, action: Action, state: State) -> str:
    """What the API answers to this role for this action on a promotion in this state."""
    rule = ACTIONS[action]
    if rule.permission not in PERMISSIONS[role]:
        return NEVER
    return MAY if state in rule.states else NOT_NOW


def document(app: FastAPI) -> str:
    """All of it as Markdown, with the routes of `app`."""
    parts = [
        _HEAD,
        "## Permissions of each role\n",
        _table(["permission", *Role], ([f"`{p}`", *(_mark(p in PERMISSIONS[r]) for r in Role)] for p in Permission)),
        "## Actions on one promotion\n",
        _table(["action", "permission", "request", "states"], map(_action, Action)),
        "## Every role, action and state\n",
        f"`{MAY}`: done. `{NOT_NOW}`: the role may, but not in this state. `{NEVER}`: this role never may.\n",
        *(part for role in Role for part in (f"### {role}\n", _cells(role))),
        "## Every route\n",
        "Those without a permission tell of health, answer the router, or are signed by MLflow.\n",
        _table(["request", "permission", "roles"], routes(app)),
    ]
    return "\n".join(parts)


def routes(app: FastAPI) -> Iterator[list[str]]:
    """Method and path, permission, and roles of each route that the application has."""
    found = [route for route in iter_route_contexts(app.routes) if getattr(route, "dependant", None) is not None]
    for route in sorted(found, key=lambda route: (str(route.path), sorted(route.methods or ()))):
        wanted = sorted(set(_permissions(route.dependant)))
        roles = [role for role in Role if set(wanted) <= PERMISSIONS[role]]
        told = ", ".join(f"`{permission}`" for permission in wanted)
        for method in sorted(route.methods or ()):
            yield [f"`{method} {route.path}`", told or "none", ", ".join(roles) if wanted else "everybody"]


def _permissions(dependant: Dependant) -> Iterator[Permission]:
    """What a route's dependencies ask for: those of app.api.auth are each made with a permission."""
    call = dependant.call
    held = inspect.getclosurevars(call).nonlocals if inspect.isfunction(call) else getattr(call, "__dict__", {})
    yield from (value for value in held.values() if isinstance(value, Permission))
    for below in dependant.dependencies:
        yield from _permissions(below)


def _action(action: Action) -> list[str]:
    rule = ACTIONS[action]
    states = "all" if rule.states == set(State) else ", ".join(s for s in STATES if s in rule.states)
    return [action, f"`{rule.permission}`", f"`{REQUESTS[action]}`", states]


def _cells(role: Role) -> str:
    return _table(["state", *Action], ([state, *(cell(role, action, state) for action in Action)] for state in STATES))


def _mark(given: bool) -> str:
    return "yes" if given else ""


def _table(columns: list[str], rows: Iterable[list[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def application(folder: Path) -> FastAPI:
    """The application over parts that nobody calls: only its routes are looked at."""
    signer = KeyFiles([folder / "audit.key"])
    core = Core(Database("sqlite://"), FakeRegistry(), FakePolicies(), FakeQueue(), "http://headgate", signer)
    return create_app(core, lambda _headers, _body, _now: None, LocalStore(folder))


def written() -> str:
    """The document as it should be now."""
    with tempfile.TemporaryDirectory() as folder:
        return document(application(Path(folder)))


if __name__ == "__main__":
    DOCUMENT.write_text(written(), encoding="utf-8")
