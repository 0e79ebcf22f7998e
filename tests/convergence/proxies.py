"""Two proxies: one between MLflow and the receiver of its webhooks, one between Headgate and MLflow's REST API."""

import contextlib
import http.server
import json
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx

from app.adapters.mlflow_webhook import _event
from app.domain.registry import Event
from tests.services import serving

Key = tuple[str, Event]
"""A model, and what a webhook says of it."""


@dataclass
class Post:
    """What becomes of webhooks on their way: `lost` and `doubled` are shares, `late` the greatest delay in seconds.
    MLflow is always told that its delivery came; the proxy itself goes on trying while the receiver is away."""

    receiver: str
    rng: random.Random
    lost: float = 0.0
    doubled: float = 0.0
    late: float = 0.0
    dropped: Counter[Key] = field(default_factory=Counter)
    arrived: Counter[Key] = field(default_factory=Counter)
    on_the_way: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self, path: str, headers: dict[str, str], body: bytes) -> None:
        """Decide about one delivery."""
        told = json.loads(body)
        said = _event(told["entity"], told["action"], told["data"])
        key = (told["data"].get("name", ""), said) if said is not None else None
        with self.lock:
            if self.rng.random() < self.lost:
                self.dropped.update([key] if key else [])
                return
            copies = 2 if self.rng.random() < self.doubled else 1
            delays = [self.rng.random() * self.late for _ in range(copies)]
            self.on_the_way += copies
        for number, delay in enumerate(delays):
            thread = threading.Thread(
                target=self._carry, args=(path, headers, body, key if not number else None, delay)
            )
            thread.start()

    def _carry(self, path: str, headers: dict[str, str], body: bytes, key: Key | None, delay: float) -> None:
        time.sleep(delay)
        for _ in range(600):
            with contextlib.suppress(httpx.HTTPError):
                if httpx.post(f"{self.receiver}{path}", content=body, headers=headers, timeout=10).status_code == 202:
                    break
            time.sleep(0.1)
        with self.lock:
            self.on_the_way -= 1
            self.arrived.update([key] if key else [])


@contextlib.contextmanager
def post_office(post: Post) -> Iterator[str]:
    """Serve it; yields the base URL that MLflow is given."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            wanted = ("content-type", "x-mlflow-delivery-id", "x-mlflow-timestamp", "x-mlflow-signature")
            post.take(self.path, {name: self.headers[name] for name in wanted if self.headers[name]}, body)
            _answer(self, 202, b"{}")

        def log_message(self, format: str, *args: object) -> None:
            """Keep the tests' output quiet."""

    with serving(Handler) as url:
        yield url


@dataclass
class Wire:
    """The way to MLflow: a share of the answers is `cut` off in the middle; `meddle` is called with the method, path
    and body of each request before it goes on, and may do to MLflow what a person does just then."""

    mlflow: str
    rng: random.Random
    cut: float = 0.0
    meddle: Callable[[str, str, dict[str, Any]], None] = lambda method, path, body: None
    lock: threading.Lock = field(default_factory=threading.Lock)

    def cuts(self) -> bool:
        with self.lock:
            return self.rng.random() < self.cut


@contextlib.contextmanager
def wire_to(wire: Wire) -> Iterator[str]:
    """Serve it; yields the base URL that Headgate takes for MLflow's."""
    client = httpx.Client(base_url=wire.mlflow, timeout=60, trust_env=False)

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def forward(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            wire.meddle(self.command, self.path.partition("?")[0], json.loads(body) if body.startswith(b"{") else {})
            headers = {"Content-Type": self.headers.get("Content-Type") or "application/json"}
            try:
                found = client.request(self.command, self.path, content=body or None, headers=headers)
            except httpx.HTTPError:
                self.close_connection = True
                return
            _answer(self, found.status_code, found.content, cut=wire.cuts())

        do_GET = do_POST = do_DELETE = do_PATCH = forward  # noqa: N815 -- the names of the standard library

        def log_message(self, format: str, *args: object) -> None:
            """Keep the tests' output quiet."""

    with client, serving(Handler) as url:
        yield url


def _answer(handler: http.server.BaseHTTPRequestHandler, status: int, body: bytes, cut: bool = False) -> None:
    handler.send_response(status)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body[: len(body) // 2] if cut else body)
    handler.close_connection = handler.close_connection or cut
