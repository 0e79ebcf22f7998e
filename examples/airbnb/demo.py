"""The main story, played for real: four versions of the Airbnb model meet Headgate. `make demo` runs it.

It ends by itself, prints each step as it happens, writes summary.json, and exits 0 only if all of it came true.
"""

import argparse
import contextlib
import io
import json
import logging
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from rich.console import Console
from rich.table import Table

from examples.airbnb import data
from examples.airbnb.models import Kind
from examples.airbnb.stage import STEP_SECONDS, Person, Stage, fresh, signed, wait
from examples.airbnb.traffic import Tally, Traffic
from examples.airbnb.train import Trained, train, write_holdout

MODEL = "airbnb-price"
POLICY = Path(__file__).with_name("policy.yaml")
out = Console(highlight=False)


@dataclass
class Story:
    """The stage, its people, and what has been found true or false so far."""

    stage: Stage
    reviewer: Person
    traffic: Traffic
    summary: dict[str, Any]
    checks: dict[str, bool] = field(default_factory=dict)
    begun: float = field(default_factory=time.monotonic)

    def say(self, text: str, style: str = "") -> None:
        out.print(f"[dim]{time.monotonic() - self.begun:6.1f} s[/]  {text}", style=style, soft_wrap=True)

    def check(self, what: str, holds: bool) -> None:
        self.checks[what] = self.checks.get(what, True) and holds
        self.say(f"{'[green]true [/]' if holds else '[bold red]FALSE[/]'} {what}")

    def ask(self, version: str) -> int:
        """Set the alias in MLflow, as the data scientist does in its UI, and find the promotion that it opens."""
        self.say(f"data scientist: sets the alias [bold]to-production[/] on version {version}")
        self.stage.mlflow.set_registered_model_alias(MODEL, "to-production", version)

        def opened() -> int | None:
            found = self.reviewer.get("/api/v1/promotions", model=MODEL)["items"]
            return next((row["id"] for row in found if row["version"] == version), None)

        return int(wait(opened, STEP_SECONDS, f"a promotion of version {version}"))

    def follow(self, promotion_id: int, *until: str, weight: int | None = None) -> dict[str, Any]:
        """Print what happens to a promotion until it reaches a state (or a canary weight), and return it."""
        seen = ""

        def arrived() -> dict[str, Any] | None:
            nonlocal seen
            found: dict[str, Any] = self.reviewer.get(f"/api/v1/promotions/{promotion_id}")
            line = found["state"] + (f" {found['progress']['weight']} %" if "weight" in found["progress"] else "")
            if found["last_error"]:
                line += f" ({found['last_error']})"
            if line != seen:
                seen = line
                self.say(f"  version {found['version']}: {line}", style="cyan")
            if weight is not None and found["progress"].get("weight") == weight:
                return found
            return found if found["state"] in until else None

        found: dict[str, Any] = wait(arrived, STEP_SECONDS, f"{' or '.join(until)} of promotion {promotion_id}")
        return found

    def approve(self, found: dict[str, Any]) -> None:
        self.say(f"reviewer: approves digest {found['digest'][7:19]} over REST")
        body = {"decision": "approve", "digest": found["digest"], "reason": "the numbers hold"}
        self.reviewer.post(f"/api/v1/promotions/{found['id']}/approvals", body)

    def record(self, found: dict[str, Any]) -> None:
        seconds = {step["state"].lower(): step["seconds"] for step in found["steps"] if step["seconds"] is not None}
        keys = ("version", "state", "reason")
        self.summary["promotions"].append({key: found[key] for key in keys} | {"seconds": seconds})
        rungs = found["evidence"].get("convert", {}).get("rungs", [])
        self.summary["parity"][found["version"]] = {r["name"]: r.get("wrong_rows") for r in rungs}


def first_release(story: Story) -> None:
    """(a) v1 goes live as the first release."""
    story.say("(a) the first release", style="bold")
    promotion = story.ask("1")
    story.approve(story.follow(promotion, "APPROVAL", "REJECTED", "FAILED"))
    found = story.follow(promotion, "LIVE", "FAILED", "ROLLED_BACK")
    story.record(found)
    story.check("(a) version 1 is live", found["state"] == "LIVE")
    wait(lambda: story.stage.aliases(MODEL).get("production") == "1", 30, "the alias production")
    story.check("(a) MLflow's alias production says 1", story.stage.aliases(MODEL)["production"] == "1")


