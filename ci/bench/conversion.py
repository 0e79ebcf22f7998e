"""Scanning and converting the example's models: seconds in the sandbox, and the sandbox's own share of them."""

import hashlib
import itertools
import json
import shutil
import statistics
import subprocess
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

from app.adapters.bwrap import BwrapSandbox
from app.adapters.bwrap.command import Mounts, bwrap_command
from app.adapters.bwrap.sandbox import this_interpreter
from app.ports import SandboxJob
from app.sandbox.program import Limits
from ci.bench.figures import Group, in_turns, number, ratio, spread
from ci.bench.models import PROGRAMS, ROOT, TIMEOUT, Models, convert_request
from ci.bench.plain import BOOTSTRAP
from examples.airbnb.models import Kind

Program = Literal["scan", "convert"]
KINDS: tuple[Kind, ...] = ("linear", "gbr", "forest")
SANDBOX, PLAIN = "bubblewrap", "plain process"


class Workbench:
    """Runs a program on a model, in the sandbox or outside; `inputs` holds `model` and `rows`."""

    def __init__(self, folder: Path, inputs: Path, request: Mapping[str, Any]) -> None:
        self._folder, self._inputs, self._request = folder, inputs, request
        self._numbers = itertools.count()
        self.made: dict[str, Any] = {}

    def sandboxed(self, program: Program) -> float:
        """The seconds that a worker waits for the program in the sandbox."""
        output = self._output()
        job = SandboxJob(program, {path.name: path for path in self._inputs.iterdir()}, self._request, output, TIMEOUT)
        begun = time.perf_counter()
        BwrapSandbox(PROGRAMS).run(job)
        return self._ended(begun, program, output)

    def plain(self, program: Program) -> float:
        """The seconds that the same program takes with the same Python, without a sandbox."""
        output, python = self._output(), this_interpreter()
        arguments = [program, json.dumps(self._request), str(self._inputs), str(output)]
        folders = [str(ROOT), *map(str, python.site_packages)]
        command = [str(python.executable), "-s", "-S", "-P", "-B", "-c", BOOTSTRAP, *arguments, *folders]
        environment = _sandbox_environment(output)
        begun = time.perf_counter()
        # The end of its output is noticed at once; without a pipe a wait with a time limit only looks now and then.
        done = subprocess.run(command, env=environment, capture_output=True, timeout=TIMEOUT.total_seconds())
        if done.returncode:
            raise RuntimeError(f"the plain {program} failed: {done.stderr.decode(errors='replace')[-2000:]}")
        return self._ended(begun, program, output)

    def _output(self) -> Path:
        output = self._folder / f"out-{next(self._numbers)}"
        output.mkdir(parents=True)
        return output

    def _ended(self, begun: float, program: Program, output: Path) -> float:
        """Take the time, and see that every run made the same: else the times could not be compared."""
        seconds = time.perf_counter() - begun
        made = json.loads((output / "result.json").read_text())
        if program == "convert":
            onnx = hashlib.sha256((output / "model.onnx").read_bytes()).hexdigest()
            made = {"onnx": onnx, **{name: made[name] for name in ("rows", "chosen", "rungs")}}
        if self.made and self.made != made:
            raise RuntimeError(f"two runs of {program} on {self._inputs} differ: {self.made} and {made}")
        self.made = made
        return seconds


def _sandbox_environment(output: Path) -> dict[str, str]:
    """The variables that the sandbox sets, read from its own command line so that both sides always agree."""
    mounts, limits = Mounts(PROGRAMS, {}, output, 0, 0), Limits(0, 0, 0)
    words = bwrap_command("bwrap", this_interpreter(), mounts, "scan", limits)
    return {words[at + 1]: words[at + 2] for at, word in enumerate(words) if word == "--setenv"}


def run(folder: Path, models: Models, rounds: Mapping[Program, int]) -> Group:
    """Each program on each model, sandboxed and plain in turns."""
    measured = []
    for kind in KINDS:
        inputs = folder / f"{kind}-inputs"
        shutil.copytree(models.saved(kind), inputs / "model")
        shutil.copy(models.holdout, inputs / "rows")
        for program in rounds:
            request = convert_request() if program == "convert" else {}
            bench = Workbench(folder / f"{kind}-{program}", inputs, request)
            sides = {SANDBOX: partial(bench.sandboxed, program), PLAIN: partial(bench.plain, program)}
            measured.append(_row(kind, program, in_turns(sides, rounds[program]), bench.made))
    columns = ["program", f"s in {SANDBOX}", f"s in a {PLAIN}", "ratio", "sandbox's own s", "its share"]
    notes = [
        f"Rounds: {rounds['scan']} of scans, {rounds['convert']} of conversions; median and, in brackets, least and "
        f"greatest. Trained on {models.rows_from}; a conversion is judged on 5,000 rows of the holdout, as under the "
        "example's policy.",
        "Both sides run the same program with the same Python, packages and variables, start included. The plain side "
        "is outside the sandbox only because these models are our own. All runs of a line made the same ONNX bytes.",
    ]
    figures = {row[0]: found for row, found in measured}
    return Group("conversion", "Scan and convert", columns, [row for row, _ in measured], notes, figures)


def _row(
    kind: Kind, program: Program, found: Mapping[str, Sequence[float]], made: Mapping[str, Any]
) -> tuple[list[str], dict[str, Any]]:
    inside, outside = found[SANDBOX], found[PLAIN]
    own = statistics.median(a - b for a, b in zip(inside, outside, strict=True))
    share = own / statistics.median(inside)
    rungs = f" (of {len(made['rungs'])} rungs tried `{made['chosen']}`)" if program == "convert" else ""
    compared = ratio(inside, outside)
    cells = [spread(inside), spread(outside), number(compared), f"{own:.2f}", f"{share:.0%}"]
    return [f"{program} {kind}{rungs}", *cells], {**found, "ratio": compared, "own_seconds": own}
