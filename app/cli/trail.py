"""`headgate audit`: export the trail, and verify it with or without the service."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from app.cli import render
from app.cli.client import Client, Problem
from app.domain.audit import Leaf, verify_chain

commands = typer.Typer(no_args_is_help=True, help="Export and verify the audit trail.")


@commands.command("export")
def export(file: Path) -> None:
    """Write the whole trail to a file, one JSON leaf a line."""
    count = 0
    with file.open("w") as out:
        for line in Client().lines("/api/v1/audit/export"):
            out.write(line + "\n")
            count += 1
    render.out.print(f"{count} leaves in {file}", highlight=False)


@commands.command("verify")
def verify(
    file: Annotated[Path | None, typer.Argument(help="an export; without one the service's own trail")] = None,
    head: Annotated[str | None, typer.Option(help="the head that was kept elsewhere")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Walk the chain and name the first leaf that does not hold; exit code 1 if there is one.

    A trail that was cut off at its end looks whole: give the --head that a checkpoint had.
    """
    if file is None:
        found = Client().get("/api/v1/audit/verify")
    else:
        verdict = verify_chain(_leaves(file))
        found = {**vars(verdict), "verified": verdict.verified}
    if found["verified"] and head is not None and head != found["head"]:
        found |= {"verified": False, "first_bad": found["leaves"] + 1, "reason": "the head is another one than given"}
    if json:
        render.as_json(found)
    elif found["verified"]:
        render.out.print(f"{found['leaves']} leaves hold; head {found['head']}", highlight=False, soft_wrap=True)
    else:
        render.out.print(f"leaf {found['first_bad']} does not hold: {found['reason']}", style="red", highlight=False)
    if not found["verified"]:
        raise typer.Exit(1)


def _leaves(file: Path) -> Iterator[Leaf]:
    with file.open() as lines:
        for number, line in enumerate(lines, 1):
            try:
                yield Leaf(**json.loads(line))
            except (ValueError, TypeError) as error:
                raise Problem(f"{file}:{number}: not a leaf of an audit trail.") from error
