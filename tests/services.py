"""Real services for tests: MLflow, PostgreSQL and Redis on free loopback ports, started and stopped by pid."""

import contextlib
import http.server
import os
import pwd
import queue
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psycopg
import redis as redis_client
from cryptography.fernet import Fernet
from psycopg import sql

LOOPBACK = "127.0.0.1"

# MLflow's client in the tests would otherwise report their calls over the internet.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")


def free_port() -> int:
    """A TCP port of the loopback interface that nobody listened on a moment ago."""
    with socket.socket() as listener:
        listener.bind((LOOPBACK, 0))
        port: int = listener.getsockname()[1]
        return port


@contextlib.contextmanager
def mlflow_server(folder: Path, port: int | None = None, **environment: str) -> Iterator[str]:
    """An MLflow server whose state lies in `folder`; yields its base URI. Started again there, it goes on.

    It sends webhooks to loopback over plain HTTP and forgets its list of webhooks after a second instead of a minute.
    `environment` adds to or replaces what it runs with.
    """
    port = port or free_port()
    key_file = folder / "webhook.key"
    if not key_file.exists():
        key_file.write_bytes(Fernet.generate_key())
    database = f"sqlite:///{folder / 'mlflow.db'}"
    # `mlflow server` sets just these names and then starts the same uvicorn: going there directly imports MLflow
    # once and not twice, and takes 6 seconds and not 13.
    settings = {
        "_MLFLOW_SERVER_FILE_STORE": database,
        "_MLFLOW_SERVER_REGISTRY_STORE": database,
        "_MLFLOW_SERVER_SERVE_ARTIFACTS": "true",
        "_MLFLOW_SERVER_ARTIFACT_ROOT": "mlflow-artifacts:/",
        "_MLFLOW_SERVER_ARTIFACT_DESTINATION": str(folder / "artifacts"),
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_WEBHOOK_ALLOWED_SCHEMES": "http,https",
        "MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS": "true",
        "MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY": key_file.read_text(),
        "MLFLOW_WEBHOOK_CACHE_TTL": "1",
    }
    inherited = {name: value for name, value in os.environ.items() if "MLFLOW_" not in name}
    uri = f"http://{LOOPBACK}:{port}"
    command = [
        sys.executable,
        "-m",
        "uvicorn",
        "--host",
        LOOPBACK,
        "--port",
        str(port),
        "mlflow.server.fastapi_app:app",
    ]

    def ready() -> bool:
        # The first request of this kind makes the tables.
        return httpx.get(f"{uri}/api/2.0/mlflow/registered-models/search", timeout=30).is_success

    with _running(command, folder / "mlflow.log", ready, httpx.HTTPError, env={**inherited, **settings, **environment}):
        yield uri


@contextlib.contextmanager
def inbox() -> Iterator[tuple[str, queue.Queue[tuple[dict[str, str], bytes]]]]:
    """An HTTP server that accepts every POST; yields its URL and the queue of (headers, body) that came."""
    arrived: queue.Queue[tuple[dict[str, str], bytes]] = queue.Queue()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            arrived.put((dict(self.headers.items()), body))
            self.send_response(202)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Keep the tests' output quiet."""

    with serving(Handler) as url:
        yield url, arrived


@contextlib.contextmanager
def serving(handler: type[http.server.BaseHTTPRequestHandler]) -> Iterator[str]:
    """Serve HTTP with the handler in threads of this process; yields the base URL."""
    with http.server.ThreadingHTTPServer((LOOPBACK, 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"http://{LOOPBACK}:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@dataclass(frozen=True)
class Postgres:
    """A PostgreSQL; `base` is a SQLAlchemy URL without the database's name. It runs while `run()` is entered, which may
    be done again and again: the data stays."""

    base: str
    run: Callable[[], contextlib.AbstractContextManager[None]]

    def admin(self, *statements: str) -> None:
        """Carry out statements as its owner, each by itself."""
        with psycopg.connect(_libpq(f"{self.base}/postgres"), autocommit=True) as connection:
            connection.execute("SET default_transaction_read_only = off")
            for statement in statements:
                connection.execute(sql.SQL(statement))

    def fresh(self) -> str:
        """Make an empty database and return its SQLAlchemy URL."""
        name = f"test_{secrets.token_hex(6)}"
        with psycopg.connect(_libpq(f"{self.base}/postgres"), autocommit=True) as connection:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        return f"{self.base}/{name}"


def _libpq(url: str) -> str:
    return url.replace("postgresql+psycopg://", "postgresql://", 1)


@contextlib.contextmanager
def postgres(folder: Path) -> Iterator[Postgres]:
    """A throw-away PostgreSQL that runs, quick and not crash-safe; its log lies in `folder`."""
    with stopped_postgres(folder) as server, server.run():
        yield server


@contextlib.contextmanager
def stopped_postgres(folder: Path) -> Iterator[Postgres]:
    """The same, not yet started."""
    programs = _postgres_programs()
    with _postgres_home(folder) as (home, user):
        password = secrets.token_hex(16)
        password_file = home / "password"
        password_file.write_text(password)
        password_file.chmod(0o644)  # the folder around it is closed to others
        options = ["--auth=scram-sha-256", "--username=headgate", "--encoding=UTF8", "--locale=C", "--no-sync"]
        subprocess.run(
            [programs / "initdb", "-D", home / "data", f"--pwfile={password_file}", *options],
            check=True, capture_output=True, cwd=home, **user,
        )  # fmt: skip
        port = free_port()
        base = f"postgresql+psycopg://headgate:{password}@{LOOPBACK}:{port}"
        settings = {
            "listen_addresses": LOOPBACK,
            "unix_socket_directories": "",
            "fsync": "off",
            "synchronous_commit": "off",
            "full_page_writes": "off",
            "shared_buffers": "16MB",
        }
        flags = [flag for name, value in settings.items() for flag in ("-c", f"{name}={value}")]

        def ready() -> bool:
            psycopg.connect(_libpq(f"{base}/postgres"), connect_timeout=5).close()
            return True

        command = [str(programs / "postgres"), "-D", str(home / "data"), "-p", str(port), *flags]

        def run() -> contextlib.AbstractContextManager[None]:
            # SIGINT is its fast shutdown; SIGTERM would wait for every client to leave.
            log, stop = folder / "postgres.log", signal.SIGINT
            return _running(command, log, ready, psycopg.OperationalError, stop=stop, cwd=home, **user)

        yield Postgres(base, run)


def _postgres_programs() -> Path:
    on_path = shutil.which("postgres")
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[4]))
    if not found and not on_path:
        raise _missing("postgres", "postgresql")
    return (found[-1] if found else Path(str(on_path))).parent


