"""The build folder of the sandbox's image: what models are loaded with, pinned and hashed as everything else."""

import re
from importlib.metadata import version
from pathlib import Path

import pytest

from app.domain.errors import Fault
from app.packaging import ROOT
from app.sandbox_image import locked, needed, write_sandbox_context

LOCK = """# made by hand
one==1.0 \\
    --hash=sha256:aa
    # via two
two-more==2.0 ; python_version < '3.12' \\
    --hash=sha256:bb
two-more==3.0 ; python_version >= '3.12' \\
    --hash=sha256:cc
three==4.0 \\
    --hash=sha256:dd
"""


def test_the_context_pins_what_this_python_has(tmp_path: Path) -> None:
    context = write_sandbox_context(tmp_path / "context", "python:3.11-slim-bookworm")

    found = re.findall(r"^([a-z0-9-]+)==([^ ]+)", (context / "requirements.lock").read_text(), re.MULTILINE)
    pins = {name for name, _ in found}
    # What a package needs comes along, and what Headgate alone needs does not.
    assert {"numpy", "onnxruntime", "protobuf", "joblib", "python-dateutil"} <= pins
    assert not {"mlflow", "sqlalchemy", "docker", "celery", "pytest"} & pins
    # One that has another version for another Python stands there with both.
    assert [name for name in pins if (name, version(name)) not in found] == []
    assert "--require-hashes" in (context / "Dockerfile").read_text()
    assert sorted(path.name for path in context.iterdir()) == ["Dockerfile", "gather.sh", "requirements.lock"]


def test_the_image_has_no_shell_and_is_nobodys(tmp_path: Path) -> None:
    """Only what was gathered goes into the last stage."""
    text = (write_sandbox_context(tmp_path, "base:1") / "Dockerfile").read_text()
    last = text.rpartition("\nFROM ")[2]
    assert last.startswith("scratch\nCOPY --from=system /sandbox /\n")
    assert "USER 65534:65534" in last
    assert "RUN" not in last


def test_a_lock_is_cut_by_whole_pins() -> None:
    cut = locked(LOCK, {"two-more", "one"})
    assert cut == LOCK.partition("\n")[2].partition("three==")[0]


def test_what_is_not_pinned_is_told() -> None:
    with pytest.raises(Fault, match="does not pin four"):
        locked(LOCK, {"one", "four"})


def test_what_is_not_installed_is_told() -> None:
    with pytest.raises(Fault, match="no-such-package is not installed"):
        needed(["no-such-package"])


def test_every_package_that_the_probe_wants_is_named() -> None:
    """Those that its programs import by another name than their package's are told apart by hand."""
    from workers.sandbox.probe import NEEDED

    packages = {"sklearn": "scikit-learn", "yaml": "pyyaml"}
    named = (ROOT / "image_templates" / "sandbox" / "packages.txt").read_text().split("\n")
    assert [name for name in NEEDED if packages.get(name, name) not in named] == []


@pytest.mark.parametrize("base", ["", "a b", "base\nRUN id"])
def test_what_names_no_image_cannot_get_into_the_dockerfile(tmp_path: Path, base: str) -> None:
    with pytest.raises(Fault, match="no name of an image"):
        write_sandbox_context(tmp_path / "context", base)
