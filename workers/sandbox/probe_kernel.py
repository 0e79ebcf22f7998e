"""Ways out of the sandbox through the kernel: processes, privileges, and system calls that the filter refuses."""

import ctypes
import errno
import functools
import os
import platform
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

_CLONE_NEWUSER = 0x10000000
_NOBODY = 0x3FFFFFFF
# By system call: its number on x86_64 and aarch64, and arguments with which it does nothing wherever it is allowed.
_CALLS = {
    "ptrace": (101, 117, (0x4206, _NOBODY, 0, 0)),
    "process_vm_readv": (310, 270, (_NOBODY, 0, 0, 0, 0, 0)),
    "setns": (308, 268, (-1, 0)),
    "keyctl": (250, 219, (-1, 0, 0, 0, 0)),
    "bpf": (321, 280, (-1, 0, 0)),
    "io_uring_setup": (425, 425, (0, 0)),
    "userfaultfd": (323, 282, (-1,)),
}
_REFUSALS = (errno.EPERM, errno.ENOSYS)


def attempts() -> dict[str, Callable[[], bool]]:
    """By name."""
    return {
        "starting a process": _starts_a_process,
        "forking": _forks,
        "being root or capable": _is_privileged,
        "becoming root": _becomes_root,
        "no system call filter": lambda: _status()["Seccomp"] != "2",
        "a new namespace": lambda: bool(ctypes.CDLL(None).unshare(_CLONE_NEWUSER) == 0),
        "making a device": _makes_a_device,
        "memory that nobody counts": _makes_a_memory_file,
        **{f"the system call {name}": functools.partial(_is_allowed, name) for name in _CALLS},
    }


def _starts_a_process() -> bool:
    subprocess.run([sys.executable, "-c", ""], check=False, timeout=10)
    return True


def _forks() -> bool:
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    return True


def _status() -> dict[str, str]:
    lines = Path("/proc/self/status").read_text().splitlines()
    return {name: value.strip() for name, value in (line.split(":", 1) for line in lines)}


def _is_privileged() -> bool:
    status = _status()
    capable = any(int(status[name], 16) for name in ("CapEff", "CapPrm", "CapInh", "CapBnd", "CapAmb"))
    return os.getuid() == 0 or capable or status["NoNewPrivs"] != "1"


def _becomes_root() -> bool:
    os.setuid(0)
    return True


def _makes_a_device() -> bool:
    with tempfile.TemporaryDirectory() as folder:
        os.mknod(Path(folder, "null"), 0o600 | stat.S_IFCHR, os.makedev(1, 3))
    return True


def _makes_a_memory_file() -> bool:
    os.close(os.memfd_create("planted"))
    return True


def _is_allowed(name: str) -> bool:
    """Whether the call gets as far as to complain of its arguments."""
    *numbers, arguments = _CALLS[name]
    number = numbers[0 if platform.machine() == "x86_64" else 1]
    libc = ctypes.CDLL(None, use_errno=True)
    answer = libc.syscall(ctypes.c_long(number), *map(ctypes.c_long, arguments))
    return bool(answer != -1 or ctypes.get_errno() not in _REFUSALS)
