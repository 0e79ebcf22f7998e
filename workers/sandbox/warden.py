"""The first process of a container sandbox: starts the program behind a system call filter, holds its time, and sends
what it left on stdout.

The program is of the same user and yet can neither look into this process (it is not dumpable) nor end it (the kernel
keeps signals from the first process of a container). When nobody listens any more, which stdin tells, all ends at once.
"""

import ctypes
import json
import os
import select
import shutil
import signal
import stat
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

_SET_DUMPABLE, _SET_NAME, _SET_SECCOMP, _SECCOMP_FILTER = 4, 15, 22, 2
_STEP_BYTES = 8
_LIBC = ctypes.CDLL(None, use_errno=True)


class _Program(ctypes.Structure):
    """`struct sock_fprog`."""

    _fields_ = (("length", ctypes.c_ushort), ("steps", ctypes.c_char_p))


def main(order_json: str) -> None:
    """Run `{"command", "environment", "filter", "seconds", "cpu_seconds", "output"}`.

    On stdout: a line `{"status", "broke"}`, a line for each file, folder or other thing in the output folder, the bytes
    of a file after its line, and a last line `{"kind": "end"}`.
    """
    order = json.loads(order_json)
    _control(_SET_NAME, ctypes.c_char_p(b"warden"))
    _control(_SET_DUMPABLE, 0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    bell_out, bell_in = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
    signal.set_wakeup_fd(bell_in, warn_on_full_buffer=False)
    child = os.fork()
    if child == 0:
        _become(order)
    report = _watch(child, order, bell_out)
    if os.getpid() == 1:
        _end_all_others()
    with os.fdopen(1, "wb") as channel:
        for line, file in ((report, None), *_left(Path(order["output"]), ""), ({"kind": "end"}, None)):
            channel.write(json.dumps(line).encode() + b"\n")
            if file:
                with file.open("rb") as stream:
                    shutil.copyfileobj(stream, channel, 1 << 20)


def _control(option: int, *values: Any) -> None:
    if _LIBC.prctl(option, *values) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"prctl {option}: {os.strerror(number)}")


def _become(order: dict[str, Any]) -> NoReturn:
    """Turn into the program; all that it says goes to stderr."""
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
        os.dup2(2, 1)
        os.chdir(order["environment"]["TMPDIR"])
        steps = Path(order["filter"]).read_bytes()
        _control(_SET_SECCOMP, _SECCOMP_FILTER, ctypes.byref(_Program(len(steps) // _STEP_BYTES, steps)))
        os.execve(order["command"][0], order["command"], order["environment"])  # noqa: S606 - no shell is wanted
    except OSError as error:
        os.write(2, f"the program could not be started: {error}\n".encode())
    finally:
        os._exit(126)


def _watch(child: int, order: dict[str, Any], bell: int) -> dict[str, Any]:
    """`{"status", "broke"}` once the child has ended by itself, or by its time."""
    deadline = time.monotonic() + order["seconds"]
    broke = ""
    while True:
        ended, status, usage = os.wait4(child, os.WNOHANG)
        if ended:
            break
        if time.monotonic() >= deadline:
            broke = "time"
            os.kill(child, signal.SIGKILL)
        # Whatever comes on stdin is its end: whoever wanted the result has gone.
        ready = select.select([0, bell], [], [], max(0.01, deadline - time.monotonic()))[0]
        if 0 in ready:
            os._exit(1)
        if bell in ready:
            os.read(bell, 4096)
    code = os.waitstatus_to_exitcode(status)
    if not broke and code == -signal.SIGKILL and usage.ru_utime + usage.ru_stime < order["cpu_seconds"] - 1:
        broke = "memory"  # Nobody else sends that: the container's memory limit has ended it.
    elif not broke and code != 0 and _is_full(order["output"]):
        broke = "output"
    return {"status": 128 - code if code < 0 else code, "broke": broke}


def _is_full(folder: str) -> bool:
    room = os.statvfs(folder)
    return room.f_bfree == 0 or room.f_ffree == 0


def _end_all_others() -> None:
    """There should be none."""
    try:
        os.kill(-1, signal.SIGKILL)
    except ProcessLookupError:
        return


def _left(folder: Path, inside: str) -> Iterator[tuple[dict[str, Any], Path | None]]:
    """What lies in the folder: a line for each, and the file to send after it."""
    for path in sorted(folder.iterdir()):
        name = inside + path.name
        try:
            status = path.lstat()
            if stat.S_ISDIR(status.st_mode):
                path.chmod(0o700)  # The program may have locked its own files away.
                yield {"kind": "folder", "name": name}, None
                yield from _left(path, name + "/")
            elif stat.S_ISREG(status.st_mode) and status.st_nlink == 1:
                path.chmod(0o600)
                yield {"kind": "file", "name": name, "size": status.st_size}, path
            else:
                yield {"kind": "other", "name": name}, None
        except OSError:  # for instance a path that is too long
            yield {"kind": "other", "name": name[-200:]}, None


if __name__ == "__main__":
    main(sys.argv[1])
