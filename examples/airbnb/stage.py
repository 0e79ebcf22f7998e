"""What the demo plays on: a fresh installation in its own folder, and hands for a data scientist and a reviewer."""

import base64
import hashlib
import hmac
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import httpx
from mlflow import MlflowClient

READY_SECONDS = 120.0
STEP_SECONDS = 180.0


class Stage:
    """A running `headgate up` on free ports below `home`; use it as a context manager. `settings` are HEADGATE_*
    variables on top of its own."""

    def __init__(self, home: Path, policies: Path, settings: Mapping[str, str] | None = None) -> None:
        self.home = home
        ports = _free_ports(6)
        api = f"http://127.0.0.1:{ports[0]}"
        own = {name: value for name, value in os.environ.items() if not name.startswith("HEADGATE_")}
        self.environment = own | {
            "HEADGATE_HOME": str(home),
            "HEADGATE_PUBLIC_URL": api,
            "HEADGATE_ROUTER_LEASE": f"127.0.0.1:{ports[0]}",
            "HEADGATE_MLFLOW_PORT": str(ports[1]),
            "HEADGATE_ROUTER_PORTS": json.dumps({"staging": ports[2:4], "production": ports[4:6]}),
            "HEADGATE_POLICY_DIR": str(policies),
            **(settings or {}),
        }
        self._process: subprocess.Popen[bytes] | None = None
        self._people: list[Person] = []

    def __enter__(self) -> "Stage":
        self.home.mkdir(parents=True, exist_ok=True)
        with (self.home / "up.log").open("ab") as log:
            command = [sys.executable, "-m", "app.up"]
            self._process = subprocess.Popen(command, env=self.environment, stdout=log, stderr=log)
        self._wait_until_up()
        self.found: dict[str, Any] = json.loads((self.home / "up.json").read_text())
        self.mlflow_uri: str = self.found["mlflow"]
        self.router: str = self.found["router"]["production"]
        self.mlflow = MlflowClient(self.mlflow_uri)
        self.admin = self._known((self.home / "admin.token").read_text().strip())
        return self

    def __exit__(self, *_: object) -> None:
        for person in self._people:
            person.http.close()
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(60)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def person(self, name: str, role: str) -> "Person":
        """A principal with a token of its own."""
        return self._known(self.admin.post("/api/v1/tokens", {"name": name, "role": role})["token"])

    def _known(self, token: str) -> "Person":
        self._people.append(Person(self.found["api"], token))
        return self._people[-1]

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """The `headgate` command, as a person would call it in this installation."""
        command = [sys.executable, "-c", "from app.cli import main; main()", *arguments]
        return subprocess.run(command, env=self.environment, capture_output=True, text=True, check=False)

    def pid(self, program: str) -> int:
        """The process id of one of the programs as it runs now."""
        return int(json.loads((self.home / "up.json").read_text())["pids"][program])

    def kill(self, program: str) -> int:
        """kill -9 for one of the programs; returns the process id that it had."""
        pid = self.pid(program)
        os.kill(pid, signal.SIGKILL)
        return pid

    def tags(self, model: str, version: str) -> dict[str, str]:
        """What a data scientist sees on the version in MLflow."""
        return dict(self.mlflow.get_model_version(model, version).tags)

    def aliases(self, model: str) -> dict[str, str]:
        """The aliases as MLflow shows them."""
        return {alias: str(version) for alias, version in self.mlflow.get_registered_model(model).aliases.items()}

    def _wait_until_up(self) -> None:
        def up() -> bool:
            if self._process is not None and self._process.poll() is not None:
                raise RuntimeError(f"headgate up ended:\n{(self.home / 'up.log').read_text()[-3000:]}")
            return (self.home / "up.json").exists() and (self.home / "admin.token").exists()

        wait(up, READY_SECONDS, "headgate up")


class Person:
    """Somebody with a bearer token."""

    def __init__(self, api: str, token: str) -> None:
        self.http = httpx.Client(
            base_url=api, headers={"Authorization": f"Bearer {token}"}, timeout=30, trust_env=False
        )

    def get(self, path: str, **query: Any) -> Any:
        answer = self.http.get(path, params=query)
        answer.raise_for_status()
        return answer.json()

    def post(self, path: str, body: dict[str, Any]) -> Any:
        answer = self.http.post(path, json=body)
        answer.raise_for_status()
        return answer.json()


def wait(condition: Callable[[], Any], seconds: float, what: str) -> Any:
    """Wait until `condition` answers something true and return that. Raises TimeoutError."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.1)
    raise TimeoutError(f"{what} did not come within {seconds:g} s")


def fresh(folder: Path) -> Path:
    """An empty folder in place of whatever was there."""
    if folder.exists():
        # The artifact store is read-only on purpose; its folders must be opened before they can be emptied.
        for path in [folder, *folder.rglob("*")]:
            if path.is_dir() and not path.is_symlink():
                path.chmod(0o700)
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    return folder


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [int(one.getsockname()[1]) for one in sockets]
    for one in sockets:
        one.close()
    return ports


def signed(secret: str, body: bytes) -> dict[str, str]:
    """The headers that MLflow's sender would write for a new delivery of `body`."""
    delivery, stamp = str(uuid.uuid4()), str(int(time.time()))
    mac = hmac.new(secret.encode(), f"{delivery}.{stamp}.".encode() + body, hashlib.sha256).digest()
    return {
        "X-MLflow-Delivery-Id": delivery,
        "X-MLflow-Timestamp": stamp,
        "X-MLflow-Signature": "v1," + base64.b64encode(mac).decode(),
    }
