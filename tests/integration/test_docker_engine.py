"""Images and containers on a real Docker Engine: built from our templates, locked in, adopted, started again."""

import os
import secrets
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import docker
import httpx
import numpy as np
import pytest
from docker.models.containers import Container

from app.adapters.docker_engine import DockerEngine, TritonDocker
from app.adapters.docker_engine.server import free_ports
from app.adapters.v2_client import V2Client
from app.domain.errors import Fault, LostLease, Transient
from app.packaging import render_config, write_docker_context, write_repository
from app.ports import Endpoint, ReleaseSpec
from tests.docker_support import docker_engine, docker_registry, triton_cpu_base
from tests.serving_support import INPUTS, MODEL, OUTPUTS, TinyModel, output, train_tiny_model

NOWHERE = "unix:///nowhere/docker.sock"


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with docker_engine(tmp_path_factory.mktemp("docker")) as host:
        yield host


@pytest.fixture(scope="module")
def daemon(host: str) -> Iterator[docker.DockerClient]:
    with closing(docker.DockerClient(base_url=host, version="auto")) as client:
        yield client


@pytest.fixture(scope="module")
def engine(host: str) -> Iterator[DockerEngine]:
    with closing(DockerEngine(host)) as engine:
        yield engine


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyModel:
    return train_tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def base(host: str) -> str:
    return triton_cpu_base(host)


@pytest.fixture(scope="module")
def release(tiny: TinyModel, base: str, engine: DockerEngine, tmp_path_factory: pytest.TempPathFactory) -> ReleaseSpec:
    """A release of the tiny model with an image that was built from the real template."""
    folder = tmp_path_factory.mktemp("release")
    repository = tiny.repository(folder / "repository")
    context = write_docker_context(folder / "context", repository, MODEL, "cpu", base)
    image = engine.build(context, "headgate/tiny-model:1", {"headgate.digest": "sha256:1"})
    return ReleaseSpec("tiny-1@0123456789ab", MODEL, repository, image)


@pytest.fixture
def overtaken(release: ReleaseSpec) -> ReleaseSpec:
    """The same release under a name that the daemon has seen no token of."""
    return replace(release, name=f"tiny-{secrets.token_hex(4)}@0123456789ab")


@pytest.fixture
def server(host: str) -> Iterator[TritonDocker]:
    """A server whose releases are stopped after the test."""
    with closing(TritonDocker(host)) as server:
        yield server
        for name in server.names():
            server.stop(name, None)


@pytest.fixture
def client() -> Iterator[V2Client]:
    client = V2Client(timeout=timedelta(seconds=20))
    yield client
    client.close()


def every_container_of(daemon: docker.DockerClient, name: str) -> list[Container]:
    return list(daemon.containers.list(all=True, filters={"label": f"headgate.release={name}"}))


def container_of(daemon: docker.DockerClient, name: str) -> Container:
    (found,) = every_container_of(daemon, name)
    return found


def exit_code_in(daemon: docker.DockerClient, container: Container, command: list[str]) -> int:
    """Run a command inside, apart from this process: the SDK leaves the socket open over which it would listen."""
    run = daemon.api.exec_create(container.id, command)["Id"]
    daemon.api.exec_start(run, detach=True)
    deadline = time.monotonic() + 30
    while (state := daemon.api.exec_inspect(run))["ExitCode"] is None and time.monotonic() < deadline:
        time.sleep(0.1)
    return int(state["ExitCode"])


def small_context(folder: Path, dockerfile: str) -> Path:
    folder.mkdir()
    (folder / "Dockerfile").write_text(dockerfile)
    (folder / "file").write_text("content")
    return folder


def test_a_container_answers_every_row_as_scikit_learn_does(
    server: TritonDocker, release: ReleaseSpec, tiny: TinyModel, client: V2Client
) -> None:
    endpoint = server.start(release, 1)
    answer = client.infer(endpoint, MODEL, tiny.body(200))
    np.testing.assert_allclose(output(answer, "probabilities"), tiny.probabilities(200), rtol=1e-4, atol=1e-5)
    assert output(answer, "label").tolist() == tiny.labels(200)
    assert client.config(endpoint, MODEL)["instance_group"][0]["kind"] == "KIND_CPU"
    with socket.create_connection((endpoint.host, endpoint.grpc_port), timeout=5):
        pass


