"""The command line of the benchmarks; `make bench` runs it. All groups take about half an hour."""

import argparse
import contextlib
import functools
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from ci.bench import (
    conversion,
    engine,
    estimators,
    flavors,
    hostile,
    judging,
    ladder,
    registry,
    report,
    sandboxes,
    serving,
    trail,
    webhook,
)
from ci.bench.databases import Fresh, databases
from ci.bench.figures import Group
from ci.bench.models import REAL_ROWS, ROOT, Models

RESULTS = ROOT / ".headgate" / "bench.json"
DOCS = ROOT / "docs" / "benchmarks.md"
# Unlike the usual temporary folder this one is never kept in memory, where making data durable would cost nothing.
_DISK = "/var/tmp"  # noqa: S108  # a folder with a name of its own is made in it


@dataclass
class Workshop:
    """What several groups share, made when it is first asked for."""

    folder: Path
    stack: contextlib.ExitStack
    data: Path | None

    @functools.cached_property
    def models(self) -> Models:
        return Models(self.folder, self.data)

    @functools.cached_property
    def kinds(self) -> Mapping[str, Fresh]:
        return self.stack.enter_context(databases(self.folder))


def groups(quick: bool) -> Mapping[str, Callable[[Workshop], Group]]:
    """How to measure each group; `quick` proves that it works and gives figures that nobody should quote."""
    second = 0.3 if quick else 1.0
    few, some = (1, 1) if quick else (3, 5)
    return {
        "serving": lambda shop: serving.run(shop.folder, shop.models, second, some),
        "engine": lambda shop: engine.run(shop.folder, shop.kinds, some, 2 if quick else 20),
        "webhook": lambda shop: webhook.run(shop.folder, shop.kinds, 3 * second, few),
        "trail": lambda shop: trail.run(shop.folder, shop.kinds, some, 2000 if quick else trail.LEAVES),
        "registry": lambda shop: registry.run(shop.folder, 300 if quick else 10_000, few),
        "hostile": lambda shop: hostile.run(shop.folder / "hostile", shop.kinds, 20 if quick else 1),
        "estimators": lambda shop: estimators.run(shop.folder, 10 if quick else 1),
        "flavors": lambda shop: flavors.run(shop.folder / "flavors"),
        "ladder": lambda shop: ladder.run(shop.folder, None if quick else shop.data),
        "judging": lambda shop: judging.run(shop.folder, shop.models, few),
        "conversion": lambda shop: conversion.run(shop.folder, shop.models, {"scan": some, "convert": few}),
        "sandboxes": lambda shop: sandboxes.run(shop.folder / "boxes", shop.models, {"scan": some, "convert": few}),
    }


@contextlib.contextmanager
def workshop(data: Path | None) -> Iterator[Workshop]:
    """A folder on disk that other users may pass through: PostgreSQL runs as another user where we are root."""
    with tempfile.TemporaryDirectory(prefix="headgate-bench-", dir=_DISK) as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        folder.chmod(0o755)
        yield Workshop(folder, stack, data)


def measure(console: Console, wanted: list[str], quick: bool, data: Path | None) -> list[Group]:
    """Run the wanted groups one after the other and show each as soon as it is there."""
    found = []
    with workshop(data) as shop:
        for name in wanted:
            begun = time.monotonic()
            console.print(f"measuring {name} ...", style="dim")
            found.append(groups(quick)[name](shop))
            console.print(f"... took {time.monotonic() - begun:.0f} s", style="dim")
            report.show(console, found[-1])
    return found


def main() -> int:
    """Measure, show, and keep the figures; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m ci.bench", description=__doc__)
    parser.add_argument("groups", nargs="*", metavar="GROUP", help=f"of {', '.join(groups(False))} (default: all)")
    parser.add_argument("--data", type=Path, help="AB_NYC_2019 CSV, plain or .gz; else the shared one or made-up rows")
    parser.add_argument("--quick", action="store_true", help="prove that it runs; the figures mean nothing")
    parser.add_argument("--last", action="store_true", help="take the figures of the last run instead of measuring")
    parser.add_argument("--write-docs", action="store_true", help=f"put the tables into {DOCS.relative_to(ROOT)}")
    given = parser.parse_args()
    unknown = set(given.groups) - set(groups(False))
    if unknown:
        parser.error(f"there is no group {', '.join(sorted(unknown))}")
    if given.quick and (given.write_docs or given.last):
        parser.error("--quick gives no figures to keep")
    # Whoever ends us by SIGTERM ends what we started, too: only an exception runs the clean-up.
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    # In a file or a pipe there is no terminal whose width would matter.
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
    if given.last:
        about, found = report.load(RESULTS)
        for group in found:
            report.show(console, group)
    else:
        about = report.machine()
        console.print(f"{about}\n")
        data = given.data or (REAL_ROWS if REAL_ROWS.exists() else None)
        found = measure(console, given.groups or list(groups(False)), given.quick, data)
        if not given.quick:
            report.save(RESULTS, about, found)
    if given.write_docs:
        report.write_docs(DOCS, about, found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
