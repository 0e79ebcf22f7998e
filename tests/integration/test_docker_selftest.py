"""The container sandbox's self-test for real: it notices each layer that Docker is not asked for, or does not give."""

from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from app import doctor
from app.adapters.docker_sandbox import DockerSandbox
from app.adapters.proven import ProvenSandbox
from app.domain.errors import Fault
from app.ports import SandboxJob
from tests.engine_proxy import Change, changing
from tests.integration.conftest import Boxes

PROGRAMS = Path(__file__).parents[2] / "workers" / "sandbox"


def _host(**options: Any) -> Change:
    """Other options of the container's HostConfig."""
    return lambda asked: asked["HostConfig"].update(options)


def _tmpfs(word: str) -> Change:
    """Without a word among the options of its memory file systems."""

    def change(asked: dict[str, Any]) -> None:
        places: Mapping[str, str] = asked["HostConfig"]["Tmpfs"]
        asked["HostConfig"]["Tmpfs"] = {place: how.replace(word, "exec") for place, how in places.items()}

    return change


def _writable(asked: dict[str, Any]) -> None:
    asked["HostConfig"]["VolumesFrom"] = [each.replace(":ro", ":rw") for each in asked["HostConfig"]["VolumesFrom"]]


@pytest.mark.parametrize(
    ("change", "ways"),
    [
        (_host(NetworkMode="bridge"), ["a route to a network"]),
        (_host(NetworkMode="host"), ["a route to a network", "an abstract unix socket"]),
        (_host(ReadonlyRootfs=False), ["a root that is not read-only"]),
        (_writable, ["inputs that are not read-only", "programs that are not read-only"]),
        (_host(CapDrop=[]), ["being root or capable"]),
        (lambda asked: asked.update(User="0:0"), ["being root or capable", "becoming root"]),
        (_host(SecurityOpt=["no-new-privileges", "seccomp=unconfined"]), ["no filter of Docker's own"]),
        (_host(PidMode="host"), ["seeing host processes"]),
        (_host(PidsLimit=0), ["threads without end", "no limit of the container's processes"]),
        (_host(Memory=0, MemorySwap=0), ["no limit of the container's memory"]),
        (_host(CpuQuota=0, CpuPeriod=0), ["no limit of the container's CPU"]),
        (_host(IpcMode="private"), ["memory of /dev/shm"]),
        (_tmpfs("noexec"), ["running code from /tmp", "running code from the output"]),
        (_host(Binds=["/tmp:/tmp:ro"]), ["reading a host file", "following a link out", "a unix socket of the host"]),
        (_host(Binds=["/tmp:/tmp"]), ["writing outside"]),
    ],
)
def test_each_missing_layer_is_noticed(boxes: Boxes, change: Change, ways: list[str]) -> None:
    def changed(asked: dict[str, Any]) -> None:
        change(asked)
        if "Binds" in asked["HostConfig"]:
            # One place takes one mount.
            asked["HostConfig"]["Tmpfs"].pop("/tmp", None)

    with (
        changing(boxes.host, changed) as host,
        closing(DockerSandbox(PROGRAMS, host, boxes.image, output_mib=64)) as sandbox,
        pytest.raises(Fault, match="does not hold") as caught,
    ):
        sandbox.self_test()

    assert [way for way in ways if way not in caught.value.reason] == []
    assert caught.value.remedy


def test_dockers_own_socket_is_noticed(boxes: Boxes) -> None:
    """Even where its rights keep this user out: that it is there is too much."""
    socket = boxes.host.removeprefix("unix://")
    change = _host(Binds=[f"{socket}:/var/run/docker.sock"])
    with (
        changing(boxes.host, change) as host,
        closing(DockerSandbox(PROGRAMS, host, boxes.image, output_mib=64)) as sandbox,
        pytest.raises(Fault, match="the socket of a container engine"),
    ):
        sandbox.self_test()


def test_a_missing_filter_is_noticed(boxes: Boxes, tmp_path: Path, without_filter: Path) -> None:
    with (
        closing(DockerSandbox(without_filter, boxes.host, boxes.image, output_mib=64)) as sandbox,
        pytest.raises(Fault) as caught,
    ):
        sandbox.self_test()
    for way in ("forking", "starting a process", "memory that nobody counts", "the system call ptrace"):
        assert way in caught.value.reason


@pytest.fixture
def without_filter(tmp_path: Path) -> Path:
    """The programs with a warden that starts what it is given without our filter."""
    folder = tmp_path / "programs"
    folder.mkdir()
    for file in PROGRAMS.glob("*.py"):
        (folder / file.name).write_text(file.read_text())
    warden = folder / "warden.py"
    lines = [line for line in warden.read_text().splitlines() if "_control(_SET_SECCOMP" not in line]
    warden.write_text("\n".join(lines) + "\n")
    return folder


def _job(folder: Path) -> SandboxJob:
    for name in ("model", "out"):
        (folder / name).mkdir()
    (folder / "model" / "MLmodel").write_text("flavors: {}\n")
    return SandboxJob("scan", {"model": folder / "model"}, {}, folder / "out")


def test_no_job_runs_in_a_container_that_does_not_hold(boxes: Boxes, tmp_path: Path) -> None:
    """It does as soon as the layer is there, without a restart."""
    missing = [True]

    def change(asked: dict[str, Any]) -> None:
        if missing:
            asked["HostConfig"]["CapDrop"] = []

    job = _job(tmp_path)
    with (
        changing(boxes.host, change) as host,
        closing(DockerSandbox(PROGRAMS, host, boxes.image, output_mib=64)) as layer,
    ):
        sandbox = ProvenSandbox(layer)
        for _ in range(2):
            with pytest.raises(Fault, match="being root or capable"):
                sandbox.run(job)
        assert list(job.output.iterdir()) == []
        missing.clear()
        assert sandbox.run(job)["scanned"] == 1


def test_the_doctor_names_the_image(boxes: Boxes, capsys: pytest.CaptureFixture[str]) -> None:
    with closing(DockerSandbox(PROGRAMS, boxes.host, boxes.image, output_mib=64)) as sandbox:
        test: Callable[[], str] = sandbox.self_test
        assert doctor._run(doctor.Check("sandbox (docker)", test))
        assert f"ok    sandbox (docker): containers of {sandbox.image()}" in capsys.readouterr().out