def test_a_container_is_locked_in(server: TritonDocker, release: ReleaseSpec, daemon: docker.DockerClient) -> None:
    endpoint = server.start(release, 1)
    container = container_of(daemon, release.name)
    limits = container.attrs["HostConfig"]
    assert limits["ReadonlyRootfs"]
    assert limits["CapDrop"] == ["ALL"]
    assert limits["SecurityOpt"] == ["no-new-privileges"]
    assert limits["Memory"] == limits["MemorySwap"] == 4096 * 1024 * 1024
    assert limits["PidsLimit"] == 2048
    assert limits["RestartPolicy"]["Name"] == "always"
    published = {each["HostIp"] for bindings in limits["PortBindings"].values() for each in bindings}
    assert published == {"127.0.0.1"}
    assert exit_code_in(daemon, container, ["sh", "-c", "test $(id -u) = 10001 && touch /tmp/x"]) == 0
    assert exit_code_in(daemon, container, ["touch", "/models/x"]) != 0
    healthcheck = daemon.images.get(str(release.image)).attrs["Config"]["Healthcheck"]["Test"]
    assert exit_code_in(daemon, container, healthcheck[1:]) == 0
    url = f"http://{endpoint.host}:{endpoint.http_port}/v2/repository/models/{MODEL}/unload"
    assert httpx.post(url, json={}).status_code == 403


def test_a_running_container_is_adopted_and_a_stopped_one_is_gone(
    server: TritonDocker, release: ReleaseSpec, daemon: docker.DockerClient, host: str
) -> None:
    first = server.start(release, 1)
    with closing(TritonDocker(host)) as again, closing(TritonDocker(host, owner="another")) as stranger:
        assert again.start(release, 1) == first == again.find(release.name)
        assert again.names() == [release.name]
        assert stranger.names() == []
        assert stranger.find(release.name) is None
    with pytest.raises(Fault, match="already serves"):
        server.start(replace(release, image="headgate/tiny-model:1"), 1)
    server.stop(release.name, 1)
    server.stop(release.name, 1)
    assert server.find(release.name) is None
    assert server.names() == []
    assert daemon.containers.list(all=True) == []


def test_a_container_that_was_killed_is_replaced(
    server: TritonDocker, release: ReleaseSpec, daemon: docker.DockerClient
) -> None:
    server.start(release, 1)
    dead = container_of(daemon, release.name)
    dead.kill()
    assert server.find(release.name) is None
    server.start(release, 1)
    assert container_of(daemon, release.name).id != dead.id


def test_a_server_that_crashes_is_started_again_by_docker_at_the_same_address(
    server: TritonDocker, release: ReleaseSpec, daemon: docker.DockerClient, tiny: TinyModel, client: V2Client
) -> None:
    endpoint = server.start(release, 1)
    crashed = container_of(daemon, release.name)
    os.kill(int(crashed.attrs["State"]["Pid"]), signal.SIGKILL)
    deadline = time.monotonic() + 60
    while crashed.attrs["RestartCount"] == 0 and time.monotonic() < deadline:
        time.sleep(0.2)
        crashed.reload()
    # Adopting waits until it answers.
    assert server.start(release, 1) == endpoint
    assert output(client.infer(endpoint, MODEL, tiny.body(1)), "label").tolist() == tiny.labels(1)
    assert container_of(daemon, release.name).id == crashed.id


def test_a_stale_holder_starts_and_stops_nothing(
    host: str, server: TritonDocker, overtaken: ReleaseSpec, daemon: docker.DockerClient
) -> None:
    server.start(overtaken, 7)
    endpoint = server.start(overtaken, 8)
    running = container_of(daemon, overtaken.name)
    with closing(TritonDocker(host)) as stale:
        for call in (lambda: stale.stop(overtaken.name, 7), lambda: stale.start(overtaken, 7)):
            with pytest.raises(LostLease) as caught:
                call()
            assert caught.value.seen == 8
        assert (container_of(daemon, overtaken.name).id, server.find(overtaken.name)) == (running.id, endpoint)
        # The same goes for what was stopped: who comes late does not bring it back.
        server.stop(overtaken.name, 9)
        with pytest.raises(LostLease):
            stale.start(overtaken, 8)
    assert every_container_of(daemon, overtaken.name) == []
    # One token for each release is all that stays.
    labels = [volume.attrs["Labels"] for volume in daemon.volumes.list(filters={"label": "headgate.fence"})]
    assert [each["headgate.fence"] for each in labels if each["headgate.release"] == overtaken.name] == ["9"]


