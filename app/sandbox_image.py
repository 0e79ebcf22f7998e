"""Builds the image of the container sandbox: `python -m app.sandbox_image`, which `make sandbox-image` runs."""

import re
import shutil
import sys
import tempfile
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

from packaging.requirements import Requirement

from app.adapters.docker_engine import DockerEngine
from app.domain.errors import Fault, HeadgateError
from app.packaging import ROOT, TEMPLATES, write_dockerfile
from app.settings import Settings

PYTHON_IMAGE = "python:3.11-slim-bookworm"


def main() -> int:
    """Build the image that HEADGATE_SANDBOX_IMAGE names, on the engine that runs the sandbox."""
    settings = Settings()
    folder = Path(tempfile.mkdtemp(prefix="headgate-sandbox-"))
    try:
        write_sandbox_context(folder / "context", PYTHON_IMAGE)
        image = DockerEngine(settings.sandbox_engine).build(folder / "context", settings.sandbox_image, {})
    except HeadgateError as error:
        print(f"headgate: {error}", file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(f"{settings.sandbox_image}: {image}")
    return 0


def write_sandbox_context(folder: Path, base: str, lock: Path = ROOT / "requirements.lock") -> Path:
    """Write the build folder of the sandbox's image and return it; what was there is replaced.

    `base` is an image with python3 (3.11 or 3.12) and pip. Packages are those of this very Python, so that both
    sandboxes load models with the same.

    Raises:
        Fault: `base` is no image's name, or a package is not installed here or not in the lock.
    """
    template = TEMPLATES / "sandbox"
    write_dockerfile(folder, TEMPLATES, "sandbox/Dockerfile.j2", {"base_image": base})
    shutil.copy(template / "gather.sh", folder)
    lines = (template / "packages.txt").read_text().splitlines()
    wanted = needed(line for line in lines if line and not line.startswith("#"))
    (folder / "requirements.lock").write_text(locked(lock.read_text(), wanted))
    return folder


def needed(roots: Iterable[str]) -> set[str]:
    """The packages by these names with all that they need on this machine, as the installed ones say.

    Raises:
        Fault: one is not installed.
    """
    found: set[str] = set()
    waiting = [_plain(name) for name in roots]
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found.add(name)
        try:
            requirements = map(Requirement, requires(name) or [])
        except PackageNotFoundError as error:
            raise Fault(f"The package {name} is not installed here.", "Run `make setup`.") from error
        waiting += [_plain(r.name) for r in requirements if r.marker is None or r.marker.evaluate({"extra": ""})]
    return found


def locked(lock: str, names: Iterable[str]) -> str:
    """The part of a lock file that pins these packages, hashes included.

    Raises:
        Fault: it does not pin one of them.
    """
    blocks: dict[str, str] = {}
    for block in re.findall(r"^[A-Za-z0-9][^\n]*\n(?:[ #][^\n]*\n)*", lock, re.MULTILINE):
        name = _plain(block.partition("==")[0])
        # One that is pinned by the version of Python stands there more than once.
        blocks[name] = blocks.get(name, "") + block
    missing = sorted(set(names) - set(blocks))
    if missing:
        raise Fault(f"requirements.lock does not pin {', '.join(missing)}.", "Run `make lock`.")
    return "".join(blocks[name] for name in sorted(set(names)))


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


if __name__ == "__main__":
    sys.exit(main())
