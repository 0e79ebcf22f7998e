"""Who holds a lease: a name for one life of one process, and whether that life is over."""

import os
import socket
from pathlib import Path

_BOOT = Path("/proc/sys/kernel/random/boot_id")


def here() -> str:
    """The name of this process: no other one has it, on no machine, in no container, neither before nor after."""
    return f"{_machine()}-{os.getpid()}-{_started(os.getpid())}"


def has_died(owner: str) -> bool:
    """Whether the process of that name has certainly ended: it was one of this machine and process namespace, and is
    gone, or only waits to be reaped, or its number has passed to another one. Of all others nothing is known."""
    machine, _, rest = owner.rpartition("-")[0].rpartition("-")
    started = owner.rpartition("-")[2]
    return machine == _machine() and rest.isdecimal() and _started(int(rest)) != started


def _machine() -> str:
    """This machine since it was started, and the namespace in which its process ids hold."""
    boot = _BOOT.read_text(encoding="ascii").strip()[:8]
    return f"{socket.gethostname()}-{boot}-{Path('/proc/self/ns/pid').stat().st_ino}"


def _started(pid: int) -> str:
    """When the process began, in clock ticks since the machine did; empty where it runs no more."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    # The command's name stands in parentheses and may itself hold some: what follows the last one has fixed places.
    fields = stat.rpartition(")")[2].split()
    return "" if fields[0] in "ZX" else fields[19]
