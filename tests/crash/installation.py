"""One whole installation to kill: real MLflow, database, broker, HAProxy and Triton, and Headgate's own processes."""

import contextlib
import json
import os
import select
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import docker
import httpx

from app import wiring
from app.adapters.haproxy.admin import Admin
from app.db.session import Database
from app.domain.errors import Transient
from app.settings import Settings
from ci.bench.processes import answers, free_ports, running
from tests.services import LOOPBACK, mlflow_server

WORKERS, THREADS = 8, 2
ENVIRONMENT = "staging"
_PATIENCE = 60.0


@dataclass
class Death:
    """One process that ended: its name, pid, exit status, and the unix time at which that was seen."""

    name: str
    pid: int
    status: int
    at: float


@dataclass
class Installation:
    """Addresses and hands: `start` and `deaths` are for processes, `arm` and `struck` for failpoints."""

    folder: Path
    settings: Settings
    mlflow: str
    nursery: subprocess.Popen[str]
    pids: dict[str, int] = field(default_factory=dict)
    _said: str = ""

    def __post_init__(self) -> None:
        self.database = Database(self.settings.database)
        self.router = wiring.router(self.settings)

    @property
    def failpoints(self) -> Path:
        return self.folder / "failpoints"

    def start(self, *names: str) -> None:
        """Have processes born; they are there at once, and ready when they say so themselves."""
        assert self.nursery.stdin is not None
        self.nursery.stdin.write("".join(f"{name}\n" for name in names))
        self.nursery.stdin.flush()

    def deaths(self) -> list[Death]:
        """Processes that have ended since the last call."""
        found = []
        for line in self._lines():
            name, what, number = line.split()
            if what == "started":
                self.pids[name] = int(number)
            else:
                found.append(Death(name, self.pids.pop(name), int(number), time.time()))
        return found

    def servers(self) -> Counter[str]:
        """How many servers run under each release name, from the process table or from Docker itself."""
        if self.settings.target == "process":
            return _processes(self.settings.home.resolve())
        with contextlib.closing(docker.DockerClient(base_url=self.settings.docker_host)) as engine:
            found = engine.containers.list(filters={"label": "headgate.release"}, ignore_removed=True)
            return Counter(container.labels["headgate.release"] for container in found)

    def arm(self, point: str) -> None:
        """Have the next process that reaches `<process>:<point>` end there."""
        draft = self.failpoints / "draft"
        draft.write_text("kill")
        draft.rename(self.failpoints / "armed" / point)  # whole or not at all: somebody may be just there

    def disarm(self, point: str) -> None:
        (self.failpoints / "armed" / point).unlink(missing_ok=True)

    def struck(self) -> dict[str, float]:
        """Points that have ended a process since the last call, with the unix time of it."""
        found = {}
        for file in (self.failpoints / "hit").iterdir():
            with contextlib.suppress(FileNotFoundError):
                found[file.name] = file.stat().st_mtime
                file.unlink()
        return found

    def reached(self) -> set[str]:
        """Every `<process>:<point>` that was ever passed."""
        return {file.name for file in (self.failpoints / "reached").iterdir()}

    def note_lost_request(self, what: str) -> None:
        """Keep, beside the logs, what a client of the router lost and how the router's servers were just then."""
        sockets = (self.folder / "router" / name for name in ("master.sock", "admin.sock"))
        try:
            said = Admin(*sockets).ask("show stat")
        except Transient as error:
            said = str(error)
        with (self.folder / "logs" / "lost-requests.log").open("a") as log:
            log.write(f"{what}\n{said}\n")

    def _lines(self) -> list[str]:
        assert self.nursery.stdout is not None
        while select.select([self.nursery.stdout], [], [], 0)[0]:
            said = os.read(self.nursery.stdout.fileno(), 65536).decode()
            if not said:
                raise RuntimeError(f"the nursery ended: see {self.folder / 'logs'}")
            self._said += said
        *lines, self._said = self._said.split("\n")
        return [line for line in lines if line != "ready"]


