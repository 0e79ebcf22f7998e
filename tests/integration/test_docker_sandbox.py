"""The container sandbox alone: how a job is locked in, that no worker's death leaves one running, what goes wrong."""

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import docker
import pytest
from docker.models.containers import Container

from app.adapters.docker_sandbox import DockerSandbox
from app.adapters.docker_sandbox.container import throw_away
from app.domain.errors import Fault, Rejected, Transient
from app.ports import SandboxJob
from tests.engine_proxy import Change, changing
from tests.integration.conftest import Boxes

PROGRAMS = Path(__file__).parents[2] / "workers" / "sandbox"
LABEL = "headgate.sandbox"
WORKER = """
import sys
from datetime import timedelta
from pathlib import Path
from app.adapters.docker_sandbox import DockerSandbox
from app.ports import SandboxJob
programs, host, image, output, seconds = sys.argv[1:]
job = SandboxJob("scan", {}, {}, Path(output), timedelta(seconds=float(seconds)))
DockerSandbox(Path(programs), host, image, output_mib=64).run(job)
"""


@pytest.fixture(scope="module")
def engine(boxes: Boxes) -> Iterator[docker.DockerClient]:
    with closing(docker.DockerClient(base_url=boxes.host, version="auto")) as client:
        yield client


@pytest.fixture
def programs(tmp_path: Path) -> Callable[[str], Path]:
    """A copy of the programs in which the body of one is given."""

    def write(body: str) -> Path:
        folder = tmp_path / "programs"
        shutil.copytree(PROGRAMS, folder)
        code = "import os, time, threading\n\ndef run(request, inputs, output):\n"
        (folder / "scan.py").write_text(code + textwrap.indent(textwrap.dedent(body), "    "))
        return folder

    return write


def job(folder: Path, **options: Any) -> SandboxJob:
    (folder / "out").mkdir()
    given: dict[str, Any] = {"inputs": {}, "timeout": timedelta(seconds=30), "memory_mib": 1024, **options}
    return SandboxJob("scan", request={}, output=folder / "out", **given)


@contextmanager
def opened(boxes: Boxes, folder: Path, host: str | None = None, image: str | None = None) -> Iterator[DockerSandbox]:
    with closing(DockerSandbox(folder, host or boxes.host, image or boxes.image, output_mib=64)) as sandbox:
        yield sandbox


@contextmanager
def worker(boxes: Boxes, folder: Path, programs: Path, seconds: float) -> Iterator["subprocess.Popen[bytes]"]:
    """A worker process that runs one job; it is killed at the end."""
    (folder / "out").mkdir()
    words = [sys.executable, "-c", WORKER, str(programs), boxes.host, boxes.image, str(folder / "out"), str(seconds)]
    with subprocess.Popen(words, cwd=PROGRAMS.parents[1], stderr=subprocess.DEVNULL) as process:
        try:
            yield process
        finally:
            process.kill()


def of_sandbox(engine: docker.DockerClient) -> list[Container]:
    return list(engine.containers.list(all=True, filters={"label": LABEL}, ignore_removed=True))


def until(condition: Callable[[], Any], what: str) -> Any:
    deadline = time.monotonic() + 60
    while not (found := condition()):
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.05)
    return found


def running(engine: docker.DockerClient) -> list[Container]:
    """The job's container once it is alone: what filled it goes a moment after its start."""
    found = of_sandbox(engine)
    return found if [each.status for each in found] == ["running"] else []


@pytest.fixture(autouse=True)
def emptied(engine: docker.DockerClient) -> Iterator[None]:
    """Whatever a killed worker of one test left is nothing to the next."""
    yield
    for container in of_sandbox(engine):
        throw_away(container)
    until(lambda: not of_sandbox(engine), "the containers to go")


def test_a_running_job_is_locked_in(
    boxes: Boxes, engine: docker.DockerClient, tmp_path: Path, programs: Callable[[str], Path]
) -> None:
    with worker(boxes, tmp_path, programs("time.sleep(600)"), 600):
        (container,) = until(lambda: running(engine), "the container")
        options, config = container.attrs["HostConfig"], container.attrs["Config"]
        assert container.attrs["Image"] == engine.images.get(boxes.image).id
        assert (options["NetworkMode"], options["IpcMode"], options["ReadonlyRootfs"]) == ("none", "none", True)
        assert (options["CapDrop"], options["CapAdd"], options["Privileged"]) == (["ALL"], None, False)
        assert options["SecurityOpt"] == ["no-new-privileges"]
        assert options["Memory"] == options["MemorySwap"] > 0
        assert (options["PidsLimit"], options["CpuQuota"], options["CpuPeriod"]) == (256, 200_000, 100_000)
        assert {limit["Name"]: limit["Hard"] for limit in options["Ulimits"]}["fsize"] == 64 << 20
        assert {place: "noexec,nosuid,nodev,size=" in how for place, how in options["Tmpfs"].items()} == {
            "/tmp": True,
            "/out": True,
        }
        assert config["User"] == "65534:65534"
        assert [name for name in config["Env"] if not name.startswith("PATH=")] == []
        # Nothing of the host is in it: two volumes of its own, which it can only read.
        assert not options["Binds"]
        assert {(mount["Type"], mount["Destination"], mount["RW"]) for mount in container.attrs["Mounts"]} == {
            ("volume", "/in", False),
            ("volume", "/headgate/sandbox", False),
        }


