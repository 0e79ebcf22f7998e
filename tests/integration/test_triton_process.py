"""TritonProcess on the real server: right answers, adoption, a starter that dies, and why it does not start."""

import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pytest

from app.adapters.triton_process import TritonProcess
from app.adapters.triton_process.server import free_ports
from app.adapters.v2_client import V2Client
from app.domain.errors import Fault, LostLease
from app.packaging import render_config, write_repository
from app.ports import Endpoint, ReleaseSpec
from tests.haproxy_support import eventually
from tests.serving_support import BACKEND, INPUTS, MODEL, OUTPUTS, ROOT, TRITON, TinyModel, output, train_tiny_model


def triton(home: Path, **options: Any) -> TritonProcess:
    return TritonProcess(home, TRITON, BACKEND, drain=timedelta(seconds=1), **options)


def pid_of(home: Path, name: str) -> int:
    return int(json.loads((home / "releases" / name / "server.json").read_text())["process"]["pid"])


def traces(home: Path) -> list[int]:
    """Every process on this machine that was started for `home`: servers and the stubs in which their models run."""
    found = psutil.process_iter(["cmdline"])
    return [each.pid for each in found if any(str(home) in part for part in each.info["cmdline"] or [])]


def servers(home: Path) -> list[int]:
    """The servers among them."""
    return [pid for pid in traces(home) if "tritonserver" in Path(psutil.Process(pid).cmdline()[0]).name]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyModel:
    return train_tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def client() -> Iterator[V2Client]:
    client = V2Client(timeout=timedelta(seconds=20))
    yield client
    client.close()


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """A folder of state; whatever a test leaves running in it is ended."""
    yield tmp_path
    server = triton(tmp_path)
    for name in server.names():
        server.stop(name, None)
    assert traces(tmp_path) == []


@pytest.fixture(scope="module")
def shared(tiny: TinyModel, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Endpoint]]:
    """A release with two instances that tests may call but not disturb."""
    home = tmp_path_factory.mktemp("home")
    server = triton(home)
    yield home, server.start(ReleaseSpec("shared", MODEL, tiny.repository(home / "repository", count=2)), 1)
    server.stop("shared", None)


def spec(tiny: TinyModel, home: Path) -> ReleaseSpec:
    return ReleaseSpec("tiny-1@0123456789ab", MODEL, tiny.repository(home / "repository"))


def test_every_row_is_answered_as_scikit_learn_answers_it(
    shared: tuple[Path, Endpoint], tiny: TinyModel, client: V2Client
) -> None:
    """Many rows in one request: with a NumPy that the stub misreads, one row is right and the others repeat it."""
    answer = client.infer(shared[1], MODEL, tiny.body(200))
    np.testing.assert_allclose(output(answer, "probabilities"), tiny.probabilities(200), rtol=1e-4, atol=1e-5)
    assert output(answer, "label").tolist() == tiny.labels(200)
    assert len(set(tiny.labels(200))) == 2


def test_what_runs_is_what_was_written(shared: tuple[Path, Endpoint], client: V2Client) -> None:
    config = client.config(shared[1], MODEL)
    assert [(group["kind"], group["count"]) for group in config["instance_group"]] == [("KIND_CPU", 2)]
    assert config["backend"] == "onnxruntime"
    assert config["max_batch_size"] == 0


def test_rows_that_no_request_names_and_missing_values_are_answered(
    shared: tuple[Path, Endpoint], tiny: TinyModel, client: V2Client
) -> None:
    assert output(client.infer(shared[1], MODEL, tiny.body(0)), "probabilities").shape == (0, 2)
    body = tiny.body(2)
    body["inputs"][1]["data"][0] = float("nan")
    body["outputs"] = [{"name": "probabilities"}]
    answer = client.infer(shared[1], MODEL, body)
    assert [each["name"] for each in answer["outputs"]] == ["probabilities"]
    assert np.isnan(output(answer, "probabilities")).tolist() == [[True, True], [False, False]]


