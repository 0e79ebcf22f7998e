"""One lane: a model whose versions are asked for in turn, by a data scientist in MLflow and a reviewer over REST."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any

import httpx

from app.domain.promotion import FLOW, State
from tests.crash.installation import ENVIRONMENT, answer
from tests.crash.tally import Tally

ASK, WATCH, SETTLE, REST = "ask", "watch", "settle", "rest"
_LOOK_SECONDS = 0.3
CANCELLED = 0.15
"""The share of promotions that somebody cancels on their way."""


@dataclass
class People:
    """Hands in MLflow, and at the API an admin's and a reviewer's: nobody approves what he asked for."""

    registry: httpx.Client
    api: httpx.Client
    reviewer: httpx.Client

    def ask_over_rest(self, model: str, version: str, key: str) -> bool:
        """Open the promotion at the API; asked again with the same key where no answer came."""
        body = {"model": model, "version": version, "environment": ENVIRONMENT, "reason": "the crash harness"}
        headers = {"Idempotency-Key": key}
        done = answer(self.api, "POST", "/api/v1/promotions", json=body, headers=headers)
        return done is not None and done.is_success

    def ask_in_mlflow(self, model: str, version: str) -> bool:
        """Set the alias that asks for the environment."""
        body = {"name": model, "alias": f"to-{ENVIRONMENT}", "version": version}
        done = answer(self.registry, "POST", "/api/2.0/mlflow/registered-models/alias", json=body)
        return done is not None and done.is_success

    def aliases(self, model: str) -> dict[str, str]:
        found = self.registry.get("/api/2.0/mlflow/registered-models/get", params={"name": model}).raise_for_status()
        return {row["alias"]: row["version"] for row in found.json()["registered_model"].get("aliases", [])}

    def tags(self, model: str, version: str) -> dict[str, str]:
        where = {"name": model, "version": version}
        found = self.registry.get("/api/2.0/mlflow/model-versions/get", params=where).raise_for_status()
        return {tag["key"]: tag["value"] for tag in found.json()["model_version"].get("tags", [])}

    def approve(self, promotion: int, digest: str) -> bool:
        """Approve what was seen; asked again where no answer came, which must not count twice."""
        body = {"decision": "approve", "digest": digest, "reason": "the crash harness"}
        done = answer(self.reviewer, "POST", f"/api/v1/promotions/{promotion}/approvals", json=body)
        return done is not None and (done.is_success or done.status_code == httpx.codes.CONFLICT)

    def cancel(self, promotion: int) -> bool:
        """Ask for the end of it; that it has ended already is an answer, too."""
        done = answer(self.api, "POST", f"/api/v1/promotions/{promotion}/cancel", json={"reason": "the crash harness"})
        return done is not None and (done.is_success or done.status_code == httpx.codes.CONFLICT)

    def retry(self, promotion: int) -> bool:
        done = answer(self.api, "POST", f"/api/v1/promotions/{promotion}/retry")
        return done is not None and done.is_success


@dataclass
class Lane:
    """Where one model is in its round. `served` is what its clients must get once it has been live."""

    model: str
    people: People
    tally: Tally
    random: Random
    phase: str = REST
    promotion: int = 0
    served: str | None = None
    round: int = 0
    wanted: str = ""
    since: float = 0.0
    approved: set[tuple[int, str]] = field(default_factory=set)
    doomed: State | None = None
    """The state in which this promotion is to be cancelled."""
    cancelled: bool = False
    ended: State = State.LIVE
    _looked: float = 0.0

    def begin(self) -> None:
        """Ask for the version that does not serve, in the next step."""
        self.wanted = "1" if self.served != "1" else "2"
        self.phase, self.since, self.round = ASK, time.monotonic(), self.round + 1
        self.doomed = self.random.choice(FLOW[1:-1]) if self.random.random() < CANCELLED else None
        self.cancelled = False

    def step(self, newest: Mapping[str, Any] | None) -> None:
        """Do what a person would do now; `newest` is the model's newest promotion as the database has it."""
        if self.phase == ASK and self._ask():
            self.phase = WATCH
        elif self.phase == WATCH and newest is not None and newest["id"] > self.promotion:
            self._watch(newest)
        elif self.phase == SETTLE and time.monotonic() > self._looked + _LOOK_SECONDS:
            self._looked = time.monotonic()
            self._settle()

    def _ask(self) -> bool:
        """Half of the rounds begin in MLflow, half at the API."""
        if self.round % 2:
            return self.people.ask_in_mlflow(self.model, self.wanted)
        return self.people.ask_over_rest(self.model, self.wanted, f"{self.model}-{self.round}")

    def _watch(self, row: Mapping[str, Any]) -> None:
        number, digest, state = row["id"], row["digest"], State(row["state"])
        if state is self.doomed:
            # Whether or not an answer comes: an API that dies after its commit has heard it.
            self.cancelled, self.doomed = True, None if self.people.cancel(number) else state
            return
        match state:
            case State.CANCELLED if self.cancelled:
                self.promotion, self.phase, self.ended = number, SETTLE, state
            case State.APPROVAL if digest and (number, digest) not in self.approved:
                if self.people.approve(number, digest):
                    self.approved.add((number, digest))
            case State.LIVE:
                self.promotion, self.phase, self.ended = number, SETTLE, state
            case State.FAILED if "quarantined" in row["reason"]:
                # That is what must happen to a step that dies again and again, and the person tries once more.
                if self.people.retry(number):
                    self.tally.quarantined += 1
            case State.FAILED | State.REJECTED | State.DENIED | State.EXPIRED | State.CANCELLED | State.SUPERSEDED:
                self._gone(number, row)
            case State.ROLLED_BACK:
                self._gone(number, row)

    def _gone(self, number: int, row: Mapping[str, Any]) -> None:
        self.tally.lost.append(f"promotion {number} of {self.model} ended {row['state']}: {row['reason']}")
        self.promotion, self.phase = number, REST

    def _settle(self) -> None:
        """The status is the last thing that Headgate writes: whoever reads the end may ask for the next version."""
        if self.people.tags(self.model, self.wanted).get("headgate.status") != self.ended.label:
            return
        self.phase = REST
        if self.ended is State.LIVE:
            self.tally.live += 1
            self.served = self.wanted
        else:
            self.tally.cancelled += 1