@pytest.mark.parametrize("place", ["create_container", "start", "rename", "update_container"])
def test_a_holder_that_is_overtaken_between_two_words_to_the_daemon_leaves_no_trace(
    host: str, server: TritonDocker, overtaken: ReleaseSpec, daemon: docker.DockerClient, place: str
) -> None:
    """It has looked, it may act: what it then says finds no container of that name, or is taken back."""
    if place == "rename":
        server.start(overtaken, 1)
    found: list[Endpoint] = []
    with closing(TritonDocker(host)) as stale:
        speaker = stale._daemon.client().api
        works = getattr(speaker, place)

        def held_up(*arguments: Any, **named: Any) -> Any:
            if not found:
                found.append(server.start(overtaken, 3))
            return works(*arguments, **named)

        setattr(speaker, place, held_up)
        with pytest.raises(LostLease):
            stale.start(overtaken, 2)
    assert server.find(overtaken.name) == found[0]
    assert [each.status for each in every_container_of(daemon, overtaken.name)] == ["running"]


def test_a_stop_that_is_overtaken_between_two_words_to_the_daemon_stops_nothing(
    host: str, server: TritonDocker, overtaken: ReleaseSpec, daemon: docker.DockerClient
) -> None:
    server.start(overtaken, 1)
    found: list[Endpoint] = []
    with closing(TritonDocker(host)) as stale:
        containers = stale._containers

        def held_up(names: Any) -> Any:
            seen = containers(names)
            if not found:
                found.append(server.start(overtaken, 3))
            return seen

        stale._containers = held_up  # type: ignore[method-assign]
        with pytest.raises(LostLease):
            stale.stop(overtaken.name, 2)
    assert server.find(overtaken.name) == found[0]
    assert [each.status for each in every_container_of(daemon, overtaken.name)] == ["running"]


def test_a_container_whose_maker_died_before_starting_it_is_started(
    host: str, server: TritonDocker, release: ReleaseSpec, daemon: docker.DockerClient
) -> None:
    class Dies(TritonDocker):
        def _create(self, spec: ReleaseSpec, image: str, fence: int) -> Container:
            super()._create(spec, image, fence)
            raise KeyboardInterrupt

    with closing(Dies(host)) as dying, pytest.raises(KeyboardInterrupt):
        dying.start(release, 1)
    left = container_of(daemon, release.name)
    assert left.status == "created"
    server.start(release, 1)
    assert container_of(daemon, release.name).id == left.id


def test_a_port_that_somebody_took_is_replaced_by_another(host: str, release: ReleaseSpec) -> None:
    with socket.socket() as stranger:
        stranger.bind(("127.0.0.1", 0))
        stranger.listen()
        chosen: list[tuple[int, int]] = []

        def choose(address: str) -> tuple[int, int]:
            http, grpc = free_ports(address)
            chosen.append((http, grpc) if chosen else (stranger.getsockname()[1], grpc))
            return chosen[-1]

        with closing(TritonDocker(host, choose_ports=choose)) as server:
            endpoint = server.start(release, 1)
            server.stop(release.name, 1)
    assert len(chosen) == 2
    assert (endpoint.http_port, endpoint.grpc_port) == chosen[1]


def test_a_model_that_cannot_be_served_is_a_fault_that_says_why(
    server: TritonDocker, base: str, engine: DockerEngine, daemon: docker.DockerClient, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"this is no model")
    config = render_config(MODEL, INPUTS, OUTPUTS, "cpu")
    repository = write_repository(tmp_path / "repository", MODEL, broken, config)
    context = write_docker_context(tmp_path / "context", repository, MODEL, "cpu", base)
    image = engine.build(context, "headgate/broken:1", {})
    with pytest.raises(Fault, match="ONNX Runtime cannot load the model"):
        server.start(ReleaseSpec("broken", MODEL, repository, image), 1)
    assert daemon.containers.list(all=True) == []


