"""Trying to get out of the sandbox, for its self-test: each attempt returns whether it succeeded."""

import ctypes
import functools
import importlib.util
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

NEEDED = ("numpy", "pandas", "sklearn", "onnx", "onnxruntime", "skl2onnx", "skops", "cloudpickle", "modelscan", "yaml")
_TIMEOUT = 1.0
_CLONE_NEWUSER = 0x10000000
_OWN_ENVIRONMENT = {
    *("HOME", "TMPDIR", "PWD", "LC_ALL", "LC_CTYPE", "PYTHONHASHSEED", "ORT_DISABLE_TELEMETRY", "OMP_NUM_THREADS"),
    *("OPENBLAS_NUM_THREADS", "LOKY_MAX_CPU_COUNT", "MALLOC_ARENA_MAX", "JOBLIB_MULTIPROCESSING"),
}

Request = dict[str, Any]


def run(request: Request, inputs: Path, output: Path) -> dict[str, Any]:
    """Try every way out and report `{"tried", "escaped", "missing"}`: names of attempts, and packages not found."""
    attempts: dict[str, Callable[[], bool]] = {
        "tcp to the host": lambda: _connects(tuple(request["tcp"])),
        "udp to the host": lambda: _sends(tuple(request["udp"])),
        "name lookup": _resolves,
        "sockets of the virtual machine's host": _speaks_to_the_hypervisor,
        "reading a host file": lambda: Path(request["secret_file"]).exists(),
        "writing outside": lambda: _writes(Path(request["outside"])),
        "writing into an input": lambda: _writes(inputs / request["input_file"]),
        "memory of /dev/shm": lambda: _writes(Path("/dev/shm/planted")),  # noqa: S108 - whether it can be filled
        "seeing host processes": lambda: _sees(request["host_pid"], request["host_comm"]),
        "the host's environment": lambda: _inherits(set(request["environment"])),
        "starting a process": _starts_a_process,
        "being root or capable": _is_privileged,
        "a new namespace": _unshares,
        **{f"writing {file}": functools.partial(_writes, file) for file in _SYSTEM_FILES},
        "writing beside the output": lambda: _writes(output.parent / "planted"),
    }
    escaped = [name for name, attempt in attempts.items() if _succeeds(attempt)]
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    return {"tried": list(attempts), "escaped": escaped, "missing": missing}


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


def _connects(address: tuple[str, int]) -> bool:
    with socket.create_connection(address, timeout=_TIMEOUT):
        return True


def _sends(address: tuple[str, int]) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        return sender.sendto(b"x", address) == 1


def _resolves() -> bool:
    return bool(socket.getaddrinfo("example.com", 80))


def _speaks_to_the_hypervisor() -> bool:
    # Network namespaces do not hold these sockets apart.
    with socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM):
        return True


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


def _sees(pid: int, comm: str) -> bool:
    # Inside, the same number may be another process: it is ours that counts.
    others = [entry.name for entry in Path("/proc").iterdir() if entry.name.isdecimal()]
    return len(others) > 8 or (Path(f"/proc/{pid}/comm").read_text().strip() == comm and pid != os.getpid())


def _inherits(names: set[str]) -> bool:
    return bool((names - _OWN_ENVIRONMENT) & set(os.environ))


def _starts_a_process() -> bool:
    subprocess.run([sys.executable, "-c", ""], check=False, timeout=10)
    return True


def _is_privileged() -> bool:
    status = dict(line.split(":\t", 1) for line in Path("/proc/self/status").read_text().splitlines())
    capable = any(int(status[name].strip(), 16) for name in ("CapEff", "CapPrm", "CapInh", "CapBnd", "CapAmb"))
    return os.getuid() == 0 or capable or status["NoNewPrivs"].strip() != "1"


def _unshares() -> bool:
    return bool(ctypes.CDLL(None).unshare(_CLONE_NEWUSER) == 0)
