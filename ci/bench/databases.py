"""Databases that keep their promises: PostgreSQL waits for the disk here, unlike that of the tests, as SQLite does."""

import contextlib
import functools
import os
import pwd
import secrets
import shutil
import signal
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from app.db.migrate import upgrade
from ci.bench.processes import LOOPBACK, free_ports, running

SQLITE, POSTGRES = "SQLite", "PostgreSQL"
Fresh = Callable[[str], str]
"""From a name to the URL of a new, migrated database of that name."""


@contextlib.contextmanager
def databases(folder: Path) -> Iterator[Mapping[str, Fresh]]:
    """Ways to a new database by kind; PostgreSQL is missing where it is not installed."""

    def sqlite(name: str) -> str:
        return _migrated(f"sqlite:///{folder / name}.db")

    if _programs() is None:
        yield {SQLITE: sqlite}
        return
    with _durable_postgres(folder) as base:
        yield {SQLITE: sqlite, POSTGRES: functools.partial(_fresh_postgres, base)}


def missing(found: Mapping[str, Fresh]) -> list[str]:
    """A note where a side could not be measured."""
    install = "PostgreSQL is not installed here, so that side is missing: `bash ci/install-system.sh test`."
    return [] if POSTGRES in found else [install]


def fsync_ms(folder: Path) -> float:
    """The median milliseconds that this disk takes to make 4 KiB durable: no durable commit can be quicker."""
    took = []
    with (folder / "fsync").open("wb", buffering=0) as file:
        for _ in range(50):
            begun = time.perf_counter()
            file.write(bytes(4096))
            os.fsync(file.fileno())
            took.append((time.perf_counter() - begun) * 1000)
    return statistics.median(took)


def _migrated(url: str) -> str:
    upgrade(url)
    return url


def _fresh_postgres(base: str, name: str) -> str:
    with psycopg.connect(f"postgresql://{base}/postgres", autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    return _migrated(f"postgresql+psycopg://{base}/{name}")


@contextlib.contextmanager
def _durable_postgres(folder: Path) -> Iterator[str]:
    """Run one with its own defaults; yields `user:password@host:port`."""
    programs, account = _programs(), _account()
    assert programs is not None
    home = folder / "postgres"
    home.mkdir(mode=0o700)
    if account:
        os.chown(home, account["user"], account["group"])
    password, secret = home / "password", secrets.token_hex(16)
    password.write_text(secret)
    password.chmod(0o644)  # the folder around it is closed to others
    options = ["--auth=scram-sha-256", "--username=headgate", "--encoding=UTF8", "--locale=C", f"--pwfile={password}"]
    initdb = [str(programs / "initdb"), "-D", str(home / "data"), *options]
    subprocess.run(initdb, check=True, capture_output=True, cwd=home, **account)
    (port,) = free_ports(1)
    base = f"headgate:{secret}@{LOOPBACK}:{port}"
    settings = ["-c", f"listen_addresses={LOOPBACK}", "-c", "unix_socket_directories="]
    command = [str(programs / "postgres"), "-D", str(home / "data"), "-p", str(port), *settings]

    def ready() -> bool:
        try:
            psycopg.connect(f"postgresql://{base}/postgres", connect_timeout=5).close()
        except psycopg.OperationalError:
            return False
        return True

    # SIGINT is its fast shutdown; SIGTERM would wait for every client to leave.
    with running(command, folder / "postgres.log", ready, stop=signal.SIGINT, cwd=home, **account):
        yield base


def _programs() -> Path | None:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[4]))
    on_path = shutil.which("postgres")
    return found[-1].parent if found else Path(on_path).parent if on_path else None


def _account() -> dict[str, Any]:
    """PostgreSQL refuses to be root; whoever else measures runs it as themselves."""
    if os.geteuid() != 0:
        return {}
    found = next(entry for name in ("postgres", "nobody") for entry in pwd.getpwall() if entry.pw_name == name)
    return {"user": found.pw_uid, "group": found.pw_gid, "extra_groups": []}