def test_a_wrong_request_is_refused_with_the_servers_words_and_harms_nobody(
    shared: tuple[Path, Endpoint], tiny: TinyModel, client: V2Client
) -> None:
    body = tiny.body(3)
    body["inputs"][0] |= {"shape": [1, 1], "data": ["entire"]}
    with pytest.raises(Fault, match="mismatched dimensions"):
        client.infer(shared[1], MODEL, body)
    with pytest.raises(Fault, match="unknown model"):
        client.infer(shared[1], "nobody", tiny.body(1))
    assert output(client.infer(shared[1], MODEL, tiny.body(1)), "label").tolist() == tiny.labels(1)


def test_bytes_that_are_no_text_are_the_callers_fault(shared: tuple[Path, Endpoint], tiny: TinyModel) -> None:
    body, raw = tiny.body(1), b"\x02\x00\x00\x00\xff\xfe"
    del body["inputs"][0]["data"]
    body["inputs"][0]["parameters"] = {"binary_data_size": len(raw)}
    head = json.dumps(body).encode()
    url = f"http://{shared[1].host}:{shared[1].http_port}/v2/models/{MODEL}/infer"
    headers = {"Inference-Header-Content-Length": str(len(head))}
    answer = httpx.post(url, content=head + raw, headers=headers)
    assert answer.status_code == 400
    assert "codec can't decode" in answer.json()["error"]


def test_grpc_is_served_as_well(shared: tuple[Path, Endpoint]) -> None:
    """ServerLive, as the few HTTP/2 frames it takes: no gRPC library is needed for one call."""
    fields = {":method": "POST", ":scheme": "http", ":path": "/inference.GRPCInferenceService/ServerLive"}
    fields |= {":authority": "localhost", "content-type": "application/grpc", "te": "trailers"}
    block = b"".join(b"\0" + bytes([len(k)]) + k.encode() + bytes([len(v)]) + v.encode() for k, v in fields.items())

    def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
        return len(payload).to_bytes(3) + bytes([kind, flags]) + stream.to_bytes(4) + payload

    with socket.create_connection((shared[1].host, shared[1].grpc_port), timeout=10) as connection:
        settings, headers, message = frame(4, 0, 0, b""), frame(1, 4, 1, block), frame(0, 1, 1, b"\0" * 5)
        connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + settings + headers + message)
        stream = connection.makefile("rb")
        while head := stream.read(9):
            payload = stream.read(int.from_bytes(head[:3]))
            if head[3] == 0:
                break
    # A gRPC message of two bytes: field 1, live, is true.
    assert payload == b"\0\0\0\0\2\x08\1"


def test_calls_that_would_change_a_release_are_closed(shared: tuple[Path, Endpoint], client: V2Client) -> None:
    base = f"http://{shared[1].host}:{shared[1].http_port}/v2"
    for path in (f"repository/models/{MODEL}/unload", "systemsharedmemory/region/x/register", "logging"):
        assert httpx.post(f"{base}/{path}", json={}).status_code == 403
    assert client.config(shared[1], MODEL)["name"] == MODEL


def test_the_server_gets_none_of_our_environment(home: Path, tiny: TinyModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADGATE_AUDIT_KEY", "hush")
    triton(home).start(spec(tiny, home), 1)
    environment = psutil.Process(pid_of(home, "tiny-1@0123456789ab")).environ()
    assert "hush" not in environment.values()
    assert "HEADGATE_PYTHON_PATH" in environment


def test_a_running_release_is_adopted_and_a_stopped_one_is_gone(home: Path, tiny: TinyModel) -> None:
    release = spec(tiny, home)
    first = triton(home).start(release, 1)
    pid = pid_of(home, release.name)
    again = triton(home)
    assert again.start(release, 1) == first == again.find(release.name)
    assert pid_of(home, release.name) == pid
    assert again.names() == [release.name]
    again.stop(release.name, 1)
    again.stop(release.name, 1)
    assert again.find(release.name) is None
    assert again.names() == []
    assert traces(home) == []


def test_two_starts_at_once_leave_one_server(home: Path, tiny: TinyModel) -> None:
    release = spec(tiny, home)
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda _: triton(home).start(release, 1), range(3)))
    assert len(set(found)) == 1
    assert len(servers(home)) == 1


