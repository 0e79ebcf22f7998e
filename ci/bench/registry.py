"""The whole registry: a snapshot of thousands of models, the first poll of them, and one that finds no news."""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from app.db.migrate import upgrade
from ci.bench.figures import Group, in_turns, number, spread
from ci.bench.models import ROOT
from ci.bench.processes import LOOPBACK, answers, free_ports, running

VERSIONS = 3
# Of every ten models one carries an alias that asks for nothing, and one a legacy stage.
EVERY = 10
_STAMP = 1_700_000_000_000


def run(folder: Path, models: int, rounds: int) -> Group:
    """One MLflow server over `models` models of three versions; each reading is a process of its own."""
    home = folder / "registry"
    home.mkdir()
    with _mlflow(home, models) as uri:
        database = f"sqlite:///{home / 'headgate.db'}"
        upgrade(database)
        first = [_read("poll", uri, _fresh(home, number)) for number in range(rounds)]
        _check(first[0], models)
        _read("poll", uri, database)
        sides = {
            "snapshot": partial(_read, "snapshot", uri, database),
            "poll without news": partial(_read, "poll", uri, database),
        }
        measured = {"first poll": first, **in_turns(sides, rounds)}
    return _group(measured, models, rounds)


def _fresh(home: Path, number: int) -> str:
    url = f"sqlite:///{home / f'first-{number}.db'}"
    upgrade(url)
    return url


@contextlib.contextmanager
def _mlflow(home: Path, models: int) -> Iterator[str]:
    """A real MLflow server; its tables are filled directly, for by its API that would take an hour."""
    (port,) = free_ports(1)
    database = f"sqlite:///{home / 'mlflow.db'}"
    own = {name: value for name, value in os.environ.items() if "MLFLOW_" not in name}
    settings = {
        "_MLFLOW_SERVER_FILE_STORE": database,
        "_MLFLOW_SERVER_REGISTRY_STORE": database,
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
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
    uri = f"http://{LOOPBACK}:{port}"
    # The first request of this kind makes the tables.
    ready = answers(f"{uri}/api/2.0/mlflow/registered-models/search")
    with running(command, home / "mlflow.log", ready, {**own, **settings}):
        _fill(database, models)
        yield uri


def _fill(database: str, models: int) -> None:
    engine = sa.create_engine(database)
    meta = sa.MetaData()
    meta.reflect(engine, only=["registered_models", "model_versions", "registered_model_aliases"])
    names = [f"model-{n:05}" for n in range(models)]
    versions = [
        {"name": name, "version": v, "creation_time": _STAMP, "last_updated_time": _STAMP, "status": "READY"}
        | {"source": f"mlflow-artifacts:/{name}/{v}", "current_stage": _stage(n, v)}
        for n, name in enumerate(names)
        for v in range(1, VERSIONS + 1)
    ]
    stamps = {"creation_time": _STAMP, "last_updated_time": _STAMP}
    aliases = [{"name": name, "alias": "champion", "version": VERSIONS} for name in names[::EVERY]]
    with engine.begin() as connection:
        connection.execute(meta.tables["registered_models"].insert(), [{"name": name, **stamps} for name in names])
        connection.execute(meta.tables["model_versions"].insert(), versions)
        connection.execute(meta.tables["registered_model_aliases"].insert(), aliases)
    engine.dispose()


def _stage(model: int, version: int) -> str:
    return "Production" if (model % EVERY, version) == (1, VERSIONS) else "None"


def _read(what: str, uri: str, database: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "ci.bench.registry_reader", what, uri, database]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _check(first: dict[str, Any], models: int) -> None:
    """Raises RuntimeError where the first poll did not see every model."""
    if first["models"] != models:
        raise RuntimeError(f"the first poll saw {first['models']} of {models} models")


def _group(measured: dict[str, list[dict[str, Any]]], models: int, rounds: int) -> Group:
    rows = []
    for name, found in measured.items():
        grown = [one["peak_mib"] - one["before_mib"] for one in found]
        cells = [spread([one["seconds"] for one in found]), spread(grown)]
        rows.append([name, *cells, str(found[0]["requests"]), str(found[0]["writes"])])
    columns = ["what", "seconds", "memory grown by, MiB", "requests to MLflow", "writing statements"]
    notes = [
        f"{models:,} models of {VERSIONS} versions, every tenth with an alias and every tenth with a version in "
        f"Production, in one MLflow server on SQLite. Rounds: {rounds}; median and, in brackets, least and greatest.",
        f"Each reading is a process of its own, of {number(measured['snapshot'][0]['before_mib'])} MiB before; what it "
        "grows by is the peak.",
    ]
    return Group("registry", f"Reading a registry of {models:,} models", columns, rows, notes, measured)
