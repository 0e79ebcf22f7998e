"""bubblewrap alone: what it needs, and that nothing of a run lives on."""

import shutil
import textwrap
import time
from datetime import timedelta
from pathlib import Path

import pytest

from app.adapters.bwrap import BwrapSandbox
from app.adapters.bwrap.sandbox import this_interpreter
from app.domain.errors import Fault, Rejected
from app.ports import SandboxJob

PROGRAMS = Path(__file__).parents[2] / "workers" / "sandbox"


def _programs(folder: Path, body: str) -> Path:
    shutil.copytree(PROGRAMS, folder)
    code = "import os, time\n\ndef run(request, inputs, output):\n"
    (folder / "scan.py").write_text(code + textwrap.indent(textwrap.dedent(body), "    "))
    return folder


def test_nothing_of_a_stopped_run_lives_on(tmp_path: Path) -> None:
    """The heartbeat that the program writes stops with the run."""
    programs = _programs(
        tmp_path / "programs",
        """
        for beat in range(10_000):
            (output / "beat").write_text(str(beat))
            time.sleep(0.01)
        """,
    )
    (tmp_path / "out").mkdir()
    with pytest.raises(Rejected, match="longer"):
        BwrapSandbox(programs).run(SandboxJob("scan", {}, {}, tmp_path / "out", timedelta(seconds=2)))

    before = (tmp_path / "out" / "beat").read_text()
    time.sleep(0.3)
    assert (tmp_path / "out" / "beat").read_text() == before


def test_not_even_the_kernels_own_files_are_there(tmp_path: Path) -> None:
    body = 'return {"found": [path for path in ("/sys", "/etc/hostname") if os.path.exists(path)]}'
    programs = _programs(tmp_path / "programs", body)
    (tmp_path / "out").mkdir()
    assert BwrapSandbox(programs).run(SandboxJob("scan", {}, {}, tmp_path / "out")) == {"found": []}


def test_without_bubblewrap_nothing_runs(tmp_path: Path) -> None:
    sandbox = BwrapSandbox(PROGRAMS, bwrap="no-such-bwrap")

    with pytest.raises(Fault, match="not installed") as caught:
        sandbox.run(SandboxJob("scan", {}, {}, tmp_path))
    assert "Install" in caught.value.remedy


def test_a_sandbox_that_is_not_permitted_is_our_fault(tmp_path: Path) -> None:
    """As where user namespaces are off: bwrap says so and runs nothing."""
    refusing = tmp_path / "bwrap"
    refusing.write_text("#!/bin/sh\necho 'bwrap: No permissions to create new namespace' >&2\nexit 1\n")
    refusing.chmod(0o755)
    (tmp_path / "out").mkdir()

    with pytest.raises(Fault, match="No permissions") as caught:
        BwrapSandbox(PROGRAMS, bwrap=str(refusing)).run(SandboxJob("scan", {}, {}, tmp_path / "out"))
    assert "user namespaces" in caught.value.remedy


def test_a_missing_python_is_our_fault(tmp_path: Path) -> None:
    python = this_interpreter()
    gone = type(python)(tmp_path / "no-python", python.base_prefix, python.site_packages)
    (tmp_path / "out").mkdir()

    with pytest.raises(Fault, match="could not be set up"):
        BwrapSandbox(PROGRAMS, gone).run(SandboxJob("scan", {}, {}, tmp_path / "out"))
