"""The two sandboxes side by side: the seconds that a worker waits for the same job in each."""

import contextlib
import hashlib
import itertools
import json
import shutil
import statistics
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from app.adapters.bwrap import BwrapSandbox
from app.adapters.docker_sandbox import DockerSandbox
from app.ports import Sandbox, SandboxJob
from ci.bench.conversion import Program
from ci.bench.figures import Group, in_turns, number, ratio, spread
from ci.bench.models import PROGRAMS, TIMEOUT, Models, convert_request
from examples.airbnb.models import Kind
from tests.docker_support import docker_engine, sandbox_image

BWRAP, CONTAINER = "bubblewrap", "a container"
# What a container adds does not depend on the model.
KIND: Kind = "linear"


class Workbench:
    """Runs one program on one model in either sandbox, and sees that both make the same."""

    def __init__(self, folder: Path, inputs: Mapping[str, Path], program: Program) -> None:
        self._folder, self._inputs, self._program = folder, inputs, program
        self._numbers = itertools.count()
        self._made: set[str] = set()

    def measure(self, sandbox: Sandbox) -> float:
        """The seconds of one job."""
        output = self._folder / f"out-{next(self._numbers)}"
        output.mkdir(parents=True)
        request: Mapping[str, Any] = convert_request() if self._program == "convert" else {}
        job = SandboxJob(self._program, self._inputs, request, output, TIMEOUT)
        begun = time.perf_counter()
        result = sandbox.run(job)
        seconds = time.perf_counter() - begun
        made = (output / "model.onnx").read_bytes() if self._program == "convert" else json.dumps(dict(result)).encode()
        self._made.add(hashlib.sha256(made).hexdigest())
        if len(self._made) > 1:
            raise RuntimeError(f"two runs of {self._program} differ")
        shutil.rmtree(output)
        return seconds


def run(folder: Path, models: Models, rounds: Mapping[Program, int]) -> Group:
    """Each program in both sandboxes in turns, after the self-tests, which nobody counts."""
    (folder / "engine").mkdir(parents=True)
    rows, figures = [], {}
    with contextlib.ExitStack() as stack:
        host = stack.enter_context(docker_engine(folder / "engine"))
        boxed = stack.enter_context(contextlib.closing(DockerSandbox(PROGRAMS, host, sandbox_image(host))))
        boxes: Mapping[str, Sandbox] = {BWRAP: BwrapSandbox(PROGRAMS), CONTAINER: boxed}
        proved = {name: _seconds(box) for name, box in boxes.items()}
        for program in rounds:
            bench = Workbench(folder / program, models.inputs(KIND), program)
            found = in_turns({name: partial(bench.measure, box) for name, box in boxes.items()}, rounds[program])
            row, kept = _row(f"{program} {KIND}", found)
            rows.append(row)
            figures[row[0]] = kept
    columns = ["program", f"s in {BWRAP}", f"s in {CONTAINER}", "ratio", "container's own s"]
    notes = [
        f"Rounds: {rounds['scan']} of scans, {rounds['convert']} of conversions, in turns; median and, in brackets, "
        f"least and greatest. Trained on {models.rows_from}. All conversions of a line made the same ONNX bytes.",
        f"The self-test that a worker makes once: {number(proved[BWRAP])} s in {BWRAP}, {number(proved[CONTAINER])} s "
        f"in {CONTAINER}. The engine is of this run's own, on the same machine, and its image was there.",
    ]
    return Group("sandboxes", "The two sandboxes", columns, rows, notes, {**figures, "self_test": proved})


def _seconds(box: Sandbox) -> float:
    begun = time.perf_counter()
    box.self_test()
    return time.perf_counter() - begun


def _row(name: str, found: Mapping[str, Sequence[float]]) -> tuple[list[str], dict[str, Any]]:
    here, there = found[BWRAP], found[CONTAINER]
    more = statistics.median(b - a for a, b in zip(here, there, strict=True))
    compared = ratio(there, here)
    return [name, spread(here), spread(there), number(compared), f"{more:.2f}"], {**found, "ratio": compared}
