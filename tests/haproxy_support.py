"""Parts for tests of the router: small V2 upstreams, a lease endpoint, a real HAProxy, clients that keep calling.

Run as a program (`python -m tests.haproxy_support NAME PORT DELAY`) it is one upstream, to be killed for real.
"""

import http.client
import json
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from app.adapters.haproxy import HAProxyRouter, Layout
from app.adapters.haproxy.admin import Admin
from app.domain.errors import Transient
from app.ports import Endpoint, Route, Server

MODEL = "airbnb-price"
ENVIRONMENT = "production"
TOKEN = "a-token-of-the-tests"
INFER = f"/v2/models/{MODEL}/infer"


def free_ports(count: int) -> list[int]:
    """Ports that nobody listened on a moment ago."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports: list[int] = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def report(figure: str) -> None:
    """Say what was measured; seen with `pytest -s`, never asserted."""
    sys.stdout.write(f"\n    {figure}\n")


def listens(port: int) -> bool:
    """Whether somebody accepts connections there."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def eventually(holds: Callable[[], bool], seconds: float = 15.0) -> float:
    """Wait until it holds and return how many seconds that took; the limit only ends a test that fails anyway."""
    start = time.monotonic()
    while not holds():
        assert time.monotonic() - start < seconds, "it never came true"
        time.sleep(0.02)
    return time.monotonic() - start


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Two small writes and a delayed acknowledgement would cost 40 ms each time.
    disable_nagle_algorithm = True
    server: "_Listener"

    def do_GET(self) -> None:
        self._reply(200 if self.server.owner.ready else 503, b"{}")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        owner = self.server.owner
        time.sleep(owner.delay)
        told = {"who": owner.name, "path": self.path, "headers": dict(self.headers), "length": len(body)}
        self._reply(owner.status, json.dumps(told).encode())

    def _reply(self, status: int, body: bytes) -> None:
        self.send_response(status)
        for name, value in (("Content-Length", str(len(body))), ("Via", "1.1 inside"), ("X-Headgate-Release", "fake")):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Tests read the router's log, not this one."""