def replacement(story: Story) -> None:
    """(b) v2 replaces v1 under traffic; (f) meanwhile a worker is killed."""
    story.say("(b) a replacement whose default conversion is wrong", style="bold")
    promotion = story.ask("2")
    waiting = story.follow(promotion, "APPROVAL", "REJECTED", "FAILED")
    rungs = waiting["evidence"]["convert"]["rungs"]
    for rung in rungs:
        story.say(f"  conversion {rung['name']}: {rung.get('wrong_rows')} of {rung.get('rows')} rows differ")
    repaired = bool(rungs[0]["wrong_rows"]) and rungs[-1]["wrong_rows"] == 0
    story.check("(b) the default conversion is wrong on real rows and the ladder repairs it", repaired)
    story.traffic.take()
    story.approve(waiting)
    story.follow(promotion, "LIVE", "ROLLED_BACK", "FAILED", weight=50)
    story.say(f"(f) kill -9 for worker {story.stage.kill('worker-1')}, in the middle of the rollout", style="bold")
    found = story.follow(promotion, "LIVE", "ROLLED_BACK", "FAILED")
    time.sleep(2)
    story.record(found)
    tally = story.traffic.take()
    story.summary["requests"] = {"sent": tally.sent, "failed": tally.failed}
    story.check("(b) version 2 is live", found["state"] == "LIVE")
    story.check(f"(b) none of {tally.sent} requests failed", tally.sent > 100 and tally.failed == 0)
    both = {release.split("@")[0] for seen in tally.releases.values() for release in seen}
    story.check("(b) sticky keys stayed put", not tally.strays() and both == {"1", "2"})
    weights = list(dict.fromkeys(look["weight"] for look in found["evidence"].get("rollout", {}).get("history", [])))
    story.check("(b) traffic moved in steps of 10, 50, 100 %", weights == [10, 50, 100])
    story.check("(f) nobody noticed the killed worker", found["state"] == "LIVE" and tally.failed == 0)
    _explain(story, tally)


def rejection(story: Story) -> None:
    """(c) v3 is worse, and MLflow says why it was refused."""
    story.say("(c) a version that is worse", style="bold")
    found = story.follow(story.ask("3"), "APPROVAL", "REJECTED", "FAILED")
    story.record(found)
    wait(lambda: story.stage.tags(MODEL, "3").get("headgate.status") == "rejected", 30, "the tag in MLflow")
    reason = story.stage.tags(MODEL, "3").get("headgate.reason", "")
    story.say(f"  in MLflow: {reason}")
    story.check("(c) version 3 is rejected and MLflow says why", found["state"] == "REJECTED" and "rmse" in reason)
    story.check("(c) the request is gone from MLflow", "to-production" not in story.stage.aliases(MODEL))


def rollback(story: Story) -> None:
    """(d) v4 is good offline, breaks its guardrail when served, and is rolled back by itself."""
    story.say("(d) good offline, broken on live traffic: listings from a borough nobody had seen", style="bold")
    promotion = story.ask("4")
    waiting = story.follow(promotion, "APPROVAL", "REJECTED", "FAILED")
    story.check("(d) version 4 passes every gate", waiting["state"] == "APPROVAL")
    story.traffic.take()
    story.traffic.strange_share = 0.3
    story.approve(waiting)
    found = story.follow(promotion, "LIVE", "ROLLED_BACK", "FAILED")
    story.record(found)
    time.sleep(1)
    during = story.traffic.take()
    story.summary["requests_during_rollback"] = {"sent": during.sent, "failed": during.failed}
    story.say(f"  {found['reason']}")
    story.check("(d) version 4 is rolled back by its guardrail", found["state"] == "ROLLED_BACK")
    time.sleep(2)
    after = story.traffic.take()
    story.check("(d) afterwards every request succeeds again", after.sent > 20 and after.failed == 0)
    story.check("(d) MLflow's alias production says 2", story.stage.aliases(MODEL).get("production") == "2")
    story.traffic.strange_share = 0.0
    _explain(story, after)


def _explain(story: Story, tally: Tally) -> None:
    for error in dict.fromkeys(tally.errors[:5]):
        story.say(f"  a request failed: {error}", style="red")


def webhooks(story: Story) -> None:
    """(e) a forged webhook is refused, a replayed one changes nothing."""
    story.say("(e) forged and replayed webhooks", style="bold")
    before = len(story.reviewer.get("/api/v1/promotions", model=MODEL)["items"])
    body = json.dumps(
        {
            "entity": "model_version_alias",
            "action": "created",
            "timestamp": "2026-01-01T00:00:00Z",
            "data": {"name": MODEL, "alias": "to-production", "version": "3"},
        }
    ).encode()
    secret = (story.stage.home / "webhook.secret").read_text().strip()
    genuine = signed(secret, body)
    forged = signed("not the secret", body)
    http = story.reviewer.http
    answers = [http.post("/webhooks/mlflow", content=body, headers=headers) for headers in (forged, genuine, genuine)]
    story.check("(e) a forged webhook is refused", answers[0].status_code == 401)
    taken = [answer.status_code == 202 and answer.json()["duplicate"] for answer in answers[1:]]
    story.check("(e) a replayed one is known as such", taken == [False, True])
    time.sleep(3)
    after = len(story.reviewer.get("/api/v1/promotions", model=MODEL)["items"])
    story.check("(e) neither changed anything", before == after)


