"""Both sandboxes for tests that want the same of each: `new_sandbox` makes one on bubblewrap, then on containers."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from app.adapters.bwrap import BwrapSandbox
from app.adapters.docker_sandbox import DockerSandbox
from app.ports import Sandbox
from tests.docker_support import docker_engine, sandbox_image


@dataclass(frozen=True)
class Boxes:
    """A Docker Engine of the tests' own, and the tag of the sandbox's image on it."""

    host: str
    image: str


@pytest.fixture(scope="session")
def boxes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Boxes]:
    with docker_engine(tmp_path_factory.mktemp("engine")) as host:
        yield Boxes(host, sandbox_image(host))


@pytest.fixture(params=["bwrap", "docker"])
def new_sandbox(request: pytest.FixtureRequest) -> Iterator[Callable[[Path, int], Sandbox]]:
    """Makes a sandbox of the programs in a folder, with so many MiB of output."""
    if request.param == "bwrap":
        yield lambda programs, output_mib: BwrapSandbox(programs, output_mib=output_mib)
        return
    found: Boxes = request.getfixturevalue("boxes")
    with ExitStack() as stack:
        yield lambda programs, output_mib: stack.enter_context(
            closing(DockerSandbox(programs, found.host, found.image, output_mib=output_mib))
        )