class _Listener(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 256

    def __init__(self, owner: "Upstream", port: int) -> None:
        self.owner = owner
        self.open: set[socket.socket] = set()
        super().__init__(("127.0.0.1", port), _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        self.open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self.open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, *_: Any) -> None:
        """A connection that broke off is what some of the tests are about."""


class Upstream:
    """A release, or with `ready` alone the lease endpoint. What it answers can be changed while it runs."""

    def __init__(self, name: str, port: int | None = None) -> None:
        self.name, self.ready, self.status, self.delay = name, True, 200, 0.0
        self.port = port or free_ports(1)[0]
        self._listener = _Listener(self, self.port)
        self._thread = threading.Thread(target=self._listener.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def server(self, grpc_port: int = 9) -> Server:
        return Server(f"{self.name}@0123456789ab", Endpoint("127.0.0.1", self.port, grpc_port))

    def stop(self) -> None:
        """Stop listening and break off all connections; a second call does nothing."""
        if not self._thread.is_alive():
            return
        self._listener.shutdown()
        self._listener.server_close()
        for connection in list(self._listener.open):
            self._listener.shutdown_request(connection)
        self._thread.join()


class Rig:
    """A router on free ports of its own, with a lease endpoint and two releases, `1` and `2`."""

    def __init__(self, folder: Path, environments: tuple[str, ...] = (ENVIRONMENT,), **options: Any) -> None:
        ports = iter(free_ports(2 * len(environments)))
        self.lease, self.one, self.two = Upstream("lease"), Upstream("1"), Upstream("2")
        addresses = {name: (next(ports), next(ports)) for name in environments}
        lease = ("127.0.0.1", self.lease.port)
        self.layout = Layout(folder / "r", addresses, "127.0.0.1", lease, TOKEN, **options)
        self.router = HAProxyRouter(self.layout)
        self.admin = Admin(self.layout.master_socket, self.layout.admin_socket)
        self.routes: dict[tuple[str, str], Route] = {}
        self.fence = 1
        self._log = (folder / "haproxy.log").open("ab")
        self._process: subprocess.Popen[bytes] | None = None
        self._others: list[subprocess.Popen[bytes]] = []

    def start(self, *routes: Route) -> None:
        self.routes = {(route.model, route.environment): route for route in routes}
        self.router.write_config(list(routes))
        self.run()

    def run(self) -> None:
        """Run HAProxy with the files that are there."""
        self._process = subprocess.Popen(self.router.command(), stdout=self._log, stderr=self._log)
        eventually(self._answers)

    def _answers(self) -> bool:
        try:
            return bool(self.admin.structure())
        except Transient:
            return False

    def halt(self) -> None:
        """End HAProxy at once."""
        if self._process:
            self._process.terminate()
            self._process.wait()
            self._process = None

    def spawn(self, command: list[str], port: int) -> subprocess.Popen[bytes]:
        """Another process for as long as the rig, once it listens on that port."""
        process = subprocess.Popen(command, stdout=self._log, stderr=self._log)
        self._others.append(process)
        eventually(lambda: listens(port))
        return process

    def spawn_upstream(self, name: str, port: int, delay: float = 0.0) -> subprocess.Popen[bytes]:
        """An upstream in a process of its own."""
        return self.spawn([sys.executable, "-m", "tests.haproxy_support", name, str(port), str(delay)], port)

    def stop(self) -> None:
        self.halt()
        for process in self._others:
            process.kill()
            process.wait()
        self._log.close()
        for upstream in (self.lease, self.one, self.two):
            upstream.stop()

    def apply(self, route: Route) -> None:
        self.routes[route.model, route.environment] = route
        self.router.apply(list(self.routes.values()), route, self.fence)

    def split(self, weight: int, model: str = MODEL) -> None:
        """Release 1 is stable, release 2 gets `weight` percent."""
        self.apply(Route(model, ENVIRONMENT, self.one.server(), self.two.server(), weight))

    def up(self, role: str) -> bool:
        return self.router.status(MODEL, ENVIRONMENT).up.get(role, False)

    def call(self, path: str = INFER, method: str = "POST", environment: str = ENVIRONMENT, **headers: str) -> "Answer":
        connection = http.client.HTTPConnection("127.0.0.1", self.layout.environments[environment][0])
        try:
            return ask(connection, path, method, {name.replace("_", "-"): value for name, value in headers.items()})
        finally:
            connection.close()

    def who(self, **headers: str) -> str:
        return self.call(**headers).who


@dataclass
class Answer:
    """What a client got."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def who(self) -> str:
        return str(self.json["who"])


def ask(connection: http.client.HTTPConnection, path: str, method: str, headers: Mapping[str, str]) -> Answer:
    connection.request(method, path, b"{}" if method == "POST" else None, dict(headers))
    got = connection.getresponse()
    return Answer(got.status, {name.lower(): value for name, value in got.getheaders()}, got.read())


@dataclass
class Load:
    """Clients that keep their connections and call as fast as they are answered, between `with` and its end."""

    port: int
    clients: int = 4
    path: str = INFER
    statuses: Counter[int] = field(default_factory=Counter)
    who: Counter[str] = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)
    slowest: float = 0.0

    def __enter__(self) -> "Load":
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(self.clients)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    @property
    def answered(self) -> int:
        return sum(self.statuses.values())

    def more(self, count: int = 300) -> None:
        """Wait for that many further answers."""
        target = self.answered + count
        eventually(lambda: self.answered >= target)

    def _run(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port)
        while not self._over.is_set():
            start = time.monotonic()
            try:
                answer = ask(connection, self.path, "POST", {})
            except (OSError, http.client.HTTPException) as error:
                self.broken.append(repr(error))
                connection.close()
                continue
            self.statuses[answer.status] += 1
            self.slowest = max(self.slowest, time.monotonic() - start)
            if answer.status == 200:
                self.who[answer.who] += 1
        connection.close()


if __name__ == "__main__":
    Upstream(sys.argv[1], int(sys.argv[2])).delay = float(sys.argv[3])
    threading.Event().wait()