def trail(story: Story) -> None:
    """(g) the audit trail verifies, and a changed leaf is found."""
    story.say("(g) the audit trail", style="bold")
    checked = story.stage.run("audit", "verify")
    story.say(f"  headgate audit verify: {checked.stdout.strip()}")
    export = story.stage.home / "audit.txt"
    story.stage.run("audit", "export", str(export))
    lines = export.read_text().splitlines()
    key = story.stage.run("audit", "key").stdout.strip()
    whole = story.stage.run("audit", "verify", str(export), "--key", key)
    target = next(n for n, line in enumerate(lines) if '"kind":"approval"' in line)
    digest, _, text = lines[target].partition(" ")
    leaf = json.loads(text)
    leaf["body"]["by"] = "mallory"
    changed = story.stage.home / "audit-changed.txt"
    changed.write_text("\n".join([*lines[:target], f"{digest} {json.dumps(leaf)}", *lines[target + 1 :]]) + "\n")
    found = story.stage.run("audit", "verify", str(changed), "--key", key)
    story.say(f"  with another approver written into leaf {leaf['seq']}: {found.stdout.strip()}")
    tampered = found.returncode == 1 and f"leaf {leaf['seq']} " in found.stdout
    verified = checked.returncode == whole.returncode == 0
    story.summary["audit"] = {"leaves": int(lines[0].split()[2]), "verified": verified, "tamper_found": tampered}
    story.check("(g) the trail verifies", verified and story.summary["audit"]["leaves"] > 0)
    story.check("(g) a changed leaf is found and named", tampered)


def serving(story: Story, body: dict[str, Any]) -> None:
    """What a client gets in the end."""
    answer = story.reviewer.http.post(f"{story.stage.router}/v2/models/{MODEL}/infer", json=body)
    prediction = answer.json()["outputs"][0]["data"][0]
    release = answer.headers["X-Headgate-Release"]
    story.summary["serving"] = {"release": release, "prediction": prediction}
    story.say(f"served by {release}: log-price {prediction:.3f}")
    story.check("in the end version 2 serves", release.startswith("2@"))


def table(summary: dict[str, Any]) -> None:
    """The small table at the end."""
    drawn = Table("version", "ended", "to approval", "approval to live", "wrong rows by conversion", box=None)
    for row in summary["promotions"]:
        seconds = row["seconds"]
        before = sum(v for k, v in seconds.items() if k not in ("approval", "rollout", "live"))
        rollout = f"{seconds['rollout']:.1f} s" if row["state"] == "LIVE" else ""
        rungs = ", ".join(f"{name} {wrong}" for name, wrong in summary["parity"][row["version"]].items())
        drawn.add_row(row["version"], row["state"], f"{before:.1f} s", rollout, rungs)
    out.print(drawn)


def _train(rows: pd.DataFrame, kind: Kind, stage: Stage, source: str) -> Trained:
    """Train quietly: MLflow's chatter would drown the story."""
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        return train(rows, kind, stage.mlflow_uri, MODEL, source)


def play(source: Path | None, home: Path, settings: Mapping[str, str] | None = None) -> bool:
    """Set the stage, tell the story, write the summary; True if all of it came true."""
    begun = time.monotonic()
    fresh(home)
    rows = data.clean(data.load(source))
    policies = home / "policies"
    policies.mkdir()
    holdout = home / "holdout.csv"
    write_holdout(rows, holdout)
    (policies / f"{MODEL}.yaml").write_text(POLICY.read_text().replace('uri: "holdout.csv"', f'uri: "{holdout}"'))
    out.print(f"starting MLflow, API, workers, clock and HAProxy below {home} ...")
    with Stage(home, policies, settings) as stage:
        listings = data.split(rows)[1]
        traffic = Traffic(stage.router, MODEL, listings)
        summary: dict[str, Any] = {"rows": len(rows), "promotions": [], "parity": {}}
        story = Story(stage, stage.person("rita", "reviewer"), traffic, summary, begun=begun)
        kinds: tuple[Kind, ...] = ("linear", "forest", "shuffled", "strict")
        for kind in kinds:
            trained = _train(rows, kind, stage, str(source or "synthetic"))
            story.say(f"data scientist: trained {kind}, version {trained.version}, rmse {trained.metrics['rmse']:.3f}")
        try:
            first_release(story)
            traffic.start()
            replacement(story)
            rejection(story)
            rollback(story)
            webhooks(story)
            traffic.stop()
            trail(story)
            serving(story, data.live_request(listings[data.FEATURES].iloc[[0]]))
        except (TimeoutError, KeyError) as error:
            story.check(f"the story could go on ({error})", False)
        summary["checks"] = story.checks
        summary["seconds"] = round(time.monotonic() - begun, 1)
        (home / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    table(summary)
    return all(story.checks.values())


def main() -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="AB_NYC_2019 CSV, plain or .gz; without it: synthetic rows")
    given = parser.parse_args()
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    mlflow.set_tracking_uri("http://127.0.0.1:1")  # nothing may reach a default store before the stage stands
    home = Path(os.environ.get("HEADGATE_HOME", ".headgate")).resolve() / "demo"
    good = play(given.data, home)
    out.print(f"summary: {home / 'summary.json'}")
    out.print("[bold green]all of it came true[/]" if good else "[bold red]not all of it came true[/]")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