def test_inputs_stay_while_the_job_runs(boxes: Boxes, tmp_path: Path, programs: Callable[[str], Path]) -> None:
    """What filled the volumes is gone by then."""
    (tmp_path / "rows.csv").write_text("a\n1\n")
    body = 'time.sleep(2)\nreturn {"rows": (inputs / "rows").read_text(), "programs": os.listdir("/headgate/sandbox")}'
    with opened(boxes, programs(body)) as sandbox:
        result = sandbox.run(job(tmp_path, inputs={"rows": tmp_path / "rows.csv"}))
    assert result["rows"] == "a\n1\n"
    assert "warden.py" in result["programs"]


def test_nothing_is_left_of_a_job(
    boxes: Boxes, engine: docker.DockerClient, tmp_path: Path, programs: Callable[[str], Path]
) -> None:
    volumes = {volume.id for volume in engine.volumes.list()}
    with opened(boxes, programs("time.sleep(600)")) as sandbox, pytest.raises(Rejected, match="longer than 1 s"):
        sandbox.run(job(tmp_path, timeout=timedelta(seconds=1)))
    until(lambda: not of_sandbox(engine), "the container's end")
    assert {volume.id for volume in engine.volumes.list()} == volumes


def test_a_killed_worker_takes_its_container_along(
    boxes: Boxes, engine: docker.DockerClient, tmp_path: Path, programs: Callable[[str], Path]
) -> None:
    volumes = {volume.id for volume in engine.volumes.list()}
    with worker(boxes, tmp_path, programs("time.sleep(600)"), 600) as process:
        until(lambda: running(engine), "the container")
        process.send_signal(signal.SIGKILL)
        process.wait()
    until(lambda: not of_sandbox(engine), "the container's end")
    assert {volume.id for volume in engine.volumes.list()} == volumes


def test_a_stopped_worker_leaves_no_container_past_its_time(
    boxes: Boxes, engine: docker.DockerClient, tmp_path: Path, programs: Callable[[str], Path]
) -> None:
    """Its connection stays open, and nobody asks for the container's end: its own first process ends it."""
    body = """
        for number in range(1, 65):
            try:
                os.kill(1, number)  # the program cannot keep the warden from it
            except OSError:
                pass
        time.sleep(600)
    """
    with worker(boxes, tmp_path, programs(body), 3) as process:
        until(lambda: running(engine), "the container")
        process.send_signal(signal.SIGSTOP)
        until(lambda: not of_sandbox(engine), "the container's end")
        assert process.poll() is None


def test_left_overs_of_the_killed_are_swept(
    boxes: Boxes, engine: docker.DockerClient, tmp_path: Path, programs: Callable[[str], Path]
) -> None:
    """Killed between two calls, a worker leaves a container that never ran; another owner's are not ours to take."""

    def planted(owner: str, seconds: float) -> Container:
        labels = {"headgate.owner": owner, LABEL: "scan", "headgate.until": str(int(time.time() + seconds))}
        return engine.containers.create(boxes.image, ["/headgate/python"], labels=labels)

    old, young, others = planted("headgate", -3600), planted("headgate", 0), planted("somebody", -3600)
    with opened(boxes, programs("return {}")) as sandbox:
        sandbox.run(job(tmp_path))
    until(lambda: {each.id for each in of_sandbox(engine)} == {young.id, others.id}, "the job's own to go")
    assert old.id not in {each.id for each in engine.containers.list(all=True)}


def test_what_locks_its_files_away_gives_them_all_the_same(
    boxes: Boxes, tmp_path: Path, programs: Callable[[str], Path]
) -> None:
    body = """
        (output / "folder").mkdir()
        (output / "folder" / "file").write_text("x")
        (output / "folder" / "file").chmod(0)
        (output / "folder").chmod(0)
        return {}
    """
    with opened(boxes, programs(body)) as sandbox:
        assert sandbox.run(job(tmp_path)) == {}
    assert (tmp_path / "out" / "folder" / "file").read_text() == "x"


def test_the_program_cannot_reach_the_warden(boxes: Boxes, tmp_path: Path, programs: Callable[[str], Path]) -> None:
    body = """
        opened = []
        for name in ("mem", "environ", "fd/1", "root", "cwd", "maps"):
            try:
                if name == "mem":
                    open("/proc/1/mem", "r+b").close()
                elif name in ("environ", "maps"):
                    open("/proc/1/" + name, "rb").read()
                else:
                    os.readlink("/proc/1/" + name)
                opened.append(name)
            except OSError:
                pass
        return {"opened": opened, "pid": os.getpid(), "first": open("/proc/1/comm").read().strip()}
    """
    with opened(boxes, programs(body)) as sandbox:
        result = sandbox.run(job(tmp_path))
    assert result["opened"] == []
    assert (result["first"], result["pid"] != 1) == ("warden", True)


