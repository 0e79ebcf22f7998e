"""V2Client against a small server that misbehaves in the ways that servers and routers do."""

import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from app.adapters.v2_client import V2Client
from app.domain.errors import Fault, Transient
from app.ports import Endpoint


class Answers(ThreadingHTTPServer):
    """Gives one answer to everything and remembers what it was asked."""

    status, body, stuck = 200, b"{}", False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[tuple[str, bytes]] = []
        self.released = threading.Event()

    @property
    def endpoint(self) -> Endpoint:
        return Endpoint("127.0.0.1", self.server_port, 0)


class Handler(BaseHTTPRequestHandler):
    server: Answers

    def answer(self) -> None:
        sent = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.asked.append((self.path, sent))
        if self.server.stuck:
            self.server.released.wait(30)
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(len(self.server.body)))
        self.end_headers()
        self.wfile.write(self.server.body)

    do_GET = do_POST = answer  # noqa: N815  # http.server's own names

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: the tests say what went wrong."""


@contextmanager
def answering(status: int, body: bytes, stuck: bool = False) -> Iterator[Answers]:
    with Answers() as server:
        server.status, server.body, server.stuck = status, body, stuck
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.released.set()
            server.shutdown()
            thread.join()


@pytest.fixture
def client() -> Iterator[V2Client]:
    with closing(V2Client(timeout=timedelta(seconds=5), max_bytes=5000)) as client:
        yield client


def test_an_answer_is_passed_on_and_missing_values_are_sent(client: V2Client) -> None:
    with answering(200, b'{"outputs": [{"data": [NaN, 0.1]}]}') as server:
        answer = client.infer(server.endpoint, "a/b c", {"inputs": [{"data": [float("nan"), "ä"]}]})
        assert server.asked == [("/v2/models/a%2Fb%20c/infer", b'{"inputs": [{"data": [NaN, "\\u00e4"]}]}')]
        assert answer["outputs"][0]["data"][1] == 0.1
        client.config(server.endpoint, "m")
        assert server.asked[1] == ("/v2/models/m/config", b"")


@pytest.mark.parametrize("status", [400, 404, 500])
def test_a_refusal_carries_the_servers_words(client: V2Client, status: int) -> None:
    with answering(status, b'{"error": "unexpected shape"}') as server, pytest.raises(Fault) as caught:
        client.infer(server.endpoint, "m", {})
    assert f"answers {status}: unexpected shape" in caught.value.reason
    assert caught.value.remedy


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_a_router_without_a_server_is_tried_again_later(client: V2Client, status: int) -> None:
    with answering(status, b"<h1>No server is available</h1>") as server, pytest.raises(Transient, match="No server"):
        client.config(server.endpoint, "m")


def test_a_long_refusal_is_cut(client: V2Client) -> None:
    with answering(500, b"x" * 4000) as server, pytest.raises(Fault) as caught:
        client.config(server.endpoint, "m")
    assert 2000 <= caught.value.reason.count("x") < 2100


@pytest.mark.parametrize("body", [b"<html>", b"[1]", b"", b"\xff"])
def test_what_is_no_json_object_is_a_fault(client: V2Client, body: bytes) -> None:
    with answering(200, body) as server, pytest.raises(Fault, match="no JSON"):
        client.config(server.endpoint, "m")


def test_an_answer_without_end_is_not_read_to_its_end(client: V2Client) -> None:
    with (
        answering(200, b'{"a": "' + b"x" * 10_000 + b'"}') as server,
        pytest.raises(Fault, match="more than 5000 bytes"),
    ):
        client.config(server.endpoint, "m")


def test_a_server_that_is_away_or_stuck_is_tried_again_later(client: V2Client) -> None:
    with answering(200, b"{}") as server:
        gone = server.endpoint
    with pytest.raises(Transient, match="did not answer"):
        client.config(gone, "m")
    with (
        answering(200, b"{}", stuck=True) as server,
        closing(V2Client(timeout=timedelta(seconds=0.2))) as impatient,
        pytest.raises(Transient, match="timed out"),
    ):
        impatient.infer(server.endpoint, "m", {})
