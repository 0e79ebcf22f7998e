"""Parts of the sandbox that need no sandbox: the system call filter, the command line, the reading of results."""

import errno
import json
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.adapters.bwrap.command import Interpreter, Mounts, bwrap_command
from app.domain.errors import Fault, Rejected
from app.sandbox.program import Limits
from app.sandbox.result import MAX_DEPTH, read_result
from app.sandbox.seccomp import filter_program

ALLOW, KILL, EPERM, ENOSYS = 0x7FFF0000, 0x80000000, 0x00050000 | errno.EPERM, 0x00050000 | errno.ENOSYS
AUDIT = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}


def _answer(program: bytes, number: int, architecture: int, argument: int = 0) -> int:
    """Run a filter as the kernel does, on one system call."""
    data = struct.pack("=IIQQ", number, architecture, 0, argument)
    steps = [struct.unpack_from("=HBBI", program, at) for at in range(0, len(program), 8)]
    at = accumulator = 0
    while True:
        code, if_true, if_false, value = steps[at]
        at += 1
        if code == 0x20:
            accumulator = struct.unpack_from("=I", data, value)[0]
        elif code == 0x06:
            return int(value)
        else:
            tests = {0x15: accumulator == value, 0x35: accumulator >= value, 0x45: bool(accumulator & value)}
            at += if_true if tests[code] else if_false


# name: (x86_64, aarch64), None where the architecture has no such call
REFUSED = {
    "fork": (57, None),
    "vfork": (58, None),
    "ptrace": (101, 117),
    "mount": (165, 40),
    "unshare": (272, 97),
    "setns": (308, 268),
    "bpf": (321, 280),
    "keyctl": (250, 219),
    "init_module": (175, 105),
    "memfd_create": (319, 279),
    "shmget": (29, 194),
    "io_uring_setup": (425, 425),
    "open_by_handle_at": (304, 265),
    "userfaultfd": (323, 282),
}
ALLOWED = {"read": (0, 63), "mmap": (9, 222), "execve": (59, 221), "futex": (202, 98), "getrandom": (318, 278)}
CLONE, SOCKET = (56, 220), (41, 198)


@pytest.mark.parametrize("machine", AUDIT)
def test_the_filter_refuses_and_allows_by_name(machine: str) -> None:
    program, column = filter_program(machine), list(AUDIT).index(machine)

    for calls, answer in ((REFUSED, EPERM), (ALLOWED, ALLOW)):
        for name, numbers in calls.items():
            number = numbers[column]
            if number is not None:
                assert _answer(program, number, AUDIT[machine]) == answer, name


@pytest.mark.parametrize("machine", AUDIT)
def test_the_filter_looks_at_arguments(machine: str) -> None:
    program, column = filter_program(machine), list(AUDIT).index(machine)

    def ask(number: int, argument: int) -> int:
        return _answer(program, number, AUDIT[machine], argument)

    # A thread shares memory, files and signals; 17 is the signal of a child that is a process.
    assert (ask(CLONE[column], 0x3D0F00), ask(CLONE[column], 17)) == (ALLOW, EPERM)
    assert (ask(SOCKET[column], 1), ask(SOCKET[column], 2), ask(SOCKET[column], 40)) == (ALLOW, EPERM, EPERM)
    assert ask(435, 0) == ENOSYS


def test_calls_of_another_architecture_kill() -> None:
    program = filter_program("x86_64")

    assert _answer(program, 57, 0x40000003) == KILL
    assert _answer(program, 0x40000000 + 57, AUDIT["x86_64"]) == KILL


def test_an_unknown_architecture_is_our_fault() -> None:
    with pytest.raises(Fault, match="s390x"):
        filter_program("s390x")


@pytest.mark.parametrize("prefix", ["/usr", "/opt/python"])
def test_the_command_shows_nothing_but_python_and_the_job(prefix: str, tmp_path: Path) -> None:
    python = Interpreter(Path(prefix) / "bin" / "python3", Path(prefix), [Path("/venv/site-packages")])
    mounts = Mounts(Path("/programs"), {"model": Path("/store/tree")}, tmp_path, 7, 8)

    command = bwrap_command("/usr/bin/bwrap", python, mounts, "scan", Limits(4096, 60, 100))

    pairs = {(command[at + 1], command[at + 2]) for at, word in enumerate(command) if word.endswith("bind")}
    sources = {source for source, _ in pairs}
    assert ("/store/tree", "/in/model") in pairs
    assert {target for source, target in pairs if source == str(tmp_path)} == {"/out"}
    assert sources - {str(tmp_path), "/store/tree", "/programs", "/venv/site-packages", prefix} <= {
        "/usr/lib",
        "/usr/lib64",
        "/lib",
        "/lib64",
    }
    assert [command[at + 1] for at, word in enumerate(command) if word == "--bind"] == [str(tmp_path)]
    for flag in ("--unshare-all", "--die-with-parent", "--new-session", "--clearenv"):
        assert flag in command


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**9), 10**9)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@settings(deadline=None)
@given(st.dictionaries(st.text(), values, max_size=4))
def test_honest_results_come_through_unchanged(
    tmp_path_factory: pytest.TempPathFactory, result: dict[str, Any]
) -> None:
    file = tmp_path_factory.getbasetemp() / "result.json"
    file.write_text(json.dumps(result))

    assert read_result(file) == result


@pytest.mark.parametrize(("depth", "good"), [(MAX_DEPTH - 1, True), (MAX_DEPTH, False), (200_000, False)])
def test_depth_is_counted_before_parsing(tmp_path: Path, depth: int, good: bool) -> None:
    text = '{"brackets in text [[[[": ' + "[" * depth + "]" * depth + "}"
    (tmp_path / "result.json").write_text(text)

    if good:
        assert read_result(tmp_path / "result.json")
    else:
        with pytest.raises(Rejected, match="deeper"):
            read_result(tmp_path / "result.json")
