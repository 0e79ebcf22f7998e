"""The sandbox's self-test for real: it passes here, and notices each layer that is really missing."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from app import doctor
from app.adapters.bwrap import BwrapSandbox
from app.adapters.proven import ProvenSandbox
from app.domain.errors import Fault
from app.ports import Sandbox, SandboxJob
from app.sandbox import selftest

PROGRAMS = Path(__file__).parents[2] / "workers" / "sandbox"

Layers = Callable[[str], BwrapSandbox]


@pytest.fixture
def without(tmp_path: Path) -> Layers:
    """A sandbox on the real bwrap, whose command line (`words`) some Python code has changed."""

    def sandbox(change: str) -> BwrapSandbox:
        script = tmp_path / "bwrap"
        code = (
            f"import os, sys\nwords = sys.argv[1:]\n{change}\nos.execv({shutil.which('bwrap')!r}, ['bwrap', *words])\n"
        )
        script.write_text(f"#!{sys.executable}\n{code}")
        script.chmod(0o755)
        return BwrapSandbox(PROGRAMS, bwrap=str(script))

    return sandbox


def _drop(option: str, arguments: int) -> str:
    return f"at = words.index('{option}'); del words[at : at + {arguments + 1}]"


def _insert(*words: str) -> str:
    """Options that come last, and so have the last word."""
    return f"at = words.index('--'); words[at:at] = {list(words)!r}"


def test_the_self_test_passes_here(new_sandbox: Callable[[Path, int], Sandbox]) -> None:
    assert "none is open" in new_sandbox(PROGRAMS, 2048).self_test()


@pytest.mark.parametrize(
    ("change", "ways"),
    [
        (_drop("--seccomp", 1), ["no system call filter", "forking", "the system call ptrace", "memory that nobody"]),
        (_insert("--share-net"), ["an abstract unix socket"]),
        (_drop("--seccomp", 1) + ";" + _insert("--share-net"), ["tcp to the host", "udp to the host"]),
        (
            "at = words.index('--unshare-all'); words[at : at + 1] = ['--unshare-user', '--unshare-uts']",
            ["seeing host processes", "an abstract unix socket"],
        ),
        (_insert("--ro-bind", "/tmp", "/tmp"), ["reading a host file", "following a link out", "a unix socket of the"]),
        (_insert("--bind", "/tmp", "/tmp"), ["writing outside"]),
        (_insert("--setenv", "PYTEST_CURRENT_TEST", "x"), ["the host's environment"]),
        (_insert("--cap-add", "ALL"), ["being root or capable"]),
        (_insert("--bind", "/dev/shm", "/dev/shm"), ["memory of /dev/shm"]),
    ],
)
def test_each_missing_layer_is_noticed(without: Layers, change: str, ways: list[str]) -> None:
    with pytest.raises(Fault, match="does not hold") as caught:
        without(change).self_test()

    assert [way for way in ways if way not in caught.value.reason] == []
    assert caught.value.remedy


def test_missing_limits_are_noticed(tmp_path: Path, new_sandbox: Callable[[Path, int], Sandbox]) -> None:
    """The programs' own part: limits that they put on themselves before anything else."""
    shutil.copytree(PROGRAMS, tmp_path / "programs")
    (tmp_path / "programs" / "limits.py").write_text("def apply(limits_json):\n    pass\n")

    sandbox = new_sandbox(tmp_path / "programs", 256)

    with pytest.raises(Fault) as caught:
        sandbox.self_test()

    # A container has a limit of files besides.
    ways = ["a larger file than allowed"] if isinstance(sandbox, BwrapSandbox) else []
    for way in (*ways, "more memory than allowed", "raising its own limits", "CPU time"):
        assert way in caught.value.reason