@contextlib.contextmanager
def installation(folder: Path, backing: Mapping[str, str], policies: Mapping[str, str]) -> Iterator[Installation]:
    """Everything up and answering until the block ends. `backing` are the HEADGATE_* variables of what is up already:
    database, broker, Docker; `policies` holds the text of each model's policy file."""
    for name in ("failpoints/armed", "failpoints/hit", "failpoints/reached", "policies", "logs", "mlflow"):
        (folder / name).mkdir(parents=True)
    for model, text in policies.items():
        (folder / "policies" / f"{model}.yaml").write_text(text)
    variables = {**_variables(folder), **backing}
    with contextlib.ExitStack() as stack:
        settings = _settings(variables)
        stack.enter_context(mlflow_server(folder / "mlflow", int(settings.mlflow_uri.rpartition(":")[2])))
        router = wiring.router(settings)
        router.write_config([])
        ready = answers(f"{router.address(ENVIRONMENT)}/v2/health/ready")
        stack.enter_context(running(router.command(), folder / "logs" / "router.log", ready))
        stack.callback(_stop_releases, settings)
        nursery = stack.enter_context(_nursery(folder, variables))
        found = Installation(folder, settings, settings.mlflow_uri, nursery)
        stack.callback(found.database.close)
        found.start("api", "clock", *(f"worker-{number}" for number in range(WORKERS)))
        _wait_for_api(settings.public_url)
        yield found


def _variables(folder: Path) -> dict[str, str]:
    (port, mlflow_port, http, grpc) = free_ports(4)
    return {
        "HEADGATE_HOME": str(folder / "home"),
        "HEADGATE_MLFLOW_URI": f"http://{LOOPBACK}:{mlflow_port}",
        "HEADGATE_PUBLIC_URL": f"http://{LOOPBACK}:{port}",
        "HEADGATE_ROUTER_LEASE": f"{LOOPBACK}:{port}",
        "HEADGATE_ROUTER_DIR": str(folder / "router"),
        "HEADGATE_ROUTER_PORTS": json.dumps({ENVIRONMENT: [http, grpc]}),
        "HEADGATE_POLICY_DIR": str(folder / "policies"),
        "HEADGATE_POLL_SECONDS": "3",
        "HEADGATE_FAILPOINTS": str(folder / "failpoints"),
        "CRASH_LOGS": str(folder / "logs"),
        "CRASH_THREADS": str(THREADS),
    }


def _settings(variables: Mapping[str, str]) -> Settings:
    """The settings as the processes read them; this process's own environment stays as it is."""
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        settings = Settings()
    finally:
        os.environ.clear()
        os.environ.update(before)
    wiring.prepare_home(settings)
    return settings


@contextlib.contextmanager
def _nursery(folder: Path, variables: Mapping[str, str]) -> Iterator[subprocess.Popen[str]]:
    with (folder / "logs" / "nursery.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.crash.nursery"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env={**os.environ, **variables},
            text=True,
        )
    try:
        yield process
    finally:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.close()  # it then ends its children and itself
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


def _wait_for_api(url: str) -> None:
    ready, end = answers(f"{url}/readyz"), time.monotonic() + _PATIENCE
    while not ready():
        if time.monotonic() > end:
            raise RuntimeError("the API did not come up")
        time.sleep(0.1)


def _stop_releases(settings: Settings) -> None:
    server = wiring.server(settings)
    for name in server.names():
        server.stop(name, None)


def _processes(home: Path) -> Counter[str]:
    """Release names by the process table. A child of a server that has not become its Python stub yet looks like a
    second server for a moment, and is none."""
    found: dict[str, tuple[str, str]] = {}
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                if (process / "comm").read_text() != "tritonserver\n":
                    continue
                line = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
                parent = (process / "stat").read_text().rpartition(") ")[2].split()[1]
            except OSError:
                continue  # it has ended while we looked
            if any(str(home) in part for part in line):
                name = next(part.rpartition("/")[2] for part in line if part.startswith("--id="))
                found[process.name] = (name, parent)
    return Counter(name for name, parent in found.values() if found.get(parent, ("", ""))[0] != name)


def answer(client: httpx.Client, method: str, path: str, **content: object) -> httpx.Response | None:
    """One call to a process that may just have been killed: None where it is away."""
    try:
        return client.request(method, path, **content)  # type: ignore[arg-type]  # handed on as they are
    except httpx.TransportError:
        return None
