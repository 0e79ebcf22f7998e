"""`headgate up`: every process of a one-machine installation, with a local MLflow server where none is configured."""

import json
import logging
import os
import signal
import socket
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from types import FrameType
from urllib.parse import urlsplit

from cryptography.fernet import Fernet

from app import logs, wiring
from app.db.migrate import upgrade
from app.db.session import Database
from app.domain.errors import Fault, HeadgateError
from app.services.releases import routes
from app.settings import Settings
from app.supervisor import Program, Supervisor

log = logging.getLogger(__name__)
WORKERS = 2
CONCURRENCY = 6


def main() -> int:
    """Run until SIGINT or SIGTERM; returns the exit status."""
    logs.configure()
    stopping: list[int] = []

    def stop(number: int, _frame: FrameType | None) -> None:
        stopping.append(number)

    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)
    try:
        _run(stopping)
    except HeadgateError as error:
        print(f"headgate up: {error}", file=sys.stderr)
        return 1
    return 0


def _run(stopping: list[int]) -> None:
    settings = Settings()
    own_mlflow = not settings.mlflow_uri
    home = wiring.prepare_home(settings)
    os.environ["HEADGATE_HOME"] = str(home)
    _check_ports(settings, own_mlflow)
    upgrade(settings.database, timedelta(seconds=settings.database_patience_seconds), lambda: bool(stopping))
    ready = home / "up.json"

    def announce() -> None:
        _announce(ready, settings, supervisor)

    supervisor = Supervisor(home / "logs", announce)
    ready.unlink(missing_ok=True)
    try:
        _start(supervisor, settings, home, own_mlflow)
        _register_webhook(settings)
        print(json.dumps(_announce(ready, settings, supervisor)), flush=True)
        supervisor.watch(lambda: bool(stopping))
    finally:
        ready.unlink(missing_ok=True)
        supervisor.stop()
        _stop_releases(settings)


def _start(supervisor: Supervisor, settings: Settings, home: Path, own_mlflow: bool) -> None:
    """Everything is started at once, then waited for: most of the time goes into Python's imports."""
    programs = [_mlflow(settings, home)] if own_mlflow else []
    programs += [_router(settings), _api(settings), *_workers(), _clock()]
    for program in programs:
        supervisor.start(program)
    for program in programs:
        supervisor.wait_ready(program.name)


def _register_webhook(settings: Settings) -> None:
    """Have MLflow call us from the first change on: it keeps its list of webhooks for a while, also an empty one."""
    try:
        wiring.registry(settings).ensure_webhook(settings.webhook_address, wiring.webhook_secrets(settings)[0])
    except HeadgateError as error:
        # An MLflow that is away or refuses webhooks is no reason not to run: the poll tries again, and sees changes.
        log.warning("up.no_webhook", extra={"reason": error.reason})


def _mlflow(settings: Settings, home: Path) -> Program:
    folder = home / "mlflow"
    folder.mkdir(exist_ok=True)
    key = folder / "webhook.key"
    if not key.exists():
        # Without a fixed key MLflow cannot read its webhooks' secrets after a restart.
        key.touch(mode=0o600)
        key.write_bytes(Fernet.generate_key())
    store = f"sqlite:///{folder / 'mlflow.db'}"
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(settings.mlflow_port)]
    command += ["--backend-store-uri", store, "--artifacts-destination", str(folder / "artifacts"), "--workers", "1"]
    environment = {
        "MLFLOW_WEBHOOK_ALLOWED_SCHEMES": "http,https",
        "MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS": "true",
        "MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY": key.read_text(),
        "MLFLOW_WEBHOOK_CACHE_TTL": "1",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }
    return Program("mlflow", command, environment, _answers(f"{settings.mlflow_address}/health"))


def _router(settings: Settings) -> Program:
    router = wiring.router(settings)
    database = Database(settings.database)
    with database.read() as session:
        router.write_config(routes(session))
    database.close()
    first = next(iter(settings.router_ports))
    return Program("router", router.command(), ready=_answers(f"{router.address(first)}/v2/health/ready"))


def _api(settings: Settings) -> Program:
    port = urlsplit(settings.public_url).port or 80
    command = [sys.executable, "-m", "uvicorn", "app.main:app", "--host", settings.api_bind, "--port", str(port)]
    command += ["--no-access-log", "--no-server-header", "--no-proxy-headers", "--timeout-graceful-shutdown", "5"]
    return Program("api", command, ready=_answers(f"http://127.0.0.1:{port}/readyz"))


def _workers() -> list[Program]:
    base = [sys.executable, "-m", "celery", "-A", "workers.celery_app", "worker", "--pool", "threads"]
    base += ["--concurrency", str(CONCURRENCY), "--without-gossip", "--without-mingle", "--loglevel", "WARNING"]
    return [Program(f"worker-{n}", [*base, "-n", f"worker-{n}@%h"]) for n in range(1, WORKERS + 1)]


def _clock() -> Program:
    return Program("clock", [sys.executable, "-m", "celery", "-A", "workers.celery_app", "beat", "--pidfile="])


def _announce(file: Path, settings: Settings, supervisor: Supervisor) -> dict[str, object]:
    """Write where everything is to up.json, and return the addresses."""
    router = wiring.router(settings)
    addresses: dict[str, object] = {
        "api": settings.public_url,
        "mlflow": settings.mlflow_address,
        "router": {environment: router.address(environment) for environment in settings.router_ports},
    }
    draft = file.with_suffix(".draft")
    draft.write_text(json.dumps({**addresses, "pids": {"up": os.getpid(), **supervisor.pids()}}, indent=2) + "\n")
    draft.replace(file)
    return addresses


def _stop_releases(settings: Settings) -> None:
    """Servers of releases outlive their workers on purpose; the end of all of it is their end, too."""
    server = wiring.server(settings)
    for name in server.names():
        server.stop(name, None)


def _check_ports(settings: Settings, own_mlflow: bool) -> None:
    wanted = {"HEADGATE_PUBLIC_URL": urlsplit(settings.public_url).port or 80}
    for environment, ports in settings.router_ports.items():
        for port, kind in zip(ports, ("HTTP", "gRPC"), strict=True):
            wanted[f"HEADGATE_ROUTER_PORTS ({environment}, {kind})"] = port
    if own_mlflow:
        wanted["HEADGATE_MLFLOW_PORT"] = settings.mlflow_port
    for setting, port in wanted.items():
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError as error:
                raise Fault(f"Port {port} is taken.", f"End what listens there, or change {setting}.") from error


def _answers(url: str) -> Callable[[], bool]:
    def ready() -> bool:
        try:
            with urllib.request.urlopen(url, timeout=2) as answer:  # noqa: S310 -- an address of our own settings
                return bool(answer.status == 200)
        except urllib.error.URLError:
            return False

    return ready


if __name__ == "__main__":
    sys.exit(main())
