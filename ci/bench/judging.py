"""From REQUESTED to the end of GATES: what a data scientist waits for a verdict, and how much of it is the sandbox."""

import json
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from app.adapters.bwrap import BwrapSandbox
from app.adapters.proven import ProvenSandbox
from app.db.migrate import upgrade
from app.db.session import Database
from app.domain.errors import Rejected
from app.domain.promotion import State
from app.policy_files import parse
from app.ports import Endpoint, Sandbox, SandboxJob
from ci.bench.figures import Group, number, spread
from ci.bench.models import PROGRAMS, ROOT, Models
from examples.airbnb.models import Kind
from tests.fakes import FakeClient, FakeSandbox
from tests.plant import MODEL, World

KINDS: tuple[Kind, ...] = ("linear", "gbr", "forest")
STEPS = (State.REQUESTED, State.SNAPSHOT, State.SCAN, State.CONVERT, State.GATES)


@dataclass
class Timed(FakeSandbox):
    """The real sandbox, and the seconds that workers waited for it by program. It has proved itself before."""

    sandbox: Sandbox = field(default_factory=lambda: ProvenSandbox(BwrapSandbox(PROGRAMS)))
    seconds: dict[str, float] = field(default_factory=dict)

    def run(self, job: SandboxJob) -> Mapping[str, Any]:
        begun = time.perf_counter()
        try:
            return self.sandbox.run(job)
        finally:
            self.seconds[job.program] = self.seconds.get(job.program, 0.0) + time.perf_counter() - begun

    def layer(self) -> str:
        return self.sandbox.layer()


@dataclass
class Nobody(FakeClient):
    """Ends the promotion where it would be served: what is measured is over by then."""

    def infer(self, endpoint: Endpoint, model: str, body: Mapping[str, Any]) -> Mapping[str, Any]:  # noqa: ARG002 -- nobody is asked
        raise Rejected("A benchmark serves nothing.")


def run(folder: Path, models: Models, rounds: int) -> Group:
    """The example's staging promotion of each model, from the request to the verdict of its gates."""
    rows, figures = [], dict[str, Any]()
    for kind in KINDS:
        found = [_verdict(folder / f"{kind}-{number}", models, kind) for number in range(rounds)]
        whole, boxed = [sum(steps.values()) for steps, _ in found], [sum(box.values()) for _, box in found]
        share = statistics.median(inside / total for inside, total in zip(boxed, whole, strict=True))
        steps = " / ".join(number(statistics.median(steps[state.value] for steps, _ in found)) for state in STEPS[1:])
        rows.append([kind, spread(whole), steps, spread(boxed), f"{share:.0%}"])
        figures[kind] = {"seconds": whole, "sandbox_seconds": boxed, "share": share}
    columns = ["model", "s to the verdict", "SNAPSHOT / SCAN / CONVERT / GATES s", "s in the sandbox", "its share"]
    notes = [
        f"Rounds: {rounds}; median and, in brackets, least and greatest. Trained on {models.rows_from}, judged on "
        "5,000 rows by the example's policy for staging; the sandbox had proved itself before.",
        "MLflow and what comes after GATES are stood in for: the artifacts lie on the same disk.",
    ]
    return Group("judging", "From a request to a verdict", columns, rows, notes, figures)


def _verdict(folder: Path, models: Models, kind: Kind) -> tuple[dict[str, float], dict[str, float]]:
    """Seconds by step, and in the sandbox by program, of one promotion in an installation of its own."""
    folder.mkdir()
    url = f"sqlite:///{folder / 'headgate.db'}"
    upgrade(url)
    database = Database(url)
    try:
        sandbox = Timed()
        sandbox.sandbox.self_test()
        world = World(database, folder, sandbox=sandbox, client=Nobody())
        world.registry.register(MODEL, "9", models.saved(kind))
        world.policies.known[MODEL] = _policy(models.holdout)
        shown = world.run(world.ask("9", "staging"))
        gates = shown["evidence"].get("gates", {})
        if gates.get("verdict") != "pass":
            raise RuntimeError(f"the example's {kind} did not pass: {json.dumps(shown, default=str)[:2000]}")
        return {step["state"]: step["seconds"] for step in shown["steps"] if step["state"] in STEPS}, sandbox.seconds
    finally:
        database.close()


def _policy(holdout: Path) -> Any:
    policy = parse((ROOT / "examples" / "airbnb" / "policy.yaml").read_text())
    staging = policy.environments["staging"]
    assert staging.data is not None
    return replace(policy, environments={"staging": replace(staging, data=replace(staging.data, uri=str(holdout)))})
