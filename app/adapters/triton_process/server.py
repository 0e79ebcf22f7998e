"""TritonProcess: one tritonserver for each release, which lives on when the worker that started it dies."""

import contextlib
import fcntl
import hashlib
import http.client
import json
import math
import re
import secrets
import socket
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from app import failpoints
from app.adapters.triton_process import processes, runtime
from app.domain.errors import Fault, Transient
from app.domain.fencing import refuse_stale
from app.ports import Endpoint, ReleaseSpec

Ports = tuple[int, int, int]

_PROGRAM = "tritonserver"
_POLL = 0.05
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 -- where the kernel shows it
_ATTEMPTS = 5
# Seconds that Triton may take for its own end, over and above the drain, before it is killed.
_GRACE = 5
_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._@-]*")
# Calls that change a server. A release is never changed in place, so their key is made up and told to nobody.
_CLOSED = "model-repository,shared-memory,trace,logging"


@dataclass(frozen=True)
class _Running:
    """What `server.json` holds. `command` is the process's whole command line, from which all else can be read."""

    process: processes.ProcessId
    command: list[str]

    def option(self, name: str) -> str:
        return next(part.partition("=")[2] for part in self.command if part.startswith(f"--{name}="))

    @property
    def alive(self) -> bool:
        return processes.alive(self.process, self.command)

    @property
    def endpoint(self) -> Endpoint:
        # Whoever listens on every address is reached on this one.
        host = self.option("http-address").replace("0.0.0.0", "127.0.0.1")  # noqa: S104  # compared with, not bound to
        return Endpoint(host, int(self.option("http-port")), int(self.option("grpc-port")))


def free_ports(host: str) -> Ports:
    """Three ports that nobody listens on now: for HTTP, gRPC and metrics."""
    with contextlib.ExitStack() as stack:
        listeners = [stack.enter_context(socket.socket()) for _ in range(3)]
        for listener in listeners:
            listener.bind((host, 0))
        http, grpc, metrics = (int(listener.getsockname()[1]) for listener in listeners)
    return http, grpc, metrics


