"""Runs an ASGI application on a loopback port for the length of a block."""

import contextlib
import threading
import time
from collections.abc import Iterator
from typing import Any

import uvicorn

from tests.services import LOOPBACK, free_port


@contextlib.contextmanager
def served(app: Any) -> Iterator[str]:
    """Yields the base URL of the running application."""
    config = uvicorn.Config(app, host=LOOPBACK, port=free_port(), log_level="error", lifespan="off", ws="none")
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
