"""MLflow, the receiver and a worker as processes that can be killed, with the proxies between them."""

import contextlib
import os
import random
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

from app.adapters.mlflow_registry import MlflowRegistry
from app.db.session import Database
from ci.bench.models import ROOT
from ci.bench.processes import answers, free_ports, running
from tests.convergence.proxies import Post, Wire, post_office, wire_to
from tests.services import LOOPBACK, mlflow_server

_OURS = "HEADGATE_"


class Mortal:
    """A program that runs until it is killed -9, and starts again on the same port."""

    def __init__(self, name: str, start: Callable[[], AbstractContextManager[object]]) -> None:
        self.name, self._start, self._held = name, start, contextlib.ExitStack()
        self._pids: set[int] = set()

    def start(self) -> None:
        before = {child.pid for child in psutil.Process().children()}
        self._held.enter_context(self._start())
        self._pids = {child.pid for child in psutil.Process().children()} - before

    def kill(self) -> None:
        for pid in self._pids:
            psutil.Process(pid).kill()
        self.stop()

    def stop(self) -> None:
        self._held.close()


@dataclass
class Rig:
    """Everything of one run. `source` is what a new version in MLflow is made from."""

    mlflow_uri: str
    source: Mapping[str, str]
    api: str
    token: str
    database: Database
    post: Post
    wire: Wire
    mlflow: Mortal
    receiver: Mortal
    worker: Mortal

    def truth(self) -> MlflowRegistry:
        """MLflow itself, without any proxy."""
        return MlflowRegistry(self.mlflow_uri)

    def changes(self) -> dict[str, object]:
        """The newest page of the ledger, as a user gets it."""
        headers = {"Authorization": f"Bearer {self.token}"}
        answer = httpx.get(f"{self.api}/api/v1/changes", headers=headers, timeout=30).raise_for_status()
        found: dict[str, object] = answer.json()
        return found


@contextlib.contextmanager
def rig(folder: Path, database_url: str, seed: int) -> Iterator[Rig]:
    """All of it up until the block ends."""
    mlflow_port, api_port = free_ports(2)
    mlflow_uri, api = f"http://{LOOPBACK}:{mlflow_port}", f"http://{LOOPBACK}:{api_port}"
    (folder / "mlflow").mkdir()
    post, wire = Post(api, random.Random(f"post {seed}")), Wire(mlflow_uri, random.Random(f"wire {seed}"))
    with contextlib.ExitStack() as stack:
        mlflow = _mortal(stack, "mlflow", lambda: mlflow_server(folder / "mlflow", mlflow_port))
        webhook, through = stack.enter_context(post_office(post)), stack.enter_context(wire_to(wire))
        own = {
            "HEADGATE_HOME": str(folder / "home"),
            "HEADGATE_DATABASE_URL": database_url,
            "HEADGATE_MLFLOW_URI": through,
            "HEADGATE_PUBLIC_URL": api,
            "HEADGATE_WEBHOOK_URL": webhook,
            "HEADGATE_POLL_SECONDS": "0.5",
            "HEADGATE_MLFLOW_WEBHOOK_SECRETS": "a-secret-of-tests",
        }
        receiver = _mortal(stack, "receiver", lambda: _receiver(api, folder, own))
        worker = _mortal(stack, "worker", lambda: _worker(folder, own))
        database = Database(database_url)
        stack.callback(database.close)
        token = (folder / "home" / "admin.token").read_text().strip()
        source = _source(mlflow_uri, folder / "mlflow" / "artifacts")
        yield Rig(mlflow_uri, source, api, token, database, post, wire, mlflow, receiver, worker)


def _source(mlflow_uri: str, artifacts: Path) -> dict[str, str]:
    """A run with a model of one file: MLflow takes versions of what a run has left."""
    made = httpx.post(f"{mlflow_uri}/api/2.0/mlflow/runs/create", json={"experiment_id": "0"}, timeout=60)
    info = made.raise_for_status().json()["run"]["info"]
    folder = artifacts / info["artifact_uri"].removeprefix("mlflow-artifacts:/") / "model"
    folder.mkdir(parents=True)
    (folder / "MLmodel").write_text("flavors: {}")
    return {"source": f"{info['artifact_uri']}/model", "run_id": info["run_id"]}


def _mortal(stack: contextlib.ExitStack, name: str, start: Callable[[], AbstractContextManager[object]]) -> Mortal:
    found = Mortal(name, start)
    stack.callback(found.stop)
    found.start()
    return found


def _environment(own: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(_OURS)} | own


def _receiver(api: str, folder: Path, own: dict[str, str]) -> AbstractContextManager[None]:
    command = [sys.executable, "-m", "uvicorn", "app.main:app", "--host", LOOPBACK, "--port", api.rpartition(":")[2]]
    log = folder / "receiver.log"
    return running([*command, "--no-access-log"], log, answers(f"{api}/readyz"), _environment(own), cwd=ROOT)


def _worker(folder: Path, own: dict[str, str]) -> AbstractContextManager[None]:
    command = [sys.executable, "-m", "tests.convergence.worker", f"worker-{os.urandom(3).hex()}"]
    return running(command, folder / "worker.log", lambda: True, _environment(own), cwd=ROOT)
