"""The commands. Each is a call of the API, but for `up`, `demo` and `doctor`, which start processes of their own."""

import hashlib
import os
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from app.cli import people, render, trail
from app.cli.client import Client, Problem
from app.domain.errors import Invalid
from app.policy_files import parse
from app.policy_models import PolicyFile

cli = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)
policy_commands = typer.Typer(no_args_is_help=True, help="Check policy files.")
cli.add_typer(policy_commands, name="policy")
cli.add_typer(trail.commands, name="audit")
cli.add_typer(people.tokens, name="token")
cli.add_typer(people.principals, name="principal")

EXIT = {
    "LIVE": 0,
    "REJECTED": 10,
    "DENIED": 11,
    "EXPIRED": 12,
    "CANCELLED": 13,
    "SUPERSEDED": 13,
    "ROLLED_BACK": 14,
    "FAILED": 15,
}
TIMED_OUT = 16
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Id = Annotated[int, typer.Argument(help="the promotion's id")]
Environment = Annotated[str | None, typer.Option("--env", help="only this environment")]
Model = Annotated[str | None, typer.Option(help="only this model")]
Timeout = Annotated[float | None, typer.Option(help="give up waiting after so many seconds (exit code 16)")]


def main() -> None:
    """Run the command line; problems are told in words and end with status 1."""
    try:
        cli()
    except (Problem, Invalid) as problem:
        render.notes.print(f"headgate: {problem}", style="red", highlight=False, markup=False)
        sys.exit(1)


def _run(module: str) -> None:
    """Become another program: those that start processes are not part of this client."""
    os.execv(sys.executable, [sys.executable, "-m", module])  # noqa: S606 -- our own interpreter and module


@cli.command()
def up() -> None:
    """Run every process of a one-machine installation until Ctrl-C."""
    _run("app.up")


@cli.command()
def demo() -> None:
    """Play the main story on a fresh installation below HEADGATE_HOME/demo, and say what happened."""
    _run("examples.airbnb.demo")


@cli.command()
def doctor() -> None:
    """Print each setting, test each outside part for real, and say how to mend what fails."""
    _run("app.doctor")


@cli.command()
def promote(
    model: str,
    version: str,
    to: Annotated[str, typer.Option("--to", help="the environment")],
    reason: str = "",
    wait: Annotated[bool, typer.Option("--wait", help="stay until it has ended; the exit code says how")] = False,
    timeout: Timeout = None,
    json: Json = False,
) -> None:
    """Ask for a version of a model in an environment."""
    body = {"model": model, "version": version, "environment": to, "reason": reason}
    client = Client()
    found = client.post("/api/v1/promotions", body)
    if wait:
        _wait(client, found["id"], timeout, json)
    else:
        _show(found, json)


@cli.command()
def watch(promotion_id: Id, timeout: Timeout = None, json: Json = False) -> None:
    """Stay until a promotion has ended; the exit code says how."""
    _wait(Client(), promotion_id, timeout, json)


def _wait(client: Client, promotion_id: int, timeout: float | None, json: bool) -> None:
    end = time.monotonic() + timeout if timeout is not None else None
    found: dict[str, Any] = {}
    shown = ""
    while not found or found["state"] not in EXIT:
        if end is not None and time.monotonic() > end:
            render.notes.print(f"gave up waiting for promotion {promotion_id}; it goes on", highlight=False)
            raise typer.Exit(TIMED_OUT)
        found = client.get(f"/api/v1/promotions/{promotion_id}")
        line = render.progress(found)
        if line != shown:
            shown = line
            render.notes.print(line, highlight=False, markup=False)
        if found["state"] not in EXIT:
            time.sleep(0.5)
    _show(found, json)
    raise typer.Exit(EXIT[found["state"]])


@cli.command()
def status(model: Model = None, env: Environment = None, state: str | None = None, json: Json = False) -> None:
    """List promotions, newest first."""
    page = Client().get("/api/v1/promotions", model=model, environment=env, state=state)
    render.as_json(page) if json else render.promotions(page["items"])


@cli.command()
def show(promotion_id: Id, json: Json = False) -> None:
    """Show one promotion: state, steps, gates, evidence, digest, and what to do next."""
    _show(Client().get(f"/api/v1/promotions/{promotion_id}"), json)


def _show(found: dict[str, Any], json: bool) -> None:
    render.as_json(found) if json else render.promotion(found)


