"""What the campaigns found, as a table for the terminal and for docs/benchmarks.md."""

from collections.abc import Mapping

from ci.bench.figures import Group, number, percentile
from tests.crash.points import every
from tests.crash.tally import Tally

_COLUMNS = (
    "database",
    "kills",
    "places",
    "lost",
    "doubled",
    "stuck",
    "untrue",
    "recovery p50 / p95 / p99 s",
    "live / cancelled",
    "requests answered / lost",
)


def group(tallies: Mapping[str, Tally]) -> Group:
    """One row a database."""
    return Group(
        name="faults",
        title="kill -9 at named points",
        columns=_COLUMNS,
        rows=[_row(name, tally) for name, tally in tallies.items()],
        notes=_notes(tallies),
        figures={name: tally.as_json() for name, tally in tallies.items()},
    )


def _row(name: str, tally: Tally) -> list[str]:
    broken = (tally.lost, tally.doubled, tally.stuck, tally.untrue)
    return [
        name,
        f"{tally.total:,}",
        f"{len(tally.kills)}",
        *(f"{len(found)}" for found in broken),
        " / ".join(number(percentile(tally.recoveries, share)) for share in (0.5, 0.95, 0.99))
        if tally.recoveries
        else "",
        f"{tally.live:,} / {tally.cancelled:,}",
        f"{tally.answered:,} / {tally.unanswered.total():,}",
    ]


def _notes(tallies: Mapping[str, Tally]) -> list[str]:
    points = every()
    reached = {place.partition(":")[2] for tally in tallies.values() for place in tally.reached}
    killed = {place.partition(":")[2] for tally in tallies.values() for place in tally.kills}
    unreached = sorted({point.rpartition(".")[0] for point in points if point not in reached})
    kills = ", ".join(
        f"{name}: " + ", ".join(f"{count:,} {kind}" for kind, count in sorted(tally.by_process().items()))
        for name, tally in tallies.items()
    )
    seconds = sum(tally.seconds for tally in tallies.values())
    return [
        f"{len(points)} points are in the code, {len(killed)} of them ended a process; a place is a point in one kind.",
        f"Kills by kind of process: {kills}.",
        f"Not reached here, and so not tried: {', '.join(f'`{point}`' for point in unreached) or 'none'}.",
        f"Steps that died more often than they may, and were quarantined and tried again: "
        f"{', '.join(f'{tally.quarantined} on {name}' for name, tally in tallies.items())}.",
        f"Seed {next(iter(tallies.values())).seed}; {seconds / 60:.0f} minutes.",
    ]
