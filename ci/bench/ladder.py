"""Every rung of the ladder on the example's models: wrong rows on real rows and on rows made to hurt, and the time."""

import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from ci.bench import logged
from ci.bench.figures import Group, number
from examples.airbnb import data
from examples.airbnb.models import Kind, build
from workers.sandbox import climb, flavors, measure, trial
from workers.sandbox.mlmodel import read_card
from workers.sandbox.rows import Rows

KINDS: tuple[Kind, ...] = ("linear", "gbr", "forest", "hist")
DTYPES = {"float32": "float", "float64": "double"}
RTOL, ATOL = 1e-4, 1e-5
"""What the example's policy allows."""
BATCHES = (1, 256)
_ANY = 1 << 40


def run(folder: Path, source: Path | None) -> Group:
    """Each model, trained on columns of 32 and of 64 bits, on every rung, on all rows there are."""
    table = data.clean(data.load(source))
    rows = [row for kind in KINDS for dtype in DTYPES for row in _model(folder, table, kind, dtype)]
    columns = ["model", "rung", "real rows wrong", "largest error", "made to hurt, wrong", "ms, 1 row", "ms, 256 rows"]
    notes = [
        f"{len(table):,} rows of {'synthetic listings' if source is None else 'AB_NYC_2019'}; wrong is "
        f"|a - b| > {ATOL:g} + {RTOL:g} |b| against the native model. Trained on the example's training part.",
        "Kept is the first rung that is right on the real rows and on all rows made to hurt that decide.",
        "Milliseconds are medians of ONNX Runtime in process, on one thread.",
    ]
    return Group("ladder", "Rungs of the ladder", columns, rows, notes, {})


def _model(folder: Path, table: pd.DataFrame, kind: Kind, dtype: str) -> Iterator[list[str]]:
    typed = table.astype(dict.fromkeys(data.NUMBERS, dtype))
    train = data.split(typed)[0]
    specs = [
        {"name": name, "type": "string" if name in data.TEXT else DTYPES[dtype], "required": True}
        for name in data.FEATURES
    ]
    place = folder / f"ladder-{kind}-{dtype}"
    logged.log(place, build(kind).fit(train[data.FEATURES], train[data.LABEL]), specs)
    card = read_card(place)
    assert card.signature is not None
    native = flavors.load(card, card.signature)
    rows = Rows({name: _values(typed[name]) for name in data.FEATURES}, None, "data")
    exam = climb.examine(native, card.signature, rows, native.predict(rows), climb.Demands(RTOL, ATOL, _ANY))
    is_kept = False
    for attempt in climb.attempts(native, exam, "model"):
        right = not attempt.report["wrong_rows"] and not trial.wrong(attempt.report["hurting"]) and attempt.chosen
        mark = " (kept)" if right and not is_kept else ""
        is_kept = is_kept or bool(right)
        yield [f"{kind}, {dtype}", f"`{attempt.report['name']}`{mark}", *_cells(attempt, rows)]


def _values(column: pd.Series) -> Any:
    return column.to_numpy() if column.dtype.kind == "f" else column.to_numpy(dtype=object)


def _cells(attempt: climb.Tried, rows: Rows) -> Sequence[str]:
    report = attempt.report
    if attempt.chosen is None:
        return ["-", "-", "-", "-", report.get("error", "cannot be run")[:60].replace("|", "/")]
    samples = measure.latency(attempt.chosen.runner, rows.table, BATCHES)
    asked = sum(kind["rows"] for kind in report["hurting"] if kind["decides"])
    return [
        str(report["wrong_rows"]),
        f"{report['largest_error']:.2g}",
        f"{trial.wrong(report['hurting'])} of {asked}",
        *(number(statistics.median(samples[batch])) for batch in BATCHES),
    ]
