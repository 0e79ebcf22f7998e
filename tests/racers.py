"""Processes that decide on the same promotions at the same moment, and promotions for them to meet at."""

import itertools
import json
import multiprocessing
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

from sqlalchemy import insert, select, update

from app.adapters.audit_keys import KeyFiles
from app.db import promotions as rows
from app.db.columns import table
from app.db.models import Promotion, StepRun
from app.db.session import Database, now
from app.domain.errors import Conflict
from app.domain.permissions import Caller
from app.domain.promotion import State
from app.parts import Core
from app.services import approvals, digest, promotions
from tests.fakes import FakePolicies, FakeQueue, FakeRegistry
from tests.plant import World

APPROVE, REJECT, CANCEL, EXPIRE = "approve", "reject", "cancel", "expire"
CONTEXT = multiprocessing.get_context("spawn")
PATIENCE_S = 120
# How long somebody hesitates, in times of what an act takes: on a busy machine everything is slower by as much.
# Some come so late that what the first one said has been carried out.
HESITATES, WHILE_TIME_RUNS_OUT = (0.0, 0.0, 0.5, 1.0, 8.0), (0.0, 1.0, 2.0, 4.0)
LONG_AGO = timedelta(days=30)
_NAMES = {APPROVE: "rita", REJECT: "rob", CANCEL: "ada"}


@dataclass(frozen=True)
class Race:
    """A promotion that waits for approval at a digest, and what happens to it at once."""

    promotion: int
    digest: str
    acts: tuple[str, ...]


@dataclass(frozen=True)
class Told:
    """What somebody was answered: whether it will be as he asked, and the number of the leaf where there is one."""

    promotion: int
    act: str
    done: bool
    leaf: int = 0


def together(at_least: int = 2) -> list[tuple[str, ...]]:
    """Every way in which some of the four meet."""
    four = (APPROVE, REJECT, CANCEL, EXPIRE)
    return [acts for count in range(at_least, 5) for acts in itertools.combinations(four, count)]


def races(world: World, promotion_id: int, count: int) -> list[Race]:
    """Copies of a promotion that waits for approval, each of a model of its own: what led there took each step's time
    once."""
    promoted, steps = table(Promotion), table(StepRun)
    found, kinds = [], itertools.cycle(together())
    with world.database.begin() as session:
        row = session.execute(select(promoted).where(promoted.c.id == promotion_id)).one()._asdict()
        ran = select(steps).where(steps.c.promotion_id == promotion_id).order_by(steps.c.id)
        done = [step._asdict() for step in session.execute(ran)]
        for number, acts in zip(range(count), kinds, strict=False):
            model = f"model-{number}"
            values = {**row, "id": promotion_id + number + 1, "model": model}
            session.execute(insert(promoted), values)
            copy = session.get_one(Promotion, values["id"])
            lived = [_lived(step, copy.id, (row["model"], model)) for step in done]
            session.execute(insert(steps), lived)
            proved = next(step["evidence"] for step in lived if step["state"] == State.PROVE)
            digest.settle(session, copy, proved)
            found.append(Race(copy.id, copy.digest or "", acts))
    return found


def _lived(step: Mapping[str, Any], promotion_id: int, names: tuple[str, str]) -> dict[str, Any]:
    """A step of the first promotion, as if another model had gone through it."""
    evidence = json.loads(json.dumps(step["evidence"]).replace(*names))
    kept = {name: value for name, value in step.items() if name != "id"}
    return {**kept, "promotion_id": promotion_id, "evidence": evidence}


def expire(world: World, race: Race) -> None:
    """Let the promotion have waited for longer than anybody may, and be due, as it is when its time is up."""
    with world.database.begin() as session:
        step = update(StepRun).where(StepRun.promotion_id == race.promotion, StepRun.state == State.APPROVAL.value)
        session.execute(step.values(entered_at=now(session) - LONG_AGO))
        rows.wake(session, race.promotion)


def meet_at(start: Barrier) -> None:
    """Where this process waits for the others before each race; called once, when it begins."""
    globals()["_start"] = start


def act(what: str, url: str, key: Path, meetings: Sequence[Race]) -> list[Told]:
    """Do one of the acts in each race that has it; returns what was answered. Runs in a process of its own."""
    database, chance, told, takes = Database(url), random.Random(what), [], 0.005
    core = Core(database, FakeRegistry(), FakePolicies(), FakeQueue(), "http://headgate", KeyFiles([key]))
    start: Barrier = globals()["_start"]
    for race in meetings:
        start.wait(PATIENCE_S)
        if what in race.acts:
            time.sleep(takes * chance.choice(WHILE_TIME_RUNS_OUT if EXPIRE in race.acts else HESITATES))
            begun = time.perf_counter()
            told.append(_act(core, what, race))
            takes += (time.perf_counter() - begun - takes) / 10
    database.close()
    return told


def _act(core: Core, what: str, race: Race) -> Told:
    caller = Caller(_NAMES[what], "reviewer", authenticated_at=datetime.now(UTC))
    try:
        if what == CANCEL:
            promotions.cancel(core, race.promotion, "", caller.name)
            return Told(race.promotion, what, True)
        leaf = approvals.decide(core, race.promotion, caller, what, race.digest, "")
    except Conflict:
        return Told(race.promotion, what, False)
    return Told(race.promotion, what, True, leaf)


def outcomes(race: Race, done: Mapping[str, bool]) -> set[State]:
    """How it may end, by what was answered: a request to stop that was accepted holds, a rejection vetoes, and an
    approval that was accepted counts, unless the time ran out before anything could be moved."""
    if done.get(CANCEL):
        return {State.CANCELLED}
    if done.get(REJECT):
        return {State.DENIED}
    if done.get(APPROVE):
        return {State.LIVE, State.EXPIRED, State.ROLLED_BACK} if EXPIRE in race.acts else {State.LIVE}
    return {State.EXPIRED} if EXPIRE in race.acts else set()
