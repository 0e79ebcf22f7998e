"""Shows groups of figures: on the terminal, as JSON, and between the markers of docs/benchmarks.md."""

import json
import os
import platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
from rich import box
from rich.console import Console
from rich.table import Table

from ci.bench.figures import Group

_PACKAGES = ("mlflow", "onnxruntime", "scikit-learn", "sqlalchemy")


def machine() -> str:
    """What the figures depend on, without anybody's name: cores, memory, versions, and who else was busy."""
    cores = len(os.sched_getaffinity(0))
    memory = psutil.virtual_memory().total / 2**30
    versions = ", ".join(f"{name} {version(name)}" for name in _PACKAGES)
    return (
        f"{cores} cores ({platform.machine()}), {memory:.0f} GiB of memory, {platform.system()}, "
        f"Python {platform.python_version()}, {versions}; load average {os.getloadavg()[0]:.1f} when it began."
    )


def show(console: Console, group: Group) -> None:
    """A table on the terminal."""
    table = Table(title=group.title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    for at, column in enumerate(group.columns):
        table.add_column(column, justify="right" if at else "left", no_wrap=not at)
    for row in group.rows:
        table.add_row(*map(_plain, row))
    console.print(table)
    for note in group.notes:
        console.print(f"  {_plain(note)}", style="dim")
    console.print()


def _plain(text: str) -> str:
    """Without the marks that Markdown wants."""
    return text.replace("`", "")


def save(file: Path, about: str, groups: Sequence[Group]) -> None:
    """Write what `load` reads."""
    file.parent.mkdir(parents=True, exist_ok=True)
    kept = {"machine": about, "groups": [asdict(group) for group in groups]}
    file.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")


def load(file: Path) -> tuple[str, list[Group]]:
    """The machine and the groups of the last run."""
    kept: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return kept["machine"], [Group(**group) for group in kept["groups"]]


def write_docs(file: Path, about: str, groups: Sequence[Group]) -> None:
    """Replace what stands between `<!-- bench:NAME -->` and `<!-- /bench:NAME -->` for every group that was measured,
    with the machine it was measured on.

    Raises:
        ValueError: the document lacks the markers of a group; nothing is written then.
    """
    text = file.read_text(encoding="utf-8")
    for name, block in _blocks(about, groups).items():
        start, end = f"<!-- bench:{name} -->", f"<!-- /bench:{name} -->"
        pattern = re.compile(f"{re.escape(start)}.*?{re.escape(end)}", re.DOTALL)
        if len(pattern.findall(text)) != 1:
            raise ValueError(f"{file} must hold {start} ... {end} once")
        before, after = pattern.split(text)
        text = f"{before}{start}\n{block}\n{end}{after}"
    file.write_text(text, encoding="utf-8")


def _blocks(about: str, groups: Sequence[Group]) -> Mapping[str, str]:
    return {
        group.name: "\n\n".join([_markdown(group), _bullets([*group.notes, f"Machine: {about}"])]) for group in groups
    }


def _markdown(group: Group) -> str:
    head = "| " + " | ".join(group.columns) + " |"
    rule = "|---|" + "---:|" * (len(group.columns) - 1)
    return "\n".join([head, rule, *("| " + " | ".join(row) + " |" for row in group.rows)])


def _bullets(lines: Sequence[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)
