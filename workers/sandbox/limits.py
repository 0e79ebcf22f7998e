"""The limits that a program puts on itself before it touches anything untrusted; it cannot raise them again."""

import json
import resource

OPEN_FILES = 256


def apply(limits_json: str) -> None:
    """Set the limits from `{"memory_mib", "cpu_seconds", "file_mib", "processes"}`.

    Memory is address space: of all that can be limited from inside, only that counts every kind of mapping.
    """
    limits = json.loads(limits_json)
    wanted = {
        resource.RLIMIT_AS: limits["memory_mib"] << 20,
        resource.RLIMIT_CPU: limits["cpu_seconds"],
        resource.RLIMIT_FSIZE: limits["file_mib"] << 20,
        resource.RLIMIT_NOFILE: OPEN_FILES,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_MSGQUEUE: 0,
        resource.RLIMIT_MEMLOCK: 0,
    }
    if limits["processes"]:
        wanted[resource.RLIMIT_NPROC] = limits["processes"]
    for kind, value in wanted.items():
        hard = resource.getrlimit(kind)[1]
        allowed = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (allowed, allowed))