@contextlib.contextmanager
def _postgres_home(folder: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """A folder for its data and the user to run as: PostgreSQL refuses to be root.

    Root's test folders are closed to other users, so that root's PostgreSQL gets a folder of its own elsewhere.
    """
    if os.geteuid() != 0:
        yield folder, {}
        return
    account = next(entry for name in ("postgres", "nobody") for entry in pwd.getpwall() if entry.pw_name == name)
    with tempfile.TemporaryDirectory(prefix="headgate-postgres-") as home:
        os.chown(home, account.pw_uid, account.pw_gid)
        yield Path(home), {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}


class RedisServer:
    """A Redis that keeps nothing on disk, in a folder and on a port of its own; it may be killed and started again."""

    def __init__(self, folder: Path) -> None:
        self._program = shutil.which("redis-server")
        if self._program is None:
            raise _missing("redis-server", "redis-server")
        self._folder, self._port = folder, free_port()
        self.url = f"redis://{LOOPBACK}:{self._port}/0"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, empty, and wait until it answers."""
        options = ["--bind", LOOPBACK, "--dir", str(self._folder), "--save", "", "--appendonly", "no"]
        command = [str(self._program), "--port", str(self._port), *options]
        log = self._folder / "redis.log"
        with log.open("ab") as output:
            self._process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        _wait(self._process, log, lambda: bool(self.say("PING")), redis_client.ConnectionError)

    def say(self, *words: str | int) -> Any:
        """Give it a command over a connection of its own; returns its answer."""
        with redis_client.Redis.from_url(self.url) as client:
            return client.execute_command(*words)

    def signal(self, number: signal.Signals) -> None:
        """SIGSTOP has it keep its connections and answer nothing; SIGCONT ends that."""
        if self._process is not None:
            self._process.send_signal(number)

    def kill(self) -> None:
        """kill -9: all it held is lost, and its port is closed until it is started again."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()


@contextlib.contextmanager
def redis_server(folder: Path) -> Iterator[RedisServer]:
    """A running Redis; killed when the block ends."""
    server = RedisServer(folder)
    server.start()
    try:
        yield server
    finally:
        server.kill()


@contextlib.contextmanager
def redis(folder: Path) -> Iterator[str]:
    """A Redis that keeps nothing on disk; yields its URL."""
    with redis_server(folder) as server:
        yield server.url


def _missing(program: str, package: str) -> RuntimeError:
    return RuntimeError(f"{program} is missing: install the Debian package {package} (ci/install-system.sh test)")


@contextlib.contextmanager
def _running(
    command: list[str],
    log: Path,
    ready: Callable[[], bool],
    not_yet: type[Exception],
    stop: signal.Signals = signal.SIGTERM,
    env: Mapping[str, str] | None = None,
    **options: Any,
) -> Iterator[None]:
    """Run a server until the block ends; it is ready when `ready` says so without raising `not_yet`."""
    with log.open("ab") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=env, **options)
    try:
        _wait(process, log, ready, not_yet)
        yield
    finally:
        process.send_signal(stop)
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait(
    process: subprocess.Popen[bytes], log: Path, ready: Callable[[], bool], not_yet: type[Exception], limit: float = 120
) -> None:
    deadline = time.monotonic() + limit
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(not_yet):
            if ready():
                return
        time.sleep(0.05)
    tail = log.read_text(errors="replace")[-2000:]
    raise RuntimeError(f"{process.args!r} did not become ready (exit status {process.poll()}):\n{tail}")
