"""The `Sandbox` on bubblewrap: one untrusted job in, its result out; a failure is put down to whose fault it is."""

import json
import os
import re
import shutil
import signal
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from app.adapters.bwrap import selftest
from app.adapters.bwrap.command import READY, THREADS, Interpreter, Limits, Mounts, bwrap_command
from app.adapters.bwrap.result import expect_plain_output, read_result
from app.adapters.bwrap.running import Bounds, Ending, run_bounded
from app.adapters.bwrap.seccomp import filter_program
from app.domain.errors import Fault, Rejected
from app.ports import SandboxJob

_INPUT_NAME = re.compile(r"[a-z][a-z0-9_]{0,40}")
_NOT_PERMITTED = (
    "Headgate runs untrusted code in a sandbox or not at all. Allow unprivileged user namespaces "
    "(sysctl kernel.unprivileged_userns_clone=1; on Ubuntu an AppArmor profile for bwrap); inside a container run it "
    "with seccomp=unconfined and apparmor=unconfined, or give the workers a machine of their own."
)
_BROKE: Mapping[str, str] = {
    "output": "wrote too much",
    "talk": "printed without end",
    "threads": "started threads without end",
}
_SIGNALS = {128 + number: number for number in signal.valid_signals()}


class BwrapSandbox:
    """Runs each job in fresh namespaces: no network, no capabilities, no host files but Python, the inputs and /out.

    A run may use one process with threads, `job.memory_mib` of address space (Python with ONNX Runtime reserves about
    2 GiB of it before it does anything), its wall clock and no more CPU than fits into that, and `output_mib` in /out.
    """

    def __init__(
        self, program_folder: Path, python: Interpreter | None = None, bwrap: str = "bwrap", output_mib: int = 2048
    ) -> None:
        """`program_folder` holds the package of programs, `python` defaults to the interpreter that runs this."""
        self._program_folder = program_folder.resolve()
        self._python = python or this_interpreter()
        self._bwrap = bwrap
        self._output_mib = output_mib

    def run(self, job: SandboxJob) -> Mapping[str, Any]:
        """Run the job; what it writes to /out ends in `job.output`, an empty folder that must exist.

        Raises:
            Rejected: the program crashed, broke a limit, answered nonsense or left links in /out.
            Fault: the sandbox could not be set up.
        """
        return self._run(job.program, job)

    def self_test(self) -> str:
        """Try the ways out from inside, for real, and say what holds.

        Raises:
            Fault: the sandbox cannot be set up, Python's packages are missing in it, or something got out.
        """

        def probe(inputs: Mapping[str, Path], request: Mapping[str, Any], output: Path) -> Mapping[str, Any]:
            job = SandboxJob("scan", inputs, request, output, selftest.TIMEOUT, selftest.MEMORY_MIB)
            return self._run("probe", job)

        tried = selftest.attempt_escape(probe, self._output_mib)
        return f"bubblewrap: {len(tried)} ways out were tried from inside, and none is open"

    def _run(self, program: str, job: SandboxJob) -> Mapping[str, Any]:
        bwrap = shutil.which(self._bwrap)
        if bwrap is None:
            raise Fault("bubblewrap (bwrap) is not installed.", "Install the package bubblewrap, version 0.8 or later.")
        _check(job)
        seconds = job.timeout.total_seconds()
        limits = Limits(job.memory_mib, int(seconds * THREADS) + 1, self._output_mib)
        with _memory_file(json.dumps(dict(job.request)).encode()) as request, _memory_file(filter_program()) as rules:
            mounts = Mounts(self._program_folder, job.inputs, job.output, request, rules)
            command = bwrap_command(bwrap, self._interpreter(job), mounts, program, limits)
            try:
                ending = run_bounded(
                    lambda info: [*command[:1], "--info-fd", str(info), *command[1:]],
                    [request, rules],
                    Bounds(seconds, job.output, self._output_mib << 20),
                )
            except OSError as error:
                raise Fault(f"The sandbox could not be run: {error}", _NOT_PERMITTED) from error
        _judge(ending, job)
        expect_plain_output(job.output)
        return read_result(job.output / "result.json")

    def _interpreter(self, job: SandboxJob) -> Interpreter:
        """Python with the packages that the job asks for instead of our own: the program itself stays the same."""
        return self._python if job.environment is None else replace(self._python, site_packages=[job.environment])


def this_interpreter() -> Interpreter:
    """The Python that runs this, with its packages."""
    paths = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    executable = Path(sys.executable).resolve()
    return Interpreter(executable, Path(sys.base_prefix).resolve(), [Path(path) for path in sorted(paths)])


def _check(job: SandboxJob) -> None:
    for name, path in job.inputs.items():
        if not _INPUT_NAME.fullmatch(name) or not path.exists():
            raise Fault(f"the sandbox input {name!a} is missing or oddly named", "This is a bug in the step.")
    if job.environment is not None and not job.environment.is_dir():
        raise Fault(f"the packages {job.environment} are gone", "Somebody removed them: `headgate retry`.")
    if not job.output.is_dir() or any(job.output.iterdir()):
        raise Fault(f"the sandbox output {job.output} is not an empty folder", "This is a bug in the step.")


@contextmanager
def _memory_file(data: bytes) -> Iterator[int]:
    """A descriptor to read `data` from, for bwrap to inherit."""
    descriptor = os.memfd_create("sandbox", os.MFD_CLOEXEC)
    try:
        with os.fdopen(os.dup(descriptor), "wb") as stream:
            stream.write(data)
        os.lseek(descriptor, 0, os.SEEK_SET)
        yield descriptor
    finally:
        os.close(descriptor)


def _judge(ending: Ending, job: SandboxJob) -> None:
    """Raise what the ending of a run means, if it is not a good one."""
    said = _last_words(ending.talk.tail)
    if not ending.talk.head.startswith(READY):
        raise Fault(
            f"The sandbox could not be set up: {said or f'bwrap ended with status {ending.status}'}", _NOT_PERMITTED
        )
    if ending.broke == "time":
        reason = f"took longer than {job.timeout.total_seconds():g} s"
        raise Rejected(f"The sandboxed {job.program} {reason} and was stopped.", "Make the model smaller or faster.")
    if ending.broke:
        reason = f"The sandboxed {job.program} {_BROKE[ending.broke]} and was stopped."
        raise Rejected(reason, "Look at what runs when it is loaded.")
    if ending.status == 0:
        return
    number = _SIGNALS.get(ending.status)
    if number == signal.SIGXCPU or (number == signal.SIGKILL and not said):
        raise Rejected(f"The sandboxed {job.program} used up its CPU time.", "Make the model smaller or faster.")
    if any(word in said for word in ("MemoryError", "bad_alloc", "Unable to allocate", "Cannot allocate memory")):
        reason = f"needs more than the {job.memory_mib} MiB that it may use"
        raise Rejected(f"The sandboxed {job.program} {reason} ({said}).", "Make the model smaller.")
    how = f"crashed ({signal.Signals(number).name})" if number else f"failed (status {ending.status})"
    raise Rejected(f"The sandboxed {job.program} {how}: {said}", "Load and score the model where it was trained.")


def _last_words(tail: bytes) -> str:
    """The last lines that were said, safe to show: printable, and at most 400 characters."""
    lines = [line.strip() for line in tail.decode(errors="replace").splitlines()]
    # Python marks the place of an error by a line of ^ below it, which says nothing here.
    telling = [line for line in lines if line.strip("^~ ") and line != READY.decode().strip()]
    words = " | ".join(telling[-2:])
    return "".join(character if character.isprintable() else " " for character in words)[-400:]
