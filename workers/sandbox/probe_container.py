"""Ways out of a container, and layers that only a container has: what Docker was asked for, as seen from inside."""

import ctypes
import errno
import functools
import mmap
import os
import platform
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

_CGROUPS = Path("/sys/fs/cgroup")
_MIB = 1 << 20
# quotactl, which Docker's own filter refuses and ours does not; with no such kind of quota it does nothing.
_QUOTACTL = {"x86_64": 179, "aarch64": 60}
_NO_SUCH_QUOTA = 0xFF
_LARGEST = 1 << 60


def attempts(request: dict[str, Any], output: Path) -> dict[str, Callable[[], bool]]:
    """By name; `request["container"]` is `{"engine", "threads"}`."""
    asked = request["container"]
    folders = {"/tmp": Path("/tmp"), "the output": output}  # noqa: S108 - the sandbox's own
    return {
        "the API of the container engine": functools.partial(_reaches, asked["engine"]),
        "no filter of Docker's own": _passes_docker,
        "no limit of the container's memory": lambda: _limit("memory.max", "memory/memory.limit_in_bytes") is None,
        "swap beyond the container's memory": _swaps,
        "no limit of the container's processes": lambda: _above(asked["threads"], "pids.max", "pids/pids.max"),
        "no limit of the container's CPU": lambda: _limit("cpu.max", "cpu/cpu.cfs_quota_us") is None,
        **{f"running code from {name}": functools.partial(_runs_code, folder) for name, folder in folders.items()},
    }


def _reaches(engine: str) -> bool:
    kind, _, address = engine.partition("://")
    if kind == "unix":
        return Path(address).exists()
    host, _, port = address.partition("/")[0].rpartition(":")
    with socket.create_connection((host, int(port)), timeout=0.5):
        return True


def _passes_docker() -> bool:
    libc = ctypes.CDLL(None, use_errno=True)
    number = _QUOTACTL[platform.machine()]
    answer = libc.syscall(ctypes.c_long(number), ctypes.c_long(_NO_SUCH_QUOTA), None, ctypes.c_long(0), None)
    return bool(answer != -1 or ctypes.get_errno() not in (errno.EPERM, errno.ENOSYS))


def _limit(unified: str, legacy: str) -> int | None:
    """The limit in this container's own group, by either version of cgroups; None where there is none."""
    for name in (unified, legacy):
        try:
            word = (_CGROUPS / name).read_text().split()[0]
        except FileNotFoundError:
            continue
        value = _LARGEST if word == "max" else int(word)
        return value if 0 <= value < _LARGEST else None
    return None


def _above(most: int, unified: str, legacy: str) -> bool:
    limit = _limit(unified, legacy)
    return limit is None or limit > most


def _swaps() -> bool:
    """Whether memory may go to the disk beyond the limit; a machine without swap cannot do that."""
    if len(Path("/proc/swaps").read_text().splitlines()) <= 1:
        return False
    if (_CGROUPS / "memory.swap.max").exists():
        return _limit("memory.swap.max", "") != 0
    return _limit("", "memory/memory.memsw.limit_in_bytes") != _limit("", "memory/memory.limit_in_bytes")


def _runs_code(folder: Path) -> bool:
    file = folder / "planted-code"
    file.write_bytes(bytes(mmap.PAGESIZE))
    try:
        with file.open("rb") as stream:
            mmap.mmap(stream.fileno(), mmap.PAGESIZE, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_EXEC).close()
    finally:
        file.unlink()
    return True


def is_writable(place: Path) -> bool:
    """Whether what is mounted there could be written to, had somebody the rights."""
    return not os.statvfs(place).f_flag & os.ST_RDONLY