class TritonProcess:
    """A ModelServer that runs tritonserver on this machine.

    `home` is the folder for state and logs (`releases/<name>/server.json`, `fence` and `server.log`), `triton` the
    folder into which requirements-triton.lock was installed, `backend` the model.py of our onnxruntime backend and
    `python` an interpreter with onnxruntime. `host` is the address to listen on: anything but loopback opens the models
    to others. `drain` is how long a stop waits for requests in flight, and, since Triton does not tell them apart, for
    idle connections that clients keep open: stop a release once the router sends it nothing.
    """

    def __init__(
        self,
        home: Path,
        triton: Path,
        backend: Path,
        python: Path = Path(sys.executable),
        host: str = "127.0.0.1",
        ready_timeout: timedelta = timedelta(seconds=60),
        drain: timedelta = timedelta(seconds=3),
        choose_ports: Callable[[str], Ports] = free_ports,
    ) -> None:
        self._home = home.resolve()
        self._triton, self._backend, self._python = triton.resolve(), backend.resolve(), python
        self._host, self._choose_ports = host, choose_ports
        self._ready_timeout, self._drain = ready_timeout.total_seconds(), drain.total_seconds()
        self._runtime: runtime.Runtime | None = None

    def start(self, spec: ReleaseSpec, fence: int) -> Endpoint:
        """Start the release, or adopt the running one of that name, and return once it answers.

        Raises:
            Fault: Triton did not get ready, with the end of its log; or another model runs under that name.
            Transient: somebody else is starting or stopping that release for too long.
            LostLease: somebody with a higher token has started or stopped it.
        """
        with self._lock(spec.name):
            self._hold(spec.name, fence)
            running = self._find(spec.name)
            if running:
                self._check_same(spec, running)
                self._write_state(spec.name, running)
                if self._becomes_ready(running):
                    return running.endpoint
                # It runs and does not answer: it serves nobody, so a fresh one can only be better.
                self._end(spec.name, running)
            return self._start_afresh(spec).endpoint

    def find(self, name: str) -> Endpoint | None:
        """The endpoint of a running release, or None."""
        running = self._find(name)
        return running.endpoint if running else None

    def stop(self, name: str, fence: int | None) -> None:
        """End the release: requests in flight are answered first, and what does not end is killed.

        Raises LostLease where somebody with a higher token has started or stopped it; without a token, never.
        """
        with self._lock(name):
            if fence is not None:
                self._hold(name, fence)
            running = self._find(name)
            if running:
                # Triton takes three seconds for its own end even where nobody waits for an answer.
                self._end(name, running)
            self._state_file(name).unlink(missing_ok=True)

    def names(self) -> list[str]:
        """All releases of this `home` that run."""
        found = sorted(file.parent.name for file in self._home.glob("releases/*/server.json"))
        return [name for name in found if self._find(name)]

    def _end(self, name: str, running: _Running) -> None:
        """Triton takes three seconds for its own end even where nobody waits for an answer: then it is not asked. The
        stubs in which its models run would end by themselves, seconds after they miss their parent."""
        processes.end(running.process, self._drain + _GRACE if processes.has_clients(running.process) else 0)
        processes.kill_all(self._memory(name))
        for region in _SHARED_MEMORY.glob(f"{self._memory(name)}*"):
            region.unlink(missing_ok=True)

    def _start_afresh(self, spec: ReleaseSpec) -> _Running:
        log = self._log_file(spec.name)
        for _ in range(_ATTEMPTS):
            running = self._spawn(spec, self._choose_ports(self._host))
            if running:
                self._write_state(spec.name, running)
                if self._becomes_ready(running):
                    return running
                self._end(spec.name, running)
                self._state_file(spec.name).unlink(missing_ok=True)
            said = processes.last_lines(log)
            # Somebody took a port between our look and Triton's: not the model's doing, so others are tried.
            if "already in use" not in said:
                raise Fault(f"Triton did not get {spec.name} ready: {said}", f"Read {log}.")
        raise Fault(f"Triton found its ports taken {_ATTEMPTS} times on {self._host}.", "See what listens there.")

    def _spawn(self, spec: ReleaseSpec, ports: Ports) -> _Running | None:
        if self._runtime is None:
            self._runtime = runtime.prepare(self._home, self._triton, self._backend, self._python)
        command = self._command(self._runtime, spec, ports)
        log = self._log_file(spec.name)
        with contextlib.suppress(FileNotFoundError):
            # The log of a server that died is worth more than the first lines of the next one.
            log.replace(log.with_suffix(".previous.log"))
        process = processes.spawn(command, self._runtime.environment, log.parent, log)
        return _Running(process, command) if process else None

    def _command(self, engine: runtime.Runtime, spec: ReleaseSpec, ports: Ports) -> list[str]:
        http, grpc, metrics = ports
        return [
            str(engine.program),
            self._marker(spec.name),
            f"--model-repository={spec.repository.resolve()}",
            f"--backend-directory={engine.backends}",
            f"--backend-config=python,shm-region-prefix-name={self._memory(spec.name)}",
            "--model-control-mode=explicit",
            f"--load-model={spec.model}",
            "--disable-auto-complete-config",
            *(f"--{part}-address={self._host}" for part in ("http", "grpc", "metrics")),
            f"--http-port={http}",
            f"--grpc-port={grpc}",
            f"--metrics-port={metrics}",
            "--metrics-config=summary_latencies=true",
            f"--http-restricted-api={_CLOSED}:headgate-key={secrets.token_hex(16)}",
            f"--grpc-restricted-protocol={_CLOSED}:headgate-key={secrets.token_hex(16)}",
            f"--exit-timeout-secs={math.ceil(self._drain)}",
        ]

    def _becomes_ready(self, running: _Running) -> bool:
        deadline = time.monotonic() + self._ready_timeout
        while running.alive and time.monotonic() < deadline:
            if self._is_ready(running):
                return True
            time.sleep(_POLL)
        return False

    def _is_ready(self, running: _Running) -> bool:
        """It listens itself on all its ports, so that no stranger answers in its place, and has its model loaded."""
        ports = {int(running.option(f"{part}-port")) for part in ("http", "grpc", "metrics")}
        where = running.endpoint
        return ports <= processes.listening_ports(running.process) and all(
            _says_yes(where.host, where.http_port, path)
            for path in ("/v2/health/ready", f"/v2/models/{running.option('load-model')}/ready")
        )

    def _find(self, name: str) -> _Running | None:
        """What the state file says where that process runs; else what the processes of this machine say of themselves.

        The second is for a worker that was killed between starting Triton and writing the file.
        """
        running = self._read_state(name)
        if running and running.alive:
            return running
        found = [_Running(p, processes.command_line(p.pid)) for p in processes.find(self._marker(name), _PROGRAM)]
        return next((running for running in found if running.alive), None)

    def _check_same(self, spec: ReleaseSpec, running: _Running) -> None:
        serves = (running.option("model-repository"), running.option("load-model"))
        if serves != (str(spec.repository.resolve()), spec.model):
            raise Fault(f"{spec.name} already serves {serves[1]} from {serves[0]}.", "Stop that release first.")

    def _marker(self, name: str) -> str:
        """The argument by which a release's process is known; several folders of state may share one machine."""
        place = hashlib.sha256(str(self._home).encode()).hexdigest()[:8]
        return f"--id=headgate/{place}/{name}"

    def _memory(self, name: str) -> str:
        """How the shared memory of Triton and its stubs is called: what a killed server leaves of it can be found."""
        return f"headgate-{hashlib.sha256(self._marker(name).encode()).hexdigest()[:16]}-"

    def _folder(self, name: str) -> Path:
        if not _NAME.fullmatch(name):
            raise Fault(f"{name!r} cannot name a release.", "Use letters, digits, '.', '_', '@' and '-'.")
        return self._home / "releases" / name

    def _log_file(self, name: str) -> Path:
        return self._folder(name) / "server.log"

    def _state_file(self, name: str) -> Path:
        return self._folder(name) / "server.json"

    def _read_state(self, name: str) -> _Running | None:
        try:
            state: dict[str, Any] = json.loads(self._state_file(name).read_text(encoding="utf-8"))
            return _Running(processes.ProcessId(**state["process"]), state["command"])
        except (OSError, ValueError, KeyError, TypeError):
            # Missing or cut short: the processes themselves are asked next.
            return None

    def _write_state(self, name: str, running: _Running) -> None:
        """Write whole or not at all. The ports are for people; the command line is what counts."""
        draft = self._state_file(name).with_suffix(".draft")
        ports = {part: int(running.option(f"{part}-port")) for part in ("http", "grpc", "metrics")}
        with failpoints.around("triton.state"):
            draft.write_text(json.dumps({**asdict(running), "ports": ports}, indent=1), encoding="utf-8")
            draft.replace(self._state_file(name))

    def _hold(self, name: str, fence: int) -> None:
        """Compare the caller's token with the highest one seen for the release, and keep it. It outlives the release:
        a start that comes late must not bring back what was stopped. Call it inside the lock."""
        file = self._folder(name) / "fence"
        try:
            seen = int(file.read_text(encoding="ascii"))
        except FileNotFoundError:
            seen = 0
        except ValueError as error:
            raise Fault(f"{file} is damaged: {error}.", "Remove it while no worker runs.") from error
        refuse_stale(name, fence, seen)
        draft = file.with_suffix(".draft")
        draft.write_text(str(fence), encoding="ascii")
        draft.replace(file)

    @contextlib.contextmanager
    def _lock(self, name: str) -> Iterator[None]:
        """One start or stop of a release at a time, on the whole machine. The kernel frees it when the holder dies."""
        self._folder(name).mkdir(parents=True, exist_ok=True)
        deadline = time.monotonic() + self._ready_timeout + 2 * (self._drain + _GRACE)
        with (self._folder(name) / "lock").open("w") as file:
            while not _locked(file.fileno()):
                if time.monotonic() > deadline:
                    raise Transient(f"Another worker is starting or stopping {name}.", "It is tried again.")
                time.sleep(_POLL)
            yield


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _says_yes(host: str, port: int, path: str) -> bool:
    connection = http.client.HTTPConnection(host, port, timeout=2)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
