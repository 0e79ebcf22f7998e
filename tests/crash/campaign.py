"""A campaign: promotions under way in many lanes, and a process killed at a named point again and again."""

import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import func, select

from app.db.models import OutboxRow, Promotion
from app.domain.promotion import State
from tests.crash import invariants
from tests.crash.installation import Installation
from tests.crash.lanes import REST, Lane
from tests.crash.points import every
from tests.crash.tally import Tally

ARMED = 14
PATIENCE = 4.0
"""How many seconds a point stays armed that nobody reaches."""
STUCK_SECONDS = 30.0
"""How long anything may stand still that is not at rest."""
KILLING_SECONDS = 60.0
_TICK = 0.05
_LOOK_SECONDS = 0.5
_SIGKILL = -9
_KINDS = ("worker", "worker", "worker", "worker", "worker", "worker", "api", "api", "clock")
"""Which kind of process the next point is for: workers do nearly everything."""


@dataclass
class Campaign:
    """The state of one campaign on one installation."""

    installation: Installation
    lanes: Sequence[Lane]
    tally: Tally
    wanted: int
    told: Callable[[Tally], None]
    """Hears after each phase how far it is."""
    armed: dict[str, float] = field(default_factory=dict)
    interrupted: dict[int, tuple[int, float]] = field(default_factory=dict)
    """Promotions that a killed worker held: their epoch then, and the unix time of the kill."""
    looked: float = 0.0

    def __post_init__(self) -> None:
        self.random = random.Random(self.tally.seed)
        self.tried = dict.fromkeys([f"{kind}:{point}" for kind in sorted(set(_KINDS)) for point in every()], 0)
        self.known = set[str]()

    def run(self) -> None:
        """Kill in phases until enough were killed; after each phase everything must come to rest and be true."""
        begun = time.monotonic()
        while self.tally.total < self.wanted and not self.tally.broken:
            self._kill_for(KILLING_SECONDS)
            self._come_to_rest()
            invariants.check(self.installation, self.lanes, self.tally)
            self.told(self.tally)
        self.tally.seconds = time.monotonic() - begun
        self.tally.reached = self.installation.reached()

    def _kill_for(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end and self.tally.total < self.wanted:
            for lane in self.lanes:
                if lane.phase == REST:
                    lane.begin()
            self._arm()
            self._tick()

    def _come_to_rest(self) -> None:
        for point in list(self.armed):
            self._disarm(point)
        since: dict[str, tuple[object, float]] = {}
        while waiting := self._waiting():
            for what, look in waiting.items():
                if what not in since or since[what][0] != look:
                    since[what] = (look, time.monotonic())
            stuck = [what for what in waiting if time.monotonic() > since[what][1] + STUCK_SECONDS]
            if stuck:
                self.tally.stuck.extend(f"{what} stands still: {waiting[what]}" for what in stuck)
                return
            self._tick()

    def _waiting(self) -> dict[str, object]:
        """What is not at rest, each with how it looks: lanes, promotions that still clean up, words for MLflow."""
        query = select(Promotion.id, Promotion.state, Promotion.attempt, Promotion.last_error, Promotion.progress)
        told = select(OutboxRow.model, func.count(), func.max(OutboxRow.last_error)).group_by(OutboxRow.model)
        with self.installation.database.read() as session:
            under_way = session.execute(query.where(Promotion.next_run_at.is_not(None))).all()
            unsent = session.execute(told.where(OutboxRow.next_try_at.is_not(None))).all()
        words = {row[0]: tuple(row) for row in unsent}
        states = {model: row["state"] for model, row in self._newest().items()}
        lanes = {
            lane.model: (lane.phase, states.get(lane.model), words.get(lane.model))
            for lane in self.lanes
            if lane.phase != REST
        }
        moving = {f"promotion {row[0]}": (*row[1:4], row.progress.get("weight")) for row in under_way}
        return {**lanes, **moving, **{f"MLflow on {model}": look for model, look in words.items()}}

    def _arm(self) -> None:
        moment = time.monotonic()
        for point, since in list(self.armed.items()):
            if moment > since + PATIENCE:
                self._disarm(point)
        if not self.known or self.random.random() < 0.02:
            self.known = self.installation.reached()
        while len(self.armed) < ARMED:
            point = self._choose()
            self.installation.arm(point)
            self.armed[point] = moment

    def _choose(self) -> str:
        """One of the least tried points; those that nobody ever reached come up now and then."""
        kind = self.random.choice(_KINDS)
        mine = [p for p in self.tried if p.startswith(f"{kind}:") and p not in self.armed]
        reached = [p for p in mine if p in self.known]
        pool = reached if reached and self.random.random() < 0.9 else mine
        pool.sort(key=lambda p: self.tried[p])
        point = self.random.choice(pool[: max(1, len(pool) // 3)])
        self.tried[point] += 1
        return point

    def _disarm(self, point: str) -> None:
        self.installation.disarm(point)
        self.armed.pop(point, None)

    def _tick(self) -> None:
        time.sleep(_TICK)
        rows = self._newest()
        struck, deaths = self.installation.struck(), self.installation.deaths()
        for point, at in struck.items():
            self.tally.kills[point] += 1
            self.armed.pop(point, None)
            if point.startswith("worker:"):
                self._note_interrupted(rows, at, [death.pid for death in deaths])
        for death in deaths:
            if death.status != _SIGKILL:
                self.tally.untrue.append(f"{death.name} ended by itself with status {death.status}")
            self.installation.start(death.name)
        self._note_recovered(rows)
        self._look_for_doubled_servers()
        for lane in self.lanes:
            lane.step(rows.get(lane.model))

    def _look_for_doubled_servers(self) -> None:
        if time.monotonic() < self.looked + _LOOK_SECONDS:
            return
        self.looked = time.monotonic()
        for name, count in self.installation.servers().items():
            if count > 1:
                self.tally.doubled.append(f"{count} servers run as {name}")

    def _newest(self) -> Mapping[str, Mapping[str, Any]]:
        """The newest promotion of each model."""
        columns = (
            "id",
            "model",
            "version",
            "state",
            "reason",
            "digest",
            "lease_owner",
            "lease_epoch",
            "crashes",
            "last_error",
        )
        oldest = min((lane.promotion for lane in self.lanes), default=0)
        query = (
            select(*(getattr(Promotion, name) for name in columns)).where(Promotion.id >= oldest).order_by(Promotion.id)
        )
        with self.installation.database.read() as session:
            return {row.model: row._asdict() for row in session.execute(query)}

    def _note_interrupted(self, rows: Mapping[str, Mapping[str, Any]], at: float, pids: Sequence[int]) -> None:
        for row in rows.values():
            owner = (row["lease_owner"] or "").split("-")
            if row["id"] not in self.interrupted and any(str(pid) in owner for pid in pids):
                self.interrupted[row["id"]] = (row["lease_epoch"], at)

    def _note_recovered(self, rows: Mapping[str, Mapping[str, Any]]) -> None:
        for row in rows.values():
            if row["id"] in self.interrupted:
                epoch, at = self.interrupted[row["id"]]
                if row["lease_epoch"] > epoch or row["state"] in (State.LIVE, State.FAILED):
                    self.tally.recoveries.append(time.time() - at)
                    del self.interrupted[row["id"]]
