"""`headgate audit`: the trail's checkpoints, proofs and export, and its check with or without the service."""

import json as text
from pathlib import Path
from typing import Annotated

import typer

from app.cli import render
from app.cli.client import Client, Problem
from app.verifier import headgate_verify as verifying
from app.verifier.one_file import NAME, one_file

commands = typer.Typer(no_args_is_help=True, help="Export, prove and verify the audit trail.")
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@commands.command("export")
def export(file: Path) -> None:
    """Write the whole trail to a file, for `verify` or for `verifier` on another machine."""
    with file.open("w", newline="\n") as out:
        for line in Client().lines("/api/v1/audit/export"):
            out.write(line + "\n")
    render.out.print(f"the trail is in {file}", highlight=False)


@commands.command("checkpoint")
def checkpoint(json: Json = False) -> None:
    """Print the trail's length and root, signed. Keep it where the database's administrators cannot reach it."""
    found = Client().get("/api/v1/audit/checkpoint")
    if json:
        render.as_json(found)
    else:
        render.out.print(found["note"], highlight=False, markup=False, end="", soft_wrap=True)


@commands.command("key")
def key() -> None:
    """Print the public keys that sign checkpoints. Note them down when the trail begins: verifiers ask for them."""
    for found in Client().get("/api/v1/audit/checkpoint")["keys"]:
        render.out.print(found, highlight=False, markup=False, soft_wrap=True)


@commands.command("proof")
def proof(seq: int, file: Path) -> None:
    """Write the proof that leaf SEQ is in the trail to a file, for `verifier`."""
    file.write_text(text.dumps(Client().get(f"/api/v1/audit/proof/{seq}"), indent=2) + "\n")
    render.out.print(f"the proof of leaf {seq} is in {file}", highlight=False)


@commands.command("verifier")
def verifier(file: Annotated[Path, typer.Argument(help="where to")] = Path(NAME)) -> None:
    """Write the verifier, one file that needs Python and the package cryptography, and nothing of Headgate."""
    file.write_bytes(one_file())
    render.out.print(f"python {file} --help", highlight=False, soft_wrap=True)


@commands.command("verify")
def verify(
    file: Annotated[Path | None, typer.Argument(help="an export; without one the service's own trail")] = None,
    key: Annotated[list[str] | None, typer.Option(help="a public key that you trust; may be repeated")] = None,
    anchor: Annotated[list[Path] | None, typer.Option(help="checkpoints that were kept elsewhere")] = None,
    json: Json = False,
) -> None:
    """Walk the trail and name the first leaf that does not hold; exit code 1 if there is one.

    Without a checkpoint from outside a trail that was cut off, or made anew, looks whole: give --key and --anchor.
    """
    if file is not None and not key:
        raise Problem("An export is checked by signed checkpoints: give the --key that signs them.")
    found = Client().get("/api/v1/audit/verify") if file is None else _verified(file, key or [], anchor or [])
    if json:
        render.as_json(found)
    elif found["verified"]:
        render.out.print(f"{found['leaves']} leaves hold; root {found['root']}", highlight=False, soft_wrap=True)
    else:
        render.out.print(f"leaf {found['first_bad']} does not hold: {found['reason']}", style="red", highlight=False)
    if not found["verified"]:
        raise typer.Exit(1)


def _verified(file: Path, keys: list[str], anchors: list[Path]) -> dict[str, object]:
    try:
        trusted = [verifying.parse_key(text) for text in keys]
        kept = [note for anchor in anchors for note in verifying.kept(anchor)]
        with file.open("rb") as stream:
            tree, points = verifying.check_export(stream, trusted, kept)
    except verifying.Bad as bad:
        return {"verified": False, "leaves": 0, "first_bad": bad.leaf, "reason": str(bad), "root": ""}
    except OSError as error:
        raise Problem(f"{error.filename}: {error.strerror}.") from error
    return {
        "verified": True,
        "leaves": tree.size,
        "first_bad": None,
        "reason": "",
        "root": tree.root().hex(),
        "checkpoints": len(points),
    }
