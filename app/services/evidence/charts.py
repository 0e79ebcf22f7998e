"""The rollout as pictures that are part of the page: numbers in, coordinates out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from app.domain.promotion import State
from app.services.evidence.dossier import Dossier

WIDTH, HEIGHT = 640.0, 120.0


@dataclass(frozen=True)
class Chart:
    """A line over time in a box of WIDTH by HEIGHT: its `points` as SVG has them, the `top` of its scale, and `ticks`
    below it as (x, words)."""

    points: str
    area: str
    top: str
    ticks: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Weight:
    """The release's share of the traffic in percent, from a time on; `leaf` proves it, `what` says what it was part of,
    where that is not just the next weight."""

    at: str
    percent: int
    leaf: int
    what: str = ""


def weights(dossier: Dossier) -> list[Weight]:
    """How the traffic moved, as the leaves have it: every rollout begins, and ends where it failed, with none."""
    found = []
    for leaf in dossier.leaves:
        if leaf.kind == "canary.weight":
            found.append(Weight(leaf.at, int(leaf.body["weight"]), leaf.seq))
        elif State.ROLLOUT.value in (leaf.body.get("from"), leaf.body.get("to")):
            begins, live = leaf.body["to"] == State.ROLLOUT.value, leaf.body["to"] == State.LIVE.value
            what = "the rollout begins" if begins else f"the rollout ends {leaf.body['to']}"
            found.append(Weight(leaf.at, 100 if live else 0, leaf.seq, what))
    return found


def traffic(found: Sequence[Weight]) -> Chart | None:
    """The share of the traffic over time, in steps; nothing where it never moved."""
    if len(found) < 2:
        return None
    steps: list[tuple[float, float]] = []
    for weight in found:
        at = datetime.fromisoformat(weight.at).timestamp()
        if steps:
            steps.append((at, steps[-1][1]))
        steps.append((at, weight.percent))
    return _chart(steps, 100.0, "100 %")


def latency(history: Sequence[Mapping[str, Any]]) -> Chart | None:
    """The 99th percentile that the canary's callers got, over time; nothing where there were too few looks."""
    seen = [
        (datetime.fromisoformat(look["at"]).timestamp(), float(look["p99_ms"]))
        for look in history
        if look.get("p99_ms") is not None
    ]
    top = max((value for _, value in seen), default=0.0)
    return _chart(seen, 1.25 * top, f"{1.25 * top:.3g} ms") if len(seen) > 1 and top > 0 else None


def _chart(values: Sequence[tuple[float, float]], top: float, label: str) -> Chart:
    begin, end = values[0][0], values[-1][0]
    span = max(end - begin, 1e-6)
    placed = [((at - begin) / span * WIDTH, HEIGHT - value / top * HEIGHT) for at, value in values]
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in placed)
    ticks = [(f"{WIDTH * part:.0f}", _words(span * part)) for part in (0.0, 0.25, 0.5, 0.75, 1.0)]
    return Chart(points, f"0,{HEIGHT:.0f} {points} {WIDTH:.0f},{HEIGHT:.0f}", label, ticks)


def _words(seconds: float) -> str:
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