@cli.command()
def evidence(
    promotion_id: Id,
    file: Annotated[Path | None, typer.Argument(help="where to; promotion-<id>.zip without it")] = None,
    people: Annotated[bool, typer.Option(help="with names and typed reasons")] = True,
    json: Json = False,
) -> None:
    """Write the evidence of a promotion to a file: it proves itself with `headgate_verify.pyz pack`."""
    target = file or Path(f"promotion-{promotion_id}.zip")
    data = Client().content(f"/api/v1/promotions/{promotion_id}/evidence", people=people)
    try:
        target.write_bytes(data)
    except OSError as error:
        raise Problem(f"{target} cannot be written: {error.strerror}.") from error
    found = {"file": str(target), "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    render.as_json(found) if json else render.out.print(f"the evidence is in {target}", highlight=False, markup=False)


@cli.command()
def plan(
    model: str, version: str, to: Annotated[str, typer.Option("--to", help="the environment")], json: Json = False
) -> None:
    """Say exactly what a promotion would do, and change nothing; exit code 1 where it would be refused."""
    found = Client().get("/api/v1/plan", model=model, version=version, environment=to)
    render.as_json(found) if json else render.plan(found)
    if found["refused"]:
        raise typer.Exit(1)


Digest = Annotated[str, typer.Option(help="the digest that `show` printed")]
Why = Annotated[str, typer.Option(help="why; it goes into the audit trail")]


@cli.command()
def approve(promotion_id: Id, digest: Digest, reason: Why, json: Json = False) -> None:
    """Approve exactly the digest that you saw."""
    _decide(promotion_id, "approve", digest, reason, json)


@cli.command()
def reject(promotion_id: Id, digest: Digest, reason: Why, json: Json = False) -> None:
    """Refuse the digest that you saw: the promotion ends DENIED."""
    _decide(promotion_id, "reject", digest, reason, json)


def _decide(promotion_id: int, decision: str, digest: str, reason: str, json: bool) -> None:
    body = {"decision": decision, "digest": digest, "reason": reason}
    _show(Client().post(f"/api/v1/promotions/{promotion_id}/approvals", body), json)


@cli.command()
def revoke(
    promotion_id: Id,
    reason: Why,
    person: Annotated[str | None, typer.Option(help="whose approval, for admins; without it one's own")] = None,
    json: Json = False,
) -> None:
    """Take an approval back; a rollout that lacks it is rolled back."""
    body = {"reason": reason} | ({"person": person} if person else {})
    _show(Client().post(f"/api/v1/promotions/{promotion_id}/approvals/revoke", body), json)


@cli.command("break-glass")
def break_glass(promotion_id: Id, digest: Digest, reason: Why, json: Json = False) -> None:
    """In an emergency: two people who ask for it replace missing approvals and pass a freeze, for a short time."""
    body = {"digest": digest, "reason": reason}
    _show(Client().post(f"/api/v1/promotions/{promotion_id}/break-glass", body), json)


@cli.command()
def decide(
    promotion_id: Id,
    decision: Annotated[str, typer.Argument(help="continue or rollback")],
    reason: Why,
    json: Json = False,
) -> None:
    """Answer a canary that too few requests reached."""
    body = {"decision": decision, "reason": reason}
    _show(Client().post(f"/api/v1/promotions/{promotion_id}/decide", body), json)


@cli.command()
def cancel(promotion_id: Id, reason: str = "", json: Json = False) -> None:
    """End a promotion; a rollout is first brought back to the stable release."""
    _show(Client().post(f"/api/v1/promotions/{promotion_id}/cancel", {"reason": reason}), json)


@cli.command()
def retry(promotion_id: Id, json: Json = False) -> None:
    """Start a FAILED promotion anew, with the policy as it is now."""
    _show(Client().post(f"/api/v1/promotions/{promotion_id}/retry", {}), json)


@cli.command()
def history(
    model: str,
    env: Environment = None,
    at: Annotated[str | None, typer.Option(help="a time, ISO 8601 with zone")] = None,
    json: Json = False,
) -> None:
    """Show what serves, or what served at a time and who had approved it: that the audit trail tells."""
    path, asked = ("/api/v1/releases", {}) if at is None else ("/api/v1/history", {"at": at})
    found = Client().get(path, model=model, environment=env, **asked)
    if json:
        render.as_json(found)
    elif at is None:
        columns = ("model", "environment", "version", "role", "weight", "digest", "stable_at")
        render.table(columns, [[row[column] for column in columns] for row in found])
    else:
        _served(found)


def _served(found: list[dict[str, Any]]) -> None:
    columns = ("environment", "version", "role", "weight", "since", "approved by", "digest")
    cells = []
    for row in found:
        stands = [said for said in row["decisions"] if not said.get("taken_back")]
        approved = ", ".join(said["by"] for said in stands if said["decision"] == "approve")
        broken = ", ".join(said["by"] for said in stands if said["decision"] == "break-glass")
        approved = ", ".join(filter(None, [approved, broken and f"glass broken by {broken}"]))
        maybe = f" (or {row['intended']['weight']} %)" if row["intended"] else ""
        named = (row["environment"], row["version"], row["role"], f"{row['weight']} %{maybe}", row["since"])
        cells.append([*named, approved or "nobody had to", row["digest"]])
    render.table(columns, cells)


@policy_commands.command("check")
def policy_check(file: Path) -> None:
    """Say whether a policy file is well-formed, with the line of each mistake."""
    policy = parse(_text(file), file.name)
    render.out.print(f"{file}: {policy.model}: {', '.join(policy.environments)}", highlight=False)


@policy_commands.command("backtest")
def policy_backtest(
    file: Path,
    last: Annotated[int, typer.Option(help="how many promotions, newest first")] = 20,
    json: Json = False,
) -> None:
    """Say what a policy would have decided on past promotions, from what was measured of them then."""
    found = Client().post("/api/v1/policies/backtest", {"policy": _text(file), "last": last})
    render.as_json(found) if json else render.backtest(found)


def _text(file: Path) -> str:
    if not file.is_file():
        raise Problem(f"There is no file {file}.")
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise Problem(f"{file} cannot be read ({type(error).__name__}).") from error


@policy_commands.command("schema")
def policy_schema() -> None:
    """Print the JSON Schema of policy files; docs/policy.schema.json has it, too."""
    render.as_json(PolicyFile.model_json_schema())


if __name__ == "__main__":
    main()
