"""How a program starts inside a sandbox: where things lie there, what it is told, and the limits it puts on itself."""

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from app.domain.errors import Fault
from app.ports import SandboxJob

HOME = "/headgate"
READY = b"headgate sandbox ready\n"
"""What our own code writes first inside; without it, the sandbox was never set up."""

NOBODY = 65534
THREADS = 2
TMP = "/tmp"  # noqa: S108 - the sandbox's own, made anew for each run
TMP_BYTES = 512 << 20
# The program's package is put on the path by hand: without `site`, no .pth file and no user folder has a say.
_BOOTSTRAP = (
    f"import os, sys; os.write(2, {READY!r}); sys.path += ['{HOME}', *sys.argv[3:]];"
    "from sandbox.__main__ import main; main(sys.argv[1], sys.argv[2])"
)
ENVIRONMENT = {
    "HOME": TMP,
    "TMPDIR": TMP,
    "LC_ALL": "C.UTF-8",
    # The same model gives the same bytes of ONNX at every try.
    "PYTHONHASHSEED": "0",
    # Each thread and each arena reserves address space, which is what the memory limit counts.
    "OMP_NUM_THREADS": str(THREADS),
    "OPENBLAS_NUM_THREADS": str(THREADS),
    "LOKY_MAX_CPU_COUNT": str(THREADS),
    "MALLOC_ARENA_MAX": "2",
    "ORT_DISABLE_TELEMETRY": "1",
    # Its semaphores need a writable /dev/shm, and no process can be started here anyway.
    "JOBLIB_MULTIPROCESSING": "0",
}
_INPUT_NAME = re.compile(r"[a-z][a-z0-9_]{0,40}")


@dataclass(frozen=True)
class Limits:
    """What the program may use: MiB of address space, CPU seconds over all threads, MiB of one written file, and how
    many threads its user may have on the whole machine; 0 where the layer itself counts the program's own."""

    memory_mib: int
    cpu_seconds: int
    file_mib: int
    processes: int = 256

    def as_json(self) -> str:
        return json.dumps(asdict(self))


def limits(job: SandboxJob, file_mib: int, processes: int = 256) -> Limits:
    """The job's limits: no more CPU than its threads can use in its time."""
    return Limits(job.memory_mib, int(job.timeout.total_seconds() * THREADS) + 1, file_mib, processes)


def python_words(python: str, program: str, limits: Limits, sites: Sequence[str]) -> list[str]:
    """The command that runs a program, with its packages in the folders `sites`."""
    flags = ("-s", "-S", "-P", "-B", "-X", "faulthandler")
    return [python, *flags, "-c", _BOOTSTRAP, program, limits.as_json(), *sites]


def check_job(job: SandboxJob) -> None:
    """Raises Fault where an input or the packages are missing, a name is odd, or the output is not an empty folder."""
    for name, path in job.inputs.items():
        if not _INPUT_NAME.fullmatch(name) or not path.exists():
            raise Fault(f"the sandbox input {name!a} is missing or oddly named", "This is a bug in the step.")
    if job.environment is not None and not job.environment.is_dir():
        raise Fault(f"the packages {job.environment} are gone", "Somebody removed them: `headgate retry`.")
    if not job.output.is_dir() or any(job.output.iterdir()):
        raise Fault(f"the sandbox output {job.output} is not an empty folder", "This is a bug in the step.")
