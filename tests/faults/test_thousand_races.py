"""A thousand promotions, each of which is approved, rejected, cancelled and let expire at the same moment, by
processes of their own and two workers: one outcome each, the one that everybody was told of, and its leaves."""

import io
from collections import Counter, defaultdict
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass, field
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest
from sqlalchemy import select

from app.db import audit
from app.db.models import Promotion
from app.db.session import Database
from app.domain.audit import Leaf
from app.domain.policy import Approvals, Rollout, default_policy
from app.domain.promotion import ENDED, OPEN, State
from app.services import trail
from app.verifier.headgate_verify import check_export, kept, parse_key
from tests.fakes import quick
from tests.plant import MODEL, World
from tests.racers import (
    APPROVE,
    CANCEL,
    CONTEXT,
    EXPIRE,
    PATIENCE_S,
    REJECT,
    Race,
    Told,
    act,
    expire,
    meet_at,
    outcomes,
    races,
)

RACES = 1000
ACTORS = (APPROVE, REJECT, CANCEL)
WORKERS, LOOKS = 2, 4


@dataclass
class Seen:
    """What is there after all of it: each promotion's state and the leaves that tell of it."""

    states: dict[int, str] = field(default_factory=dict)
    leaves: dict[int, list[Leaf]] = field(default_factory=lambda: defaultdict(list))


@pytest.fixture
def world(database: Database, tmp_path: Path) -> World:
    made = World(database, tmp_path)
    at_once = Rollout(steps=(100,), soak=Rollout().soak * 0)
    made.policies.known[MODEL] = quick(default_policy(MODEL), rollout=at_once, approvals=Approvals())
    return made


def test_each_of_a_thousand_races_has_one_outcome(world: World, database_url: str) -> None:
    # Given a thousand promotions that wait for approval,
    first = world.ask("1")
    assert world.run(first)["state"] == "APPROVAL"
    meetings = races(world, first, RACES)
    trail.give_away(world.core, world.anchor)
    # when each is decided on in several ways at the same moment, while two workers run it,
    told = meet(world, database_url, meetings)
    settle(world)
    # then each has come to one end, and it is the one that everybody was told of.
    seen = look(world)
    for race in meetings:
        done = {answer.act: answer.done for answer in told[race.promotion]}
        assert seen.states[race.promotion] in outcomes(race, done), (race, done)
        check_leaves(race, told[race.promotion], seen)
    check_trail(world)
    # All four ways of ending were seen, so that none of them was first by its nature.
    ways = Counter(seen.states[race.promotion] for race in meetings)
    assert {State.CANCELLED, State.DENIED, State.EXPIRED, State.LIVE} <= ways.keys(), ways


def meet(world: World, url: str, meetings: Sequence[Race]) -> dict[int, list[Told]]:
    """Hold all races, one after the other; returns what everybody was told, by promotion."""
    start, told = CONTEXT.Barrier(len(ACTORS) + WORKERS), defaultdict(list)
    with (
        ProcessPoolExecutor(len(ACTORS), CONTEXT, meet_at, (start,)) as people,
        ThreadPoolExecutor(WORKERS) as workers,
    ):
        key = world.folder / "audit.key"
        running = [people.submit(act, what, url, key, meetings) for what in ACTORS]
        woken = [workers.submit(work, world, number, meetings, start) for number in range(WORKERS)]
        for worker in woken:
            worker.result()
        for person in running:
            for answer in person.result():
                told[answer.promotion].append(answer)
    return told


def work(world: World, number: int, meetings: Sequence[Race], start: Barrier) -> None:
    """A worker that is woken for each promotion while people decide on it, or while its time runs out."""
    runner = world.worker(f"worker-{number}")
    for race in meetings:
        start.wait(PATIENCE_S)
        if number == 0 and EXPIRE in race.acts:
            expire(world, race)
        for _ in range(LOOKS):
            runner.advance(race.promotion)


def settle(world: World) -> None:
    """What a sweep does afterwards for those that have not ended."""
    query = select(Promotion.id).where(Promotion.state.in_([state.value for state in OPEN]))
    with world.database.read() as session:
        left = session.scalars(query).all()
    for promotion_id in left:
        world.runner.advance(promotion_id)


def look(world: World) -> Seen:
    seen = Seen()
    with world.database.read() as session:
        for row in session.execute(select(Promotion.id, Promotion.state)):
            seen.states[row.id] = row.state
        for leaf in audit.leaves(session):
            if "promotion" in leaf.body:
                seen.leaves[leaf.body["promotion"]].append(leaf)
    return seen


def check_leaves(race: Race, told: Sequence[Told], seen: Seen) -> None:
    """One end, as the promotion's state says, after all that was answered; no answer and no end without its leaf."""
    found = seen.leaves[race.promotion]
    (end,) = [leaf for leaf in found if leaf.kind == "promotion.transition" and leaf.body["to"] in ENDED]
    assert end.body["to"] == seen.states[race.promotion]
    decisions = {leaf.seq: leaf.body["decision"] for leaf in found if leaf.kind == "approval"}
    assert decisions == {answer.leaf: answer.act for answer in told if answer.leaf}
    stops = [leaf for leaf in found if leaf.kind == "promotion.stop"]
    assert [leaf.body["to"] for leaf in stops] == [State.CANCELLED] * sum(t.done for t in told if t.act == CANCEL)
    assert max((*decisions, *(leaf.seq for leaf in stops), 0)) < end.seq


def check_trail(world: World) -> None:
    """It holds inside, and outside against the checkpoint from before the races."""
    assert trail.verify(world.database).verified
    keys = [parse_key(text) for text in trail.checkpoint(world.core)["keys"]]
    export = io.BytesIO("".join(trail.export(world.core)).encode())
    tree, _ = check_export(export, keys, kept(world.folder / "checkpoints"))
    assert tree.size > RACES
