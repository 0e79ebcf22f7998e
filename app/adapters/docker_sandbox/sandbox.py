"""The `Sandbox` on containers: one untrusted job in, its result out; a failure is put down to whose fault it is."""

import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from docker.errors import ImageNotFound

from app.adapters.docker_sandbox.cargo import pack, parse, receive
from app.adapters.docker_sandbox.container import PROCESSES, Cell, left_over, throw_away
from app.adapters.docker_sandbox.streams import Broken, Closed, Streams
from app.docker_daemon import Daemon, translated
from app.domain.errors import Fault, Rejected, Transient
from app.ports import SandboxJob
from app.sandbox import selftest
from app.sandbox.ending import Ending, judge
from app.sandbox.program import check_job, limits
from app.sandbox.result import read_result
from app.sandbox.seccomp import filter_program

_NOT_SET_UP = (
    "Headgate runs untrusted code in a sandbox or not at all. See that HEADGATE_SANDBOX_IMAGE is the image that "
    "`make sandbox-image` builds from this version of Headgate."
)
_MEND = "Do not promote anything with this Docker: mend it first, cgroups and its system call filter included."
_BROKE = ("", "time", "memory", "output")


class DockerSandbox:
    """Runs each job in a container: no network, no capabilities, nothing of the host, a read-only root.

    A run may use one process with threads, `job.memory_mib` of address space, its wall clock and no more CPU than fits
    into that, and `output_mib` in /out, which is memory of the container. Inputs are handed over through Docker's API,
    so that the daemon need not see the worker's files; what a run leaves is sent by our own first process in the
    container, and the daemon looks at none of it. When the worker dies, the container ends.
    """

    def __init__(
        self, program_folder: Path, docker_host: str, image: str, owner: str = "headgate", output_mib: int = 2048
    ) -> None:
        """`program_folder` holds the package of programs, `image` names what `make sandbox-image` builds; which one
        that is, is settled for good when it is first needed."""
        self._program_folder = program_folder.resolve()
        self._host, self._image, self._owner, self._output_mib = docker_host, image, owner, output_mib
        self._daemon = Daemon(docker_host, timeout=120)
        self._lock = threading.Lock()
        self._image_id = ""

    def run(self, job: SandboxJob) -> Mapping[str, Any]:
        """Run the job; what it writes to /out ends in `job.output`, an empty folder that must exist.

        Raises:
            Rejected: the program crashed, broke a limit, answered nonsense or left links in /out.
            Fault: the sandbox could not be set up.
            Transient: the Docker daemon does not answer, or the container was ended from outside.
        """
        return self._run(job.program, job)

    def layer(self) -> str:
        """Containers, and of which image; raises as `image`."""
        return f"containers of {self.image()}"

    def self_test(self) -> str:
        """Try the ways out from inside, for real, and say what holds.

        Raises:
            Fault: the sandbox cannot be set up, Python's packages are missing in it, or something got out.
            Transient: the Docker daemon does not answer.
        """

        def probe(inputs: Mapping[str, Path], request: Mapping[str, Any], output: Path) -> Mapping[str, Any]:
            job = SandboxJob("scan", inputs, request, output, selftest.TIMEOUT, selftest.MEMORY_MIB)
            return self._run("probe", job)

        tried = selftest.attempt_escape(probe, self._output_mib, _MEND, {"engine": self._host, "threads": PROCESSES})
        return f"{self.layer()}: {len(tried)} ways out were tried from inside, and none is open"

    def image(self) -> str:
        """The id of the image that all containers of this sandbox are made of, `sha256:...`.

        Raises:
            Fault: there is none of that name.
            Transient: the Docker daemon does not answer.
        """
        with self._lock:
            if not self._image_id:
                with translated(f"find {self._image}"):
                    try:
                        self._image_id = str(self._daemon.client().images.get(self._image).id)
                    except ImageNotFound as error:
                        remedy = "Run `make sandbox-image`, or name another by HEADGATE_SANDBOX_IMAGE."
                        raise Fault(f"There is no image {self._image} at {self._host}.", remedy) from error
            return self._image_id

    def close(self) -> None:
        """Close the connections to the daemon."""
        self._daemon.close()

    def _run(self, program: str, job: SandboxJob) -> Mapping[str, Any]:
        check_job(job)
        cell = Cell(self.image(), self._owner, self._output_mib)
        bounds = limits(job, self._output_mib, processes=0)
        # Beside the output there is room for a model; in a container's /tmp there may be none.
        with tempfile.TemporaryFile(dir=job.output.parent) as cargo:
            pack(cargo, self._program_folder, filter_program(), job)
            cargo.seek(0)
            with translated(f"run the sandboxed {job.program}"):
                self._sweep()
                with cell.opened(self._daemon, cargo, job, program, bounds) as streams:
                    _attend(streams, job)
                    _take(streams, job, self._output_mib << 20)
        return read_result(job.output / "result.json")

    def _sweep(self) -> None:
        for container in left_over(self._daemon, self._owner, time.time()):
            throw_away(container)


def _attend(streams: Streams, job: SandboxJob) -> None:
    """Wait for the program's end, or for a reason to stop it; raises what that means, if it is not a good one."""
    try:
        ending = _ending(parse(streams), streams)
    except Broken as broken:
        ending = Ending(0, str(broken), streams.talk)
    except Closed:
        if streams.talk.head:
            raise _ended_from_outside() from None
        ending = Ending(0, "", streams.talk)
    judge(ending, job, "the container", _NOT_SET_UP)


def _ending(report: Mapping[str, Any], streams: Streams) -> Ending:
    status, broke = report.get("status"), report.get("broke")
    if not isinstance(status, int) or broke not in _BROKE:
        raise Rejected("The sandboxed program forged its own end.", "Look at what runs when it is loaded.")
    return Ending(status, broke, streams.talk)


def _take(streams: Streams, job: SandboxJob, most_bytes: int) -> None:
    """Take what the run left."""
    try:
        receive(streams, job.output, most_bytes)
    except Broken as broken:
        judge(Ending(0, str(broken), streams.talk), job, "the container", _NOT_SET_UP)
    except Closed:
        raise _ended_from_outside() from None


def _ended_from_outside() -> Transient:
    return Transient("The sandbox's container was ended from outside.", "See the log of the Docker daemon.")