def test_a_server_that_was_killed_is_started_again(home: Path, tiny: TinyModel, client: V2Client) -> None:
    release, server = spec(tiny, home), triton(home)
    server.start(release, 1)
    dead = psutil.Process(pid_of(home, release.name))
    family = [dead, *dead.children(recursive=True)]
    dead.kill()
    assert psutil.wait_procs(family, timeout=20)[1] == []
    assert server.find(release.name) is None
    assert server.names() == []
    endpoint = server.start(release, 1)
    assert pid_of(home, release.name) != dead.pid
    assert output(client.infer(endpoint, MODEL, tiny.body(1)), "label").tolist() == tiny.labels(1)


def test_a_server_that_runs_but_does_not_answer_is_replaced(home: Path, tiny: TinyModel) -> None:
    release = spec(tiny, home)
    triton(home).start(release, 1)
    hung = pid_of(home, release.name)
    os.kill(hung, signal.SIGSTOP)
    triton(home, ready_timeout=timedelta(seconds=4)).start(release, 1)
    assert pid_of(home, release.name) != hung
    assert len(servers(home)) == 1


def test_the_server_outlives_a_starter_that_dies_before_it_wrote_anything_down(home: Path, tiny: TinyModel) -> None:
    release = spec(tiny, home)
    starter = textwrap.dedent("""
        import os, signal, sys
        from pathlib import Path
        from app.adapters.triton_process import TritonProcess
        from app.ports import ReleaseSpec
        home, triton, backend, name, model, repository = sys.argv[1:]
        class Dies(TritonProcess):
            def _write_state(self, name, running):
                os.kill(os.getpid(), signal.SIGKILL)
        Dies(Path(home), Path(triton), Path(backend)).start(ReleaseSpec(name, model, Path(repository)), 1)
    """)
    arguments = [str(part) for part in (home, TRITON, BACKEND, release.name, release.model, release.repository)]
    died = subprocess.run([sys.executable, "-c", starter, *arguments], cwd=ROOT, check=False, timeout=60)
    assert died.returncode == -signal.SIGKILL
    assert not (home / "releases" / release.name / "server.json").exists()
    (left,) = servers(home)
    triton(home).start(release, 1)
    assert servers(home) == [left] == [pid_of(home, release.name)]
    # Nobody of ours is its parent, so nobody of ours has to reap it.
    assert psutil.Process(left).ppid() != os.getpid()


def test_another_process_that_got_the_pid_is_not_taken_for_the_server(home: Path, tiny: TinyModel) -> None:
    release, server = spec(tiny, home), triton(home)
    server.start(release, 1)
    file = home / "releases" / release.name / "server.json"
    state = json.loads(file.read_text())
    server.stop(release.name, 1)
    bystander = subprocess.Popen(["sleep", "60"])
    try:
        file.write_text(json.dumps(state | {"process": state["process"] | {"pid": bystander.pid}}))
        assert server.names() == []
        assert server.find(release.name) is None
        server.stop(release.name, 1)
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


@pytest.mark.parametrize("which", [0, 1, 2])
def test_a_port_that_somebody_took_is_replaced_by_another(home: Path, tiny: TinyModel, which: int) -> None:
    with socket.socket() as stranger:
        stranger.bind(("127.0.0.1", 0))
        stranger.listen()
        chosen: list[tuple[int, int, int]] = []

        def choose(host: str) -> tuple[int, int, int]:
            ports = list(free_ports(host))
            if not chosen:
                ports[which] = stranger.getsockname()[1]
            chosen.append((ports[0], ports[1], ports[2]))
            return chosen[-1]

        endpoint = triton(home, choose_ports=choose).start(spec(tiny, home), 1)
    assert len(chosen) == 2
    assert (endpoint.http_port, endpoint.grpc_port) == chosen[1][:2]


def test_a_broken_model_is_a_fault_that_says_why(home: Path, tmp_path: Path) -> None:
    onnx = tmp_path / "broken.onnx"
    onnx.write_bytes(b"this is no model")
    repository = write_repository(home / "repository", MODEL, onnx, render_config(MODEL, INPUTS, OUTPUTS, "cpu"))
    server = triton(home)
    with pytest.raises(Fault, match=r"ONNX Runtime cannot load the model.*Protobuf parsing failed") as caught:
        server.start(ReleaseSpec("broken", MODEL, repository), 1)
    assert "server.log" in caught.value.remedy
    assert server.names() == []
    assert servers(home) == []


