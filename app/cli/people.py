"""`headgate token` and `headgate principal`: who may call, with which tokens, and who is one person."""

from typing import Annotated, Any

import typer

from app.cli import render
from app.cli.client import Client

tokens = typer.Typer(no_args_is_help=True, help="Make, list and revoke tokens.")
principals = typer.Typer(no_args_is_help=True, help="Say which principals are one person.")
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
COLUMNS = ("token", "name", "role", "kind", "person", "state", "expires", "scopes")


@tokens.command("create")
def create(
    name: str,
    role: Annotated[
        str | None,
        typer.Option(help="requester, reviewer, admin, auditor or ci; left out: another token of a principal"),
    ] = None,
    machine: Annotated[bool, typer.Option("--machine", help="not a person; ci never is one")] = False,
    expires: Annotated[str, typer.Option(help="how long it counts, a year at most")] = "90d",
    scope: Annotated[
        list[str] | None, typer.Option(help="a permission, may be repeated; none: all of the role")
    ] = None,
    person: Annotated[str | None, typer.Option(help="who this is one more identity, or the machine, of")] = None,
    json: Json = False,
) -> None:
    """Make a token, and the principal where a role is given; this is the only time that anybody sees it."""
    body = {"name": name, "role": role, "expires": expires, "scopes": scope or None, "person": person}
    found = Client().post("/api/v1/tokens", {**body, "kind": "machine" if machine else None})
    render.as_json(found) if json else render.out.print(found["token"], highlight=False, markup=False, soft_wrap=True)


@tokens.command("list")
def list_tokens(json: Json = False) -> None:
    """List principals and their tokens, none of which is shown."""
    items = _all(Client())
    if json:
        render.as_json(items)
        return
    rows = [(row, one) for row in items for one in row["tokens"] or [_signed_in(row)]]
    render.table(COLUMNS, [_cells(row, one) for row, one in rows])


def _all(client: Client) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = []
    cursor: str | None = ""
    while cursor is not None:
        page = client.get("/api/v1/principals", after=cursor)
        items, cursor = items + page["items"], page["cursor"]
    return items


def _signed_in(row: dict[str, Any]) -> dict[str, Any]:
    return {"id": None, "state": f"signs in at {row['issuer']}", "expires_at": None, "scopes": None}


def _cells(row: dict[str, Any], one: dict[str, Any]) -> list[object]:
    scopes = "all" if one["scopes"] is None else " ".join(one["scopes"])
    named = [row[key] for key in ("name", "role", "kind", "person")]
    return [one["id"], *named, one["state"], one["expires_at"], scopes]


@tokens.command("revoke")
def revoke(number: Annotated[int, typer.Argument(help="the token's number, from `list`")], json: Json = False) -> None:
    """End a token now."""
    found = Client().post(f"/api/v1/tokens/{number}/revoke", {})
    said = f"token {found['id']} of {found['name']} is {found['state']}"
    render.as_json(found) if json else render.out.print(said, highlight=False, markup=False)


@principals.command("link")
def link(
    name: str,
    person: Annotated[str, typer.Option(help="who is the same person, or whose machine it is")],
    json: Json = False,
) -> None:
    """Say that two principals are one person: from now on they count once. There is no way back."""
    found = Client().post(f"/api/v1/principals/{name}/link", {"person": person})
    said = f"{found['name']} counts as {found['person']}"
    render.as_json(found) if json else render.out.print(said, highlight=False, markup=False)


@principals.command("erase")
def erase(
    name: str,
    yes: Annotated[bool, typer.Option("--yes", help="do not ask")] = False,
    json: Json = False,
) -> None:
    """Forget a person: names, words and tokens. The audit trail still holds. There is no way back."""
    if not yes:
        typer.confirm(f"Forget {name} for ever?", abort=True)
    found = Client().post(f"/api/v1/principals/{name}/erase", {})
    said = f"forgotten under {found['names']} names; {found['person']} stands for that person now"
    render.as_json(found) if json else render.out.print(said, highlight=False, markup=False)
