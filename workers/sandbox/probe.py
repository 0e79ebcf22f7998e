"""Trying to get out of the sandbox, for its self-test: each attempt returns whether it succeeded."""

import functools
import importlib.util
import mmap
import os
import resource
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from . import probe_container, probe_kernel, probe_network

NEEDED = (
    *("numpy", "pandas", "sklearn", "onnx", "onnxruntime", "skl2onnx", "skops", "cloudpickle", "yaml"),
    *("modelscan", "picklescan"),
)
MANY_THREADS = 1000
_HELD_SECONDS = 5.0
_STACK_BYTES = 64 << 10
_MIB = 1 << 20
_OWN_ENVIRONMENT = {
    *("HOME", "TMPDIR", "PWD", "LC_ALL", "LC_CTYPE", "PYTHONHASHSEED", "ORT_DISABLE_TELEMETRY", "OMP_NUM_THREADS"),
    *("OPENBLAS_NUM_THREADS", "LOKY_MAX_CPU_COUNT", "MALLOC_ARENA_MAX", "JOBLIB_MULTIPROCESSING"),
}

Request = dict[str, Any]
Attempts = dict[str, Callable[[], bool]]


def run(request: Request, inputs: Path, output: Path) -> dict[str, Any]:
    """Try every way out and report `{"tried", "escaped", "missing"}`: names of attempts, and packages not found.

    With `request["bomb"]` nothing else is tried than more threads than anybody needs.
    """
    if request.get("bomb"):
        attempts: Attempts = {"threads without end": _threads}
    else:
        attempts = {
            **probe_network.attempts(request),
            **_files(request, inputs, output),
            **_processes(request),
            **_quantities(request, output),
            **probe_kernel.attempts(),
            **(probe_container.attempts(request, output) if request["container"] else {}),
        }
    escaped = [name for name, attempt in attempts.items() if _succeeds(attempt)]
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    return {"tried": list(attempts), "escaped": escaped, "missing": missing}


def _files(request: Request, inputs: Path, output: Path) -> Attempts:
    secret, outside = Path(request["secret_file"]), Path(request["outside"])
    return {
        "reading a host file": lambda: _reads(secret),
        "following a link out of an input": lambda: _reads(inputs / request["link"]),
        "climbing out of an input": lambda: _reads((inputs / request["link"]).parent / ".." / secret.name),
        "writing outside": lambda: _writes(outside),
        "writing into an input": lambda: _writes(inputs / request["input_file"]),
        "memory of /dev/shm": lambda: _writes(Path("/dev/shm/planted")),  # noqa: S108 - whether it can be filled
        **{f"writing {file}": functools.partial(_writes, file) for file in _SYSTEM_FILES},
        "writing beside the output": lambda: _writes(output.parent / "planted"),
        "a root that is not read-only": lambda: probe_container.is_writable(Path("/")),
        "inputs that are not read-only": lambda: probe_container.is_writable(inputs / request["input_file"]),
        "programs that are not read-only": lambda: probe_container.is_writable(Path(__file__)),
    }


def _processes(request: Request) -> Attempts:
    return {
        "seeing host processes": lambda: _sees(request["host_pid"], request["host_comm"]),
        "the files and variables of other processes": lambda: _looks_into_others(request),
        "the host's environment": lambda: bool(_foreign(request) & set(os.environ)),
    }


def _quantities(request: Request, output: Path) -> Attempts:
    return {
        "more memory than allowed": lambda: _maps(request["memory_mib"] + 64),
        "a larger file than allowed": lambda: _grows(output / "large", request["file_mib"] + 1),
        "raising its own limits": _raises_its_limits,
        "no limit of CPU time": lambda: resource.getrlimit(resource.RLIMIT_CPU)[1] == resource.RLIM_INFINITY,
    }


_SYSTEM_FILES = (
    Path("/headgate/sandbox/planted.py"),
    Path("/usr/lib/planted"),
    Path("/dev/planted"),
    Path("/proc/sys/kernel/core_pattern"),
    Path("/proc/sysrq-trigger"),
    Path(sys.prefix) / "planted",
)


def _succeeds(attempt: Callable[[], bool]) -> bool:
    try:
        return attempt()
    except OSError:
        return False


def _reads(file: Path) -> bool:
    return bool(file.read_bytes())


def _writes(file: Path) -> bool:
    """Open for writing without changing what is there: a success shall do no harm outside."""
    existed = file.exists()
    try:
        with file.open("ab"):
            pass
    except OSError:
        return False
    if not existed:
        file.unlink()
    return True


def _others() -> list[Path]:
    return [entry for entry in Path("/proc").iterdir() if entry.name.isdecimal() and int(entry.name) != os.getpid()]


def _sees(pid: int, comm: str) -> bool:
    # Inside, the same number may be another process: it is ours that counts.
    return len(_others()) > 7 or (Path(f"/proc/{pid}/comm").read_text().strip() == comm and pid != os.getpid())


def _foreign(request: Request) -> set[str]:
    return set(request["environment"]) - _OWN_ENVIRONMENT


def _looks_into_others(request: Request) -> bool:
    """The secret by way of another process's root, or a variable of the host in another one's environment."""
    foreign = {name.encode() for name in _foreign(request)}

    def gives(process: Path) -> bool:
        names = {entry.partition(b"=")[0] for entry in (process / "environ").read_bytes().split(b"\0")}
        return bool(names & foreign) or _reads(process / "root" / request["secret_file"].lstrip("/"))

    return any(_succeeds(functools.partial(gives, process)) for process in _others())


def _maps(mib: int) -> bool:
    with mmap.mmap(-1, mib * _MIB, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS):
        return True


def _grows(file: Path, mib: int) -> bool:
    try:
        with file.open("wb") as stream:
            stream.truncate(mib * _MIB)
            return True
    finally:
        file.unlink(missing_ok=True)


def _raises_its_limits() -> bool:
    before = resource.getrlimit(resource.RLIMIT_AS)
    if before[1] == resource.RLIM_INFINITY:
        return True
    try:
        resource.setrlimit(resource.RLIMIT_AS, (before[0], before[1] + _MIB))
    except ValueError:  # what Python makes of a refusal
        return False
    return True


def _threads() -> bool:
    """Whether so many threads can live for a moment: small stacks, so that the memory limit does not end them."""
    threading.stack_size(_STACK_BYTES)
    end = threading.Event()
    try:
        for _ in range(MANY_THREADS):
            threading.Thread(target=end.wait, daemon=True).start()
        # Whoever counts them from outside may not get a turn at once on a busy machine.
        time.sleep(_HELD_SECONDS)
    except RuntimeError:
        return False
    finally:
        end.set()
    return True
