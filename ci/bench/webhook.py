"""The webhook receiver: how long MLflow waits for the 202 of the real API process, which commits before it answers."""

import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

from sqlalchemy import func, select

from app.db.models import Delivery
from app.db.session import Database
from ci.bench import load
from ci.bench.databases import SQLITE, Fresh, missing
from ci.bench.figures import Group, in_turns, number, percentile, ratio
from ci.bench.processes import LOOPBACK, answers, free_ports, running
from ci.bench.worker import Worker, worker
from examples.airbnb.stage import signed

RATE = 100
# Enough that a request does not wait for a connection before the server is a sixth of a second behind.
CONNECTIONS = 16
BESIDE = ", beside a worker"
HEALTH = "GET /healthz (no database)"
_SECRET = "a-secret-of-the-benchmark"  # noqa: S105  # signs deliveries to a process that lives for this run


def run(folder: Path, kinds: Mapping[str, Fresh], seconds: float, rounds: int) -> Group:
    """One API process a database, each on its own folder; `seconds` is one window."""
    count = int(RATE * seconds)
    with contextlib.ExitStack() as stack:
        urls = {kind: fresh("webhook") for kind, fresh in kinds.items()}
        bases = {kind: stack.enter_context(_api(folder / f"api-{kind}", url)) for kind, url in urls.items()}
        workers = {kind: stack.enter_context(worker(url, folder / f"worker-{kind}")) for kind, url in urls.items()}
        sides: dict[str, Callable[[], load.Load]] = {
            f"202 on {kind}": partial(_deliver, base, count) for kind, base in bases.items()
        }
        for kind, base in bases.items():
            sides[f"202 on {kind}{BESIDE}"] = partial(_deliver_beside, workers[kind], base, count)
        sides[HEALTH] = partial(_health, bases[SQLITE], count)
        for side in sides.values():
            side()
        measured = in_turns(sides, rounds)
        for kind, url in urls.items():
            _check_stored(url, kind, 2 * count * (rounds + 1))
    return _group(measured, missing(kinds), seconds, rounds)


def _deliver(base: str, count: int) -> load.Load:
    """As many webhooks as MLflow would sign, each with an id of its own."""
    url = f"{base}/webhooks/mlflow"
    bodies = [json.dumps(_event(number)).encode() for number in range(count)]
    requests = [load.http_request(url, body, signed(_SECRET, body)) for body in bodies]
    return load.paced(url, requests, CONNECTIONS, RATE)


def _deliver_beside(busy: Worker, base: str, count: int) -> load.Load:
    with busy.advancing():
        return _deliver(base, count)


def _event(number: int) -> dict[str, object]:
    return {
        "entity": "model_version_alias",
        "action": "created",
        "timestamp": "2026-01-01T00:00:00Z",
        "data": {"name": f"model-{number % 50}", "alias": "to-production", "version": "1"},
    }


def _health(base: str, count: int) -> load.Load:
    url = f"{base}/healthz"
    return load.paced(url, [load.http_request(url)] * count, CONNECTIONS, RATE)


@contextlib.contextmanager
def _api(home: Path, database_url: str) -> Iterator[str]:
    """The API as `headgate up` starts it; nobody fetches the wake-ups that it writes."""
    home.mkdir()
    (port,) = free_ports(1)
    base = f"http://{LOOPBACK}:{port}"
    command = [sys.executable, "-m", "uvicorn", "app.main:app", "--host", LOOPBACK, "--port", str(port)]
    command += ["--no-access-log", "--no-server-header", "--no-proxy-headers"]
    own = {name: value for name, value in os.environ.items() if not name.startswith("HEADGATE_")}
    settings = {
        "HEADGATE_HOME": str(home),
        "HEADGATE_DATABASE_URL": database_url,
        "HEADGATE_PUBLIC_URL": base,
        "HEADGATE_MLFLOW_WEBHOOK_SECRETS": _SECRET,
    }
    with running(command, home / "api.log", answers(f"{base}/readyz"), {**own, **settings}):
        yield base


def _check_stored(url: str, kind: str, count: int) -> None:
    """A 202 is a promise: each delivery must be in the database. Raises RuntimeError."""
    database = Database(url)
    try:
        with database.read() as session:
            stored = session.scalar(select(func.count()).select_from(Delivery))
    finally:
        database.close()
    if stored != count:
        raise RuntimeError(f"{kind} holds {stored} of {count} deliveries that were answered 202")


def _group(measured: Mapping[str, list[load.Load]], notes: list[str], seconds: float, rounds: int) -> Group:
    baseline = measured[f"202 on {SQLITE}"]
    rows, figures = [], {}
    for name, windows in measured.items():
        latencies = [ms for one in windows for ms in one.latencies_ms]
        p50, p99 = percentile(latencies, 0.5), percentile(latencies, 0.99)
        compared = ratio(_medians(windows), _medians(baseline))
        figures[name] = {"p50_ms": p50, "p99_ms": p99, "ratio": compared, "requests": len(latencies)}
        rows.append([name, number(p50), number(p99), number(max(latencies)), number(compared)])
    columns = ["answer", "p50 ms", "p99 ms", "longest ms", f"p50 / that on {SQLITE}"]
    notes += [
        f"{RATE} requests a second over {CONNECTIONS} keep-alive connections; rounds: {rounds}, windows of "
        f"{seconds:g} s; percentiles are over all requests. A latency counts from when the request was due.",
        "Beside a worker: another process moves promotions in the same database, one after the other and as fast as it "
        "can.",
        "Every answer was a 202, and afterwards every delivery was found in the database.",
    ]
    return Group("webhook", f"The webhook receiver at {RATE} requests a second", columns, rows, notes, figures)


def _medians(windows: list[load.Load]) -> list[float]:
    return [percentile(one.latencies_ms, 0.5) for one in windows]
