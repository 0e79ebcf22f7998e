"""Runs an ASGI application on a loopback port for the length of a block, and the command line against it."""

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import uvicorn

from tests.services import LOOPBACK, free_port


@contextlib.contextmanager
def served(app: Any) -> Iterator[str]:
    """Yields the base URL of the running application."""
    # As `headgate up` starts it: whose word on the caller's address is taken, the application says.
    quiet: dict[str, Any] = {"log_level": "error", "lifespan": "off", "ws": "none", "proxy_headers": False}
    config = uvicorn.Config(app, host=LOOPBACK, port=free_port(), **quiet)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 30
    while not server.started and thread.is_alive() and time.monotonic() < deadline:
        time.sleep(0.01)
    try:
        yield f"http://{LOOPBACK}:{config.port}"
    finally:
        server.should_exit = True
        thread.join(10)


def headgate(client: httpx.Client, *words: str) -> subprocess.CompletedProcess[str]:
    """Run the command line against the API that the client calls, with its token."""
    token = client.headers["Authorization"].removeprefix("Bearer ")
    settings = {"HEADGATE_API": str(client.base_url), "HEADGATE_TOKEN": token, "COLUMNS": "200"}
    command = [sys.executable, "-c", "from app.cli import main; main()", *words]
    return subprocess.run(command, env={**os.environ, **settings}, capture_output=True, text=True, check=False)