@pytest.mark.parametrize(
    ("inputs", "says"),
    [
        ([*INPUTS[:2], {"name": "nights", "datatype": "FP64", "shape": [-1, 1]}], "it is TYPE_INT64"),
        ([*INPUTS[:2], {"name": "nachts", "datatype": "INT64", "shape": [-1, 1]}], "'nights', 'price', 'room'"),
    ],
)
def test_a_config_that_does_not_fit_the_model_is_not_served(
    home: Path, tiny: TinyModel, inputs: list[dict[str, Any]], says: str
) -> None:
    config = render_config(MODEL, inputs, OUTPUTS, "cpu")
    with pytest.raises(Fault, match=says):
        triton(home).start(
            ReleaseSpec("odd", MODEL, write_repository(home / "repository", MODEL, tiny.onnx, config)), 1
        )


def test_a_gpu_instance_never_runs_on_the_cpu_in_silence(home: Path, tiny: TinyModel) -> None:
    release = ReleaseSpec("gpu", MODEL, tiny.repository(home / "repository", "gpu"), instance="gpu")
    with pytest.raises(Fault, match="GPU"):
        triton(home).start(release, 1)


def test_a_name_stands_for_one_model_only(home: Path, tiny: TinyModel) -> None:
    release, server = spec(tiny, home), triton(home)
    server.start(release, 1)
    with pytest.raises(Fault, match="already serves"):
        server.start(ReleaseSpec(release.name, MODEL, tiny.repository(home / "another")), 1)
    with pytest.raises(Fault, match="cannot name a release"):
        server.find("../elsewhere")


def test_parts_that_are_missing_are_named_with_their_remedy(home: Path, tiny: TinyModel) -> None:
    def faults(folder: Path) -> Fault:
        with pytest.raises(Fault) as caught:
            TritonProcess(home, folder, BACKEND).start(spec(tiny, home), 1)
        return caught.value

    partial = home / "partial"
    partial.mkdir()
    nothing = faults(partial)
    assert "no tritonserver" in nothing.reason
    assert "requirements-triton.lock" in nothing.remedy
    for part in ("pytriton", "nvidia_pytriton.libs"):
        (partial / part).symlink_to(TRITON / part)
    assert "no NumPy 1" in faults(partial).reason
    # The NumPy of this interpreter is a later one, with which the stub would answer wrong numbers.
    (partial / "numpy").symlink_to(Path(np.__file__).parent)
    assert "needs numpy<2" in faults(partial).reason


def test_a_stale_holder_starts_and_stops_nothing(home: Path, tiny: TinyModel) -> None:
    release = spec(tiny, home)
    server, stale = triton(home), triton(home)
    endpoint = server.start(release, 7)
    with pytest.raises(LostLease, match="later holder") as caught:
        stale.stop(release.name, 6)
    assert caught.value.seen == 7
    with pytest.raises(LostLease):
        stale.start(release, 6)
    assert server.find(release.name) == endpoint
    # The same goes for what was stopped: who comes late does not bring it back.
    server.stop(release.name, 8)
    with pytest.raises(LostLease):
        triton(home).start(release, 7)
    assert traces(home) == []


def test_a_holder_that_waits_for_its_turn_behind_a_later_one_is_refused(home: Path, tiny: TinyModel) -> None:
    """What counts is who came, not who called first: the comparison is made inside the lock."""
    release = spec(tiny, home)
    with ThreadPoolExecutor() as pool:
        starting = pool.submit(triton(home).start, release, 9)
        eventually(lambda: (home / "releases" / release.name / "fence").exists())
        with pytest.raises(LostLease):
            triton(home).stop(release.name, 8)
        starting.result(60)
    assert servers(home) == [pid_of(home, release.name)]


def test_damaged_tokens_are_said_to_be_ones(home: Path) -> None:
    folder = home / "releases" / "any"
    folder.mkdir(parents=True)
    (folder / "fence").write_text("seven")
    with pytest.raises(Fault, match="is damaged"):
        triton(home).stop("any", 1)