def test_a_gpu_is_asked_for_and_its_absence_is_no_silent_cpu(
    server: TritonDocker, release: ReleaseSpec, daemon: docker.DockerClient
) -> None:
    with pytest.raises(Fault, match="no GPU") as caught:
        server.start(replace(release, instance="gpu"), 1)
    assert "NVIDIA Container Toolkit" in caught.value.remedy
    assert daemon.containers.list(all=True) == []


def test_a_release_without_an_image_is_not_started(server: TritonDocker, release: ReleaseSpec) -> None:
    with pytest.raises(Fault, match="no image"):
        server.start(replace(release, image=None), 1)
    with pytest.raises(Fault, match="Docker refused"):
        server.start(replace(release, image="127.0.0.1:1/nobody@sha256:" + "0" * 64), 1)


def test_an_image_is_built_once_for_its_tag_and_labels(
    engine: DockerEngine, daemon: docker.DockerClient, tmp_path: Path
) -> None:
    context = small_context(tmp_path / "context", "FROM scratch\nCOPY file /file\n")
    first = engine.build(context, "headgate/small:1", {"headgate.digest": "a"})
    (context / "file").write_text("other content")
    assert engine.build(context, "headgate/small:1", {"headgate.digest": "a"}) == first
    second = engine.build(context, "headgate/small:1", {"headgate.digest": "b"})
    assert second != first
    assert daemon.images.get(second).labels == {"headgate.digest": "b"}


def test_the_daemon_says_what_it_is(engine: DockerEngine, daemon: docker.DockerClient) -> None:
    assert engine.version().endswith(str(daemon.version()["Version"]))


def test_a_build_that_fails_says_what_it_said_last(base: str, engine: DockerEngine, tmp_path: Path) -> None:
    text = f"FROM {base}\nRUN echo the last straw && exit 3\n"
    with pytest.raises(Fault, match="the last straw") as caught:
        engine.build(small_context(tmp_path / "context", text), "headgate/failing:1", {})
    assert "returned a non-zero code: 3" in caught.value.reason


def test_with_a_registry_the_id_is_the_digest_that_anybody_can_pull(
    host: str, daemon: docker.DockerClient, tmp_path: Path
) -> None:
    context = small_context(tmp_path / "context", "FROM scratch\nCOPY file /file\n")
    with docker_registry(tmp_path) as address, closing(DockerEngine(host, registry=f"{address}/team")) as engine:
        image = engine.build(context, "small:1", {"headgate.digest": "c"})
        assert image.startswith(f"{address}/team/small@sha256:")
        assert engine.build(context, "small:1", {"headgate.digest": "c"}) == image
        local = daemon.images.get(f"{address}/team/small:1")
        daemon.images.remove(str(local.id), force=True)
        assert daemon.images.pull(image).id == local.id
    with closing(DockerEngine(host, registry=f"{address}/team")) as engine, pytest.raises(Fault, match="pushed"):
        engine.build(context, "small:1", {"headgate.digest": "d"})


@pytest.mark.parametrize(
    "call",
    [
        lambda release, folder: TritonDocker(NOWHERE).start(release, 1),
        lambda release, folder: TritonDocker(NOWHERE).find(release.name),
        lambda release, folder: TritonDocker(NOWHERE).stop(release.name, 1),
        lambda release, folder: TritonDocker(NOWHERE).names(),
        lambda release, folder: DockerEngine(NOWHERE).build(folder, "x:1", {}),
        lambda release, folder: DockerEngine(NOWHERE).version(),
    ],
)
def test_a_daemon_that_is_away_is_tried_again_later(call: Any, tmp_path: Path) -> None:
    with pytest.raises(Transient) as caught:
        call(ReleaseSpec("any", MODEL, tmp_path, "image"), tmp_path)
    assert "HEADGATE_DOCKER_HOST" in caught.value.remedy
