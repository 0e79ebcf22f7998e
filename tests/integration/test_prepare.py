"""`python -m app.prepare` on a fresh data folder, beside a HAProxy that runs, and without its database."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from app import wiring
from app.db.migrate import is_current
from app.db.session import Database
from app.domain.errors import Transient
from app.settings import Settings
from tests.haproxy_support import eventually, free_ports


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    # The path of a socket may have about 100 characters, and folders of tests are longer than that.
    with tempfile.TemporaryDirectory(prefix="headgate-") as short:
        monkeypatch.setenv("HEADGATE_HOME", str(tmp_path / "home"))
        monkeypatch.setenv("HEADGATE_ROUTER_DIR", short)
        monkeypatch.setenv("HEADGATE_ROUTER_PORTS", json.dumps({"production": free_ports(2)}))
        yield Settings()


def _prepare() -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, "-m", "app.prepare"], capture_output=True, text=True, timeout=60)


def _files(settings: Settings) -> Mapping[str, str]:
    return {path.name: path.read_text() for path in settings.router_dir.iterdir() if path.is_file()}


def test_a_fresh_folder_has_all_that_a_router_starts_with(settings: Settings) -> None:
    for _ in range(2):
        done = _prepare()
        assert done.returncode == 0, done.stderr
    database = Database(settings.database)
    assert is_current(database, settings.database)
    database.close()
    checked = subprocess.run([*wiring.router(settings).command(), "-c"], capture_output=True, text=True, timeout=60)
    assert checked.returncode == 0, checked.stderr


def test_a_router_that_runs_keeps_its_configuration(settings: Settings) -> None:
    assert _prepare().returncode == 0
    router = wiring.router(settings)
    with subprocess.Popen(router.command()) as haproxy:
        try:
            eventually(lambda: _answers(settings))
            record = settings.router_dir / "routes.json"
            record.write_text("what a worker has recorded")
            before = _files(settings)
            assert _prepare().returncode == 0
            assert _files(settings) == before
        finally:
            haproxy.terminate()
    assert _prepare().returncode == 0
    assert json.loads(record.read_text()) == []


def _answers(settings: Settings) -> bool:
    try:
        return wiring.router(settings).status("any", "production").weights == {}
    except Transient:
        return False


def test_without_its_database_it_fails_and_says_so(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_ports(1)[0]
    monkeypatch.setenv("HEADGATE_DATABASE_URL", f"postgresql+psycopg://nobody:secret-word@127.0.0.1:{port}/none")
    monkeypatch.setenv("HEADGATE_DATABASE_PATIENCE_SECONDS", "1")
    done = _prepare()
    assert done.returncode == 1
    assert "HEADGATE_DATABASE_URL" in done.stderr
    assert "secret-word" not in done.stderr
    assert not (settings.router_dir / "haproxy.cfg").exists()
