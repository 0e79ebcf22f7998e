"""gRPC through the router. Two small HAProxy fronts play the releases and a third turns HTTP/1.1 into the HTTP/2 of a
gRPC client, so that the test needs no gRPC library: a unary call is one POST with a framed protobuf message."""

import http.client
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.ports import Route
from tests.haproxy_support import ENVIRONMENT, MODEL, Answer, Rig, ask, eventually, free_ports

LONG = "m" * 200
# The players read a whole message before they answer, as Triton does.
PLAYERS = """
global
  tune.bufsize 2097152
defaults
  mode http
  option http-buffer-request
  timeout connect 1s
  timeout client 60s
  timeout server 60s
frontend one
  bind 127.0.0.1:{one} proto h2
  http-request return status 200 hdr who 1 content-type application/grpc string x
frontend two
  bind 127.0.0.1:{two} proto h2
  http-request return status 200 hdr grpc-status 13 hdr who 2 if {{ req.hdr(fail) -m found }}
  http-request return status 200 hdr who 2 content-type application/grpc string x
frontend client
  bind 127.0.0.1:{client}
  default_backend router
backend router
  server router 127.0.0.1:{router} proto h2
"""


class GrpcRig(Rig):
    """A rig whose releases also have a gRPC port."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.ports = dict(zip(("one", "two", "client"), free_ports(3), strict=True))
        config = folder / "players.cfg"
        config.write_text(PLAYERS.format(**self.ports, router=self.layout.environments[ENVIRONMENT][1]))
        self.spawn(["haproxy", "-db", "-f", str(config)], self.ports["client"])
        stable = self.one.server(self.ports["one"])
        self.start(*(Route(name, ENVIRONMENT, stable) for name in (MODEL, LONG)))

    def share(self, weight: int) -> None:
        servers = self.one.server(self.ports["one"]), self.two.server(self.ports["two"])
        self.apply(Route(MODEL, ENVIRONMENT, *servers, weight))

    def grpc(self, model: str = MODEL, method: str = "ModelInfer", size: int = 100, **headers: str) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.ports["client"])
        framed = message(model, size)
        sent = {"Content-Type": "application/grpc", "TE": "trailers", "Content-Length": str(len(framed))}
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        try:
            connection.request("POST", f"/inference.GRPCInferenceService/{method}", framed, {**sent, **named})
            got = connection.getresponse()
            return Answer(got.status, {name.lower(): value for name, value in got.getheaders()}, got.read())
        finally:
            connection.close()


def varint(number: int) -> bytes:
    low = bytes([number & 127])
    return low if number < 128 else bytes([number & 127 | 128]) + varint(number >> 7)


def message(model: str, size: int) -> bytes:
    """A ModelInferRequest of that model with so many bytes of raw input, behind gRPC's five bytes."""
    body = b"\x0a" + varint(len(model)) + model.encode() + b"\x3a" + varint(size) + b"x" * size
    return b"\x00" + len(body).to_bytes(4, "big") + body


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[GrpcRig]:
    rig = GrpcRig(tmp_path)
    yield rig
    rig.stop()


@pytest.mark.parametrize("size", [0, 100, 70_000, 1_000_000])
def test_the_model_in_the_message_decides_whatever_its_size(rig: GrpcRig, size: int) -> None:
    for model in (MODEL, LONG):
        answer = rig.grpc(model, size=size)
        assert (answer.status, answer.headers["who"]) == (200, "1")
        assert answer.headers["x-headgate-release"] == "1@0123456789ab"


def test_what_cannot_be_answered_is_refused_in_grpc(rig: GrpcRig) -> None:
    for model in ("other", MODEL[:-1], MODEL + "x", LONG[:-1], ""):
        answer = rig.grpc(model)
        assert (answer.headers["grpc-status"], answer.headers["content-type"]) == ("5", "application/grpc"), model
    for method in ("RepositoryModelUnload", "ModelStreamInfer", "TraceSetting", "SystemSharedMemoryRegister"):
        assert rig.grpc(method=method).headers["grpc-status"] == "12", method
    assert rig.grpc(method="ModelReady").headers["who"] == "1"
    assert rig.grpc("", method="ServerReady").headers["who"] == "1"
    rig.one.ready = False
    eventually(lambda: not rig.up("stable"))
    assert rig.grpc("", method="ServerReady").headers["grpc-status"] == "14"
    assert rig.grpc().status == 503


def test_a_key_meets_the_same_release_over_both_protocols(rig: GrpcRig) -> None:
    rig.share(30)
    keys = [f"user-{number}" for number in range(100)]
    over_grpc = {key: rig.grpc(X_Headgate_Key=key).headers["who"] for key in keys}
    connection = http.client.HTTPConnection("127.0.0.1", rig.layout.environments[ENVIRONMENT][0])
    path = f"/v2/models/{MODEL}/infer"
    over_http = {key: ask(connection, path, "POST", {"X-Headgate-Key": key}).who for key in keys}
    connection.close()
    assert over_grpc == over_http
    assert set(over_http.values()) == {"1", "2"}


def test_grpc_statuses_count_as_failures(rig: GrpcRig) -> None:
    rig.share(100)
    start = time.time()
    answers = [rig.grpc(fail="yes") for _ in range(3)] + [rig.grpc() for _ in range(5)]
    assert [answer.headers.get("grpc-status") for answer in answers] == ["13"] * 3 + [None] * 5
    sample = rig.router.sample(MODEL, ENVIRONMENT, "canary", start)
    assert (sample.requests, sample.failed) == (8, 3)
    rig.lease.ready = False
    eventually(lambda: not rig.up("canary"))
    assert rig.grpc().headers["who"] == "1"


def test_the_end_of_a_rollout_moves_grpc_as_well(rig: GrpcRig) -> None:
    rig.share(100)
    rig.apply(Route(MODEL, ENVIRONMENT, rig.two.server(rig.ports["two"])))
    assert {rig.grpc().headers["who"] for _ in range(20)} == {"2"}
    assert rig.grpc(LONG).headers["who"] == "1"
