"""The system call filter of the sandbox: no new process, no socket but Unix ones, no way to the kernel's odd corners.

Namespaces hide the host; this keeps untrusted code from multiplying (a process limit does not bind root) and from calls
that no conversion needs but kernel exploits do. It is a BPF program of `struct sock_filter`, as in seccomp(2).
"""

import errno
import platform
import struct
from dataclasses import dataclass

from app.domain.errors import Fault

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _KILL, _REFUSE = 0x7FFF0000, 0x80000000, 0x00050000
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT = 0, 4, 16
_CLONE_THREAD, _AF_UNIX, _X32_CALLS = 0x10000, 1, 0x40000000

# Numbers that all architectures share: io_uring, the new mount calls, clone3, pidfd_open and _getfd, memfd_secret.
_EVERYWHERE = (*range(425, 435), 438, 442, 447)
_CLONE3 = 435


@dataclass(frozen=True)
class _Machine:
    """Call numbers of one architecture, in this order within each group.

    `processes`: fork and vfork where there are any, ptrace, process_vm_readv and _writev.
    `file_systems`: mount, umount2, pivot_root, chroot, unshare, setns, name_to_handle_at, open_by_handle_at.
    `kernel`: bpf, perf_event_open, userfaultfd, add_key, request_key, keyctl, init_module, delete_module,
    finit_module, kexec_load, kexec_file_load, acct, swapon, swapoff, reboot, syslog.
    `uncounted_memory`: memfd_create, shmget; no limit counts what they hold.
    """

    audit: int
    clone: int
    socket: int
    processes: tuple[int, ...]
    file_systems: tuple[int, ...]
    kernel: tuple[int, ...]
    uncounted_memory: tuple[int, ...]

    @property
    def refused(self) -> tuple[int, ...]:
        return (*self.processes, *self.file_systems, *self.kernel, *self.uncounted_memory)


_MACHINES = {
    "x86_64": _Machine(
        audit=0xC000003E,
        clone=56,
        socket=41,
        processes=(57, 58, 101, 310, 311),
        file_systems=(165, 166, 155, 161, 272, 308, 303, 304),
        kernel=(321, 298, 323, 248, 249, 250, 175, 176, 313, 246, 320, 163, 167, 168, 169, 103),
        uncounted_memory=(319, 29),
    ),
    "aarch64": _Machine(
        audit=0xC00000B7,
        clone=220,
        socket=198,
        processes=(117, 270, 271),
        file_systems=(40, 39, 41, 51, 97, 268, 264, 265),
        kernel=(280, 241, 282, 217, 218, 219, 105, 106, 273, 104, 294, 89, 224, 225, 142, 116),
        uncounted_memory=(279, 194),
    ),
}


def filter_program(machine: str | None = None) -> bytes:
    """The filter for this machine (or the named one): what is refused fails with EPERM, all else is allowed.

    Raises:
        Fault: the call numbers of the architecture are not known here.
    """
    machine = machine or platform.machine()
    if machine not in _MACHINES:
        raise Fault(f"The sandbox has no system call filter for {machine}.", "Run the workers on x86_64 or aarch64.")
    calls = _MACHINES[machine]
    program = [
        _step(_LOAD, _ARCHITECTURE),
        _step(_EQUAL, calls.audit, 1, 0),
        _step(_RETURN, _KILL),
        _step(_LOAD, _NUMBER),
        _step(_AT_LEAST, _X32_CALLS, 0, 1),
        _step(_RETURN, _KILL),
        # The C library asks clone3 first and falls back to clone, whose flags can be looked at.
        *_answer(_CLONE3, _REFUSE | errno.ENOSYS),
    ]
    for number in (*calls.refused, *_EVERYWHERE):
        program += _answer(number, _REFUSE | errno.EPERM)
    program += _only(calls.clone, _ANY_BIT, _CLONE_THREAD)
    program += _only(calls.socket, _EQUAL, _AF_UNIX)
    return b"".join([*program, _step(_RETURN, _ALLOW)])


def _step(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, value)


def _answer(number: int, answer: int) -> list[bytes]:
    return [_step(_EQUAL, number, 0, 1), _step(_RETURN, answer)]


def _only(number: int, test: int, value: int) -> list[bytes]:
    """Refuse the call unless its first argument passes the test."""
    return [
        _step(_EQUAL, number, 0, 4),
        _step(_LOAD, _FIRST_ARGUMENT),
        _step(test, value, 0, 1),
        _step(_RETURN, _ALLOW),
        _step(_RETURN, _REFUSE | errno.EPERM),
    ]
