"""Every role x action x state over the API answers as the table in the domain says, and the document is that table."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import update

from app.api.app import create_app
from app.db.models import Promotion
from app.db.session import Database
from app.domain.permissions import ACTIONS, PERMISSIONS, Action, Role
from app.domain.policy import Approvals, default_policy
from app.domain.promotion import FLOW, State
from app.services import principals, promotions
from ci.permissions_table import DOCUMENT, MAY, NEVER, NOT_NOW, REQUESTS, cell, routes, written
from tests.fakes import quick
from tests.plant import World
from tests.serving import served

ASKING = {"question": "nobody calls it", "weight": 10, "history": []}
Body = Callable[[Mapping[str, Any]], dict[str, Any] | None]


def deciding(decision: str) -> Body:
    """The body of a decision on what the promotion is shown as."""
    return lambda shown: {"decision": decision, "digest": shown["digest"] or "sha256:" + "0" * 64, "reason": "because"}


BODIES: Mapping[Action, Body] = {
    Action.LOOK: lambda shown: None,
    Action.APPROVE: deciding("approve"),
    Action.REJECT: deciding("reject"),
    Action.CONTINUE: lambda shown: {"decision": "continue", "reason": "because"},
    Action.ROLL_BACK: lambda shown: {"decision": "rollback", "reason": "because"},
    Action.CANCEL: lambda shown: {"reason": "because"},
    Action.RETRY: lambda shown: None,
    Action.REVOKE: lambda shown: {"reason": "because"},
    Action.BREAK_GLASS: lambda shown: {"digest": shown["digest"] or "sha256:" + "0" * 64, "reason": "because"},
}


class Stage:
    """An installation with a promotion in each state; whatever an action has changed is replaced by a new one."""

    def __init__(self, world: World, http: httpx.Client) -> None:
        self.world, self._http = world, http
        self._ready: dict[State, int] = {}
        self._tokens = {role: principals.create(world.database, f"the-{role}", role, "test") for role in Role}
        self._made = 0

    def act(self, role: Role, action: Action, state: State) -> httpx.Response:
        """What the API answers to this role for a promotion that is in this state."""
        if action is Action.REVOKE and cell(role, action, state) == MAY:
            # Only what was approved can be taken back.
            return self._ask(role, action, self._promotion(state, role))
        number = self._ready.pop(state, 0) or self._promotion(state)
        answer = self._ask(role, action, number)
        if action is Action.LOOK or not answer.is_success:
            assert self.world.show(number)["state"] == state.value
            self._ready[state] = number
        return answer

    def _ask(self, role: Role, action: Action, number: int) -> httpx.Response:
        method, _, path = REQUESTS[action].partition(" ")
        return self._http.request(
            method,
            path.replace("{promotion_id}", str(number)),
            headers={"Authorization": f"Bearer {self._tokens[role]}"},
            json=BODIES[action](self.world.show(number)),
        )

    def _promotion(self, state: State, approver: Role | None = None) -> int:
        """A new one of a model of its own: it runs as far as APPROVAL where the state lies behind it and is looked at
        closely, is approved where that is asked for, and is put into all other states."""
        self._made += 1
        model = f"model-{self._made}"
        self.world.registry.register(model, "1", self.world.folder / "model-1")
        rules = Approvals(roles=("reviewer", "admin"))  # the policy narrows the table; this one does not
        if state is State.ROLLOUT and approver is None:
            rules = Approvals(required=0)
        self.world.policies.known[model] = quick(default_policy(model), approvals=rules)
        number = promotions.request(self.world.core, model, "1", "production", "", "somebody").id
        for reached in FLOW[: FLOW.index(state)] if state in (State.APPROVAL, State.ROLLOUT) else ():
            if reached is State.APPROVAL and approver is not None:
                assert self._ask(approver, Action.APPROVE, number).is_success
            self.world.runner._advance_once(number)
        if state is State.APPROVAL and approver is not None:
            assert self._ask(approver, Action.APPROVE, number).is_success
        with self.world.database.begin() as session:
            progress = ASKING if state is State.ROLLOUT else {}
            row = update(Promotion).where(Promotion.id == number)
            session.execute(row.values(state=state.value, progress=progress))
        return number


def application(world: World) -> FastAPI:
    return create_app(world.core, lambda *_: None, world.store)


@pytest.fixture(scope="module")
def stage(new_database: Callable[[], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    database = Database(new_database())
    world = World(database, tmp_path_factory.mktemp("world"))
    with served(application(world)) as url, httpx.Client(base_url=url, trust_env=False) as http:
        yield Stage(world, http)
    database.close()


@pytest.mark.parametrize("action", Action)
@pytest.mark.parametrize("role", Role)
def test_every_cell(stage: Stage, role: Role, action: Action) -> None:
    answers = {state: stage.act(role, action, state) for state in State}
    told = {state: MAY if answer.is_success else str(answer.status_code) for state, answer in answers.items()}
    assert told == {state: cell(role, action, state) for state in State}
    for answer in answers.values():
        assert answer.is_success or answer.json()["title"]


def test_each_action_is_a_route_that_asks_for_its_permission(stage: Stage) -> None:
    found = {request: permission for request, permission, _ in routes(application(stage.world))}
    for action in Action:
        assert found[f"`{REQUESTS[action]}`"] == f"`{ACTIONS[action].permission}`", action


def test_an_answer_of_each_kind_is_in_the_table() -> None:
    """So that a table that forbids, or allows, everything does not pass by itself."""
    cells = {cell(role, action, state) for role in Role for action in Action for state in State}
    assert cells == {MAY, NOT_NOW, NEVER}
    assert set(ACTIONS) == set(BODIES) == set(REQUESTS) == set(Action) and set(PERMISSIONS) == set(Role)


def test_the_document_is_up_to_date() -> None:
    assert DOCUMENT.read_text(encoding="utf-8") == written(), "run: python -m ci.permissions_table"
