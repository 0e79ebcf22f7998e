"""Hostile models through the real intake: how many were tried and got through, and what each scanner misses alone."""

import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from app.db.session import Database
from ci.bench.databases import SQLITE, Fresh
from ci.bench.figures import Group, number
from tests.hostile import Artifact, everything
from tests.hostile.trial import Verdict, judge, watching

_COLUMNS: Mapping[str, Callable[[Verdict], bool]] = {
    "tried": lambda _: True,
    "refused by SNAPSHOT": lambda verdict: verdict.state == "REJECTED" and not verdict.scan,
    "refused by SCAN": lambda verdict: verdict.state == "REJECTED" and bool(verdict.scan),
    "escaped": lambda verdict: verdict.state != "REJECTED",
    "missed by modelscan": lambda verdict: _missed(verdict, "modelscan"),
    "missed by picklescan": lambda verdict: _missed(verdict, "picklescan"),
    "missed by both": lambda verdict: _missed(verdict, "modelscan", "picklescan"),
}


def run(folder: Path, kinds: Mapping[str, Fresh], each: int) -> Group:
    """Try every artifact, or only `each`-th one; `folder` is emptied by whoever made it."""
    artifacts = everything()[::each]
    for name in ("bait", "headgate"):
        (folder / name).mkdir(parents=True)
    database = Database(kinds[SQLITE]("hostile"))
    begun = time.perf_counter()
    with watching(folder / "bait") as watch:
        verdicts = judge(artifacts, database, folder / "headgate", watch.bait)
        seconds = time.perf_counter() - begun
        traces = watch.traces(folder / "headgate" / "store")
    database.close()
    counts = {**_by_kind(verdicts), "all": _counted(verdicts)}
    rows = [[kind, *(str(count) for count in values.values())] for kind, values in counts.items()]
    notes = [
        f"{len(traces)} traces of any of them outside: the canary's file, calls at the listener, and copies of the "
        "planted secret in all that Headgate wrote.",
        f"{number(seconds)} s for all of them on two threads, each with a sandbox of its own.",
        "Missed: a scanner as it comes, on the whole model and by extension, reports nothing, not even an error. "
        "modelscan runs without its scanner of arrays, which fails with NumPy 2.4. What SNAPSHOT refuses was shown to "
        "neither. What a scanner does not claim to look for (MLmodel, ONNX) counts as missed all the same.",
    ]
    return Group("hostile", "Hostile models, by kind", ["kind", *_COLUMNS], rows, notes, {"counts": counts})


def _by_kind(verdicts: Sequence[Verdict]) -> dict[str, dict[str, int]]:
    def kind(verdict: Verdict) -> str:
        artifact: Artifact = verdict.artifact
        return artifact.kind

    return {name: _counted(list(found)) for name, found in itertools.groupby(verdicts, kind)}


def _counted(verdicts: Sequence[Verdict]) -> dict[str, int]:
    return {column: sum(map(test, verdicts)) for column, test in _COLUMNS.items()}


def _missed(verdict: Verdict, *scanners: str) -> bool:
    return bool(verdict.scan) and not any(verdict.scan["alone"][scanner] for scanner in scanners)
