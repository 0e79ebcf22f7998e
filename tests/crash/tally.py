"""What a campaign has seen so far: kills, recoveries, requests, and whatever broke a promise."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Tally:
    """Counts of one campaign on one database. `broken` holds a sentence for each broken promise: it must stay empty."""

    seed: int
    kills: Counter[str] = field(default_factory=Counter)
    """Kills by `<process>:<point>`."""
    recoveries: list[float] = field(default_factory=list)
    """Seconds from the kill of a worker until another one had taken up what it held."""
    live: int = 0
    cancelled: int = 0
    quarantined: int = 0
    answered: int = 0
    unanswered: Counter[str] = field(default_factory=Counter)
    """Requests to the router that a client lost, by what came instead of an answer."""
    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    stuck: list[str] = field(default_factory=list)
    untrue: list[str] = field(default_factory=list)
    seconds: float = 0.0
    reached: set[str] = field(default_factory=set)

    @property
    def broken(self) -> list[str]:
        return [*self.lost, *self.doubled, *self.stuck, *self.untrue]

    @property
    def total(self) -> int:
        return self.kills.total()

    def as_json(self) -> dict[str, Any]:
        """Plain values, to keep."""
        return {
            **vars(self),
            "kills": dict(self.kills),
            "unanswered": dict(self.unanswered),
            "reached": sorted(self.reached),
        }

    def by_process(self) -> Counter[str]:
        """Kills by kind of process."""
        found = Counter[str]()
        for point, count in self.kills.items():
            found[point.partition(":")[0]] += count
        return found
