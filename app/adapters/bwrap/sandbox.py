"""The `Sandbox` on bubblewrap: one untrusted job in, its result out; a failure is put down to whose fault it is."""

import json
import os
import shutil
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from app.adapters.bwrap.command import Interpreter, Mounts, bwrap_command
from app.adapters.bwrap.running import Bounds, run_bounded
from app.domain.errors import Fault
from app.ports import SandboxJob
from app.sandbox import selftest
from app.sandbox.ending import judge
from app.sandbox.program import check_job, limits
from app.sandbox.result import expect_plain_output, read_result
from app.sandbox.seccomp import filter_program

_NOT_PERMITTED = (
    "Headgate runs untrusted code in a sandbox or not at all. Allow unprivileged user namespaces "
    "(sysctl kernel.unprivileged_userns_clone=1; on Ubuntu an AppArmor profile for bwrap); inside a container run it "
    "with seccomp=unconfined and apparmor=unconfined, or give the workers a machine of their own."
)
_MEND = "Do not promote anything on this machine: mend bubblewrap or the kernel's namespaces first."


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

    def layer(self) -> str:
        """Its name."""
        return "bubblewrap"

    def self_test(self) -> str:
        """Try the ways out from inside, for real, and say what holds.

        Raises:
            Fault: the sandbox cannot be set up, Python's packages are missing in it, or something got out.
        """

        def probe(inputs: Mapping[str, Path], request: Mapping[str, Any], output: Path) -> Mapping[str, Any]:
            job = SandboxJob("scan", inputs, request, output, selftest.TIMEOUT, selftest.MEMORY_MIB)
            return self._run("probe", job)

        tried = selftest.attempt_escape(probe, self._output_mib, _MEND)
        return f"bubblewrap: {len(tried)} ways out were tried from inside, and none is open"

    def _run(self, program: str, job: SandboxJob) -> Mapping[str, Any]:
        bwrap = shutil.which(self._bwrap)
        if bwrap is None:
            raise Fault("bubblewrap (bwrap) is not installed.", "Install the package bubblewrap, version 0.8 or later.")
        check_job(job)
        with _memory_file(json.dumps(dict(job.request)).encode()) as request, _memory_file(filter_program()) as rules:
            mounts = Mounts(self._program_folder, job.inputs, job.output, request, rules)
            command = bwrap_command(bwrap, self._interpreter(job), mounts, program, limits(job, self._output_mib))
            try:
                ending = run_bounded(
                    lambda info: [*command[:1], "--info-fd", str(info), *command[1:]],
                    [request, rules],
                    Bounds(job.timeout.total_seconds(), job.output, self._output_mib << 20),
                )
            except OSError as error:
                raise Fault(f"The sandbox could not be run: {error}", _NOT_PERMITTED) from error
        judge(ending, job, "bwrap", _NOT_PERMITTED)
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