def test_the_containers_memory_is_a_limit_of_its_own(
    boxes: Boxes, tmp_path: Path, programs: Callable[[str], Path]
) -> None:
    """The kernel ends what grows beyond it; that is the model's fault in the same words as below."""

    def shrink(asked: dict[str, Any]) -> None:
        asked["HostConfig"]["Memory"] = asked["HostConfig"]["MemorySwap"] = 200 << 20

    body = "blob = bytearray(600 << 20)\nblob[::4096] = b'x' * len(blob[::4096])\nreturn {}"
    with changing(boxes.host, shrink) as host, opened(boxes, programs(body), host) as sandbox:
        with pytest.raises(Rejected, match="needs more than the 1024 MiB") as caught:
            sandbox.run(job(tmp_path))
        assert "smaller" in caught.value.remedy


def test_the_image_is_settled_once(
    boxes: Boxes, engine: docker.DockerClient, tmp_path: Path, programs: Callable[[str], Path]
) -> None:
    """Whoever moves the tag later changes nothing for what has been proved here."""
    first = engine.images.get(boxes.image)
    first.tag("headgate-test/moving", "now")
    with opened(boxes, programs("return {}"), image="headgate-test/moving:now") as sandbox:
        assert sandbox.image() == first.id
        other = engine.images.get("headgate-test/moving:now")
        engine.images.remove("headgate-test/moving:now")
        assert sandbox.run(job(tmp_path)) == {}
        assert sandbox.image() == other.id


def test_without_an_image_nothing_runs(boxes: Boxes, tmp_path: Path) -> None:
    with opened(boxes, PROGRAMS, image="headgate-test/none:1") as sandbox, pytest.raises(Fault, match="no image") as no:
        sandbox.run(job(tmp_path))
    assert "make sandbox-image" in no.value.remedy


def test_without_a_daemon_it_is_tried_again(boxes: Boxes, tmp_path: Path) -> None:
    with opened(boxes, PROGRAMS, "unix:///nowhere/docker.sock") as sandbox, pytest.raises(Transient, match="Docker"):
        sandbox.run(job(tmp_path))


def test_a_container_that_somebody_else_ends_is_not_the_models_fault(
    boxes: Boxes, engine: docker.DockerClient, tmp_path: Path, programs: Callable[[str], Path]
) -> None:
    code = f"{WORKER.replace('.run(job)', '')}"  # nothing of it runs yet: only its words are needed
    caught = (
        "from app.domain.errors import Transient\nsandbox = DockerSandbox(Path(programs), host, image, output_mib=64)\n"
        "try:\n    sandbox.run(job)\nexcept Transient as error:\n    print(error.reason)\n"
    )
    (tmp_path / "out").mkdir()
    words = [str(programs("time.sleep(600)")), boxes.host, boxes.image, str(tmp_path / "out"), "600"]
    process = subprocess.Popen(
        [sys.executable, "-c", code + caught, *words], cwd=PROGRAMS.parents[1], stdout=subprocess.PIPE, text=True
    )
    with process:
        (container,) = until(lambda: running(engine), "the container")
        until(lambda: len(container.top()["Processes"]) > 1, "the program")
        time.sleep(1)  # until it has said its first word
        container.kill()
        said = process.communicate(timeout=60)[0]
    assert "ended from outside" in said


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda asked: asked.update(Entrypoint=["/no/such/program"]), "no such file"),
        (lambda asked: asked["HostConfig"].update(SecurityOpt=[]), "could not be set up"),
    ],
)
def test_a_container_that_cannot_be_set_up_is_our_fault(
    boxes: Boxes, engine: docker.DockerClient, tmp_path: Path, change: Change, word: str
) -> None:
    """As with a foreign image, or a daemon that drops no-new-privileges: nothing untrusted has run."""
    with changing(boxes.host, change) as host, opened(boxes, PROGRAMS, host) as sandbox:
        with pytest.raises(Fault, match=word) as caught:
            sandbox.run(job(tmp_path))
        assert caught.value.remedy
    until(lambda: not of_sandbox(engine), "the container's end")


def test_points_lie_around_the_calls(boxes: Boxes, tmp_path: Path) -> None:
    """The crash harness may end a worker at each; here they are only passed."""
    for name in ("armed", "hit", "reached"):
        (tmp_path / "points" / name).mkdir(parents=True)
    (tmp_path / "model").mkdir()
    (tmp_path / "out").mkdir()
    words = [str(PROGRAMS), boxes.host, boxes.image, str(tmp_path / "out"), "30"]
    code = WORKER.replace('"scan", {}', f'"scan", {{"model": Path({json.dumps(str(tmp_path / "model"))})}}')
    environment = {**os.environ, "HEADGATE_FAILPOINTS": str(tmp_path / "points")}
    subprocess.run([sys.executable, "-c", code, *words], cwd=PROGRAMS.parents[1], check=True, env=environment)
    reached = {file.name.partition(":")[2] for file in (tmp_path / "points" / "reached").iterdir()}
    calls = {f"docker.sandbox_{call}.{side}" for call in ("create", "start", "remove") for side in ("before", "after")}
    assert calls <= reached