def test_a_thread_bomb_that_nobody_stops_is_noticed() -> None:
    """A sandbox that lets a program have its thousand threads, as seen by the other side of the self-test."""
    outcomes = iter([{"tried": ["a"], "escaped": [], "missing": []}, {"tried": ["b"], "escaped": ["threads"]}])

    with pytest.raises(Fault, match="threads"):
        selftest.attempt_escape(lambda inputs, request, output: next(outcomes), 64, "mend it")


def test_the_self_test_notices_a_host_that_is_open() -> None:
    """The same probe without the sandbox around it gets out, and the self-test says so by name."""

    # In a process of its own, which may lose itself in new namespaces; nothing of the system is to be touched.
    code = (
        "import json, sys; from pathlib import Path; from workers.sandbox import probe; probe._SYSTEM_FILES = ();"
        "print(json.dumps(probe.run(json.loads(sys.argv[1]), Path(sys.argv[3]), Path(sys.argv[2]))))"
    )

    def unboxed(inputs: Mapping[str, Path], request: Mapping[str, Any], output: Path) -> Mapping[str, Any]:
        folder = inputs["planted"].parent if inputs else output
        names = {"link": "input/link", "input_file": "input/plain.txt"}
        command = [sys.executable, "-c", code, json.dumps({**request, **names}), str(output), str(folder)]
        answer: Mapping[str, Any] = json.loads(subprocess.check_output(command, cwd=PROGRAMS.parents[1]))
        return answer

    with pytest.raises(Fault) as caught:
        selftest.attempt_escape(unboxed, 64, "mend it")

    for way in (
        *("tcp to the host", "udp to the host", "a unix socket of the host", "an abstract unix socket"),
        *("reading a host file", "following a link out of an input", "writing outside", "the host's environment"),
        *("seeing host processes", "forking", "starting a process", "the system call ptrace", "more memory"),
        *("a larger file", "raising its own limits", "threads without end", "the files and variables of other"),
    ):
        assert way in caught.value.reason


def _job(folder: Path) -> SandboxJob:
    for name in ("model", "out"):
        (folder / name).mkdir()
    (folder / "model" / "MLmodel").write_text("flavors: {}\n")
    return SandboxJob("scan", {"model": folder / "model"}, {}, folder / "out")


def test_no_job_runs_in_a_sandbox_that_does_not_hold(without: Layers, tmp_path: Path) -> None:
    job = _job(tmp_path)
    sandbox = without(_insert("--share-net"))
    assert sandbox.run(job)["scanned"] == 1  # without its test it would do the work
    (tmp_path / "out" / "result.json").unlink()

    for _ in range(2):
        with pytest.raises(Fault, match="an abstract unix socket") as caught:
            ProvenSandbox(sandbox).run(job)
    assert caught.value.remedy
    assert list(job.output.iterdir()) == []


def test_a_mended_sandbox_works_without_a_restart(tmp_path: Path) -> None:
    """bubblewrap is installed while the worker runs; from then on the test is not repeated."""
    tried = tmp_path / "tried"
    bwrap = tmp_path / "bwrap"
    sandbox = ProvenSandbox(BwrapSandbox(PROGRAMS, bwrap=str(bwrap)))
    job = _job(tmp_path)
    with pytest.raises(Fault, match="not installed"):
        sandbox.run(job)

    bwrap.write_text(f'#!/bin/sh\necho >>{tried}\nexec {shutil.which("bwrap")} "$@"\n')
    bwrap.chmod(0o755)

    assert sandbox.run(job)["scanned"] == 1
    first = len(tried.read_text())
    (tmp_path / "out" / "result.json").unlink()
    assert sandbox.run(job)["scanned"] == 1
    assert len(tried.read_text()) == first + 1


def test_the_doctor_shows_what_the_sandbox_lets_out(without: Layers, capsys: pytest.CaptureFixture[str]) -> None:
    sandbox = without(_drop("--seccomp", 1))

    assert not doctor._run(doctor.Check("sandbox", sandbox.self_test))

    shown = capsys.readouterr().out
    assert "FAIL  sandbox: The sandbox does not hold" in shown and "forking" in shown and "-> Do not promote" in shown
