"""SQLite on a disk that is full or read-only, under a real API process, and four processes that write to one file."""

import contextlib
import json
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from app.db.migrate import ROOT, upgrade
from app.db.session import Database
from app.services import principals, trail
from examples.airbnb.stage import signed, wait
from tests.services import LOOPBACK, free_port

SECRET = "a-secret-of-tests"
SIZE = 4_000_000


def box(home: Path, mount: list[str], command: list[str], url: str, **more: str) -> list[str]:
    """A command line that runs `command` with `home` mounted as `mount` says; the network is the machine's."""
    settings = {"HOME": str(home), "PUBLIC_URL": url, "MLFLOW_WEBHOOK_SECRETS": SECRET, "DATABASE_URL": "", **more}
    flags = [flag for name, value in settings.items() for flag in ("--setenv", f"HEADGATE_{name}", value)]
    return ["bwrap", "--dev-bind", "/", "/", *mount, "--die-with-parent", "--chdir", str(ROOT), *flags, *command]


class Site:
    """Requests to the API, each of which writes."""

    def __init__(self, url: str, token: str) -> None:
        headers = {"Authorization": f"Bearer {token}"}
        self.http = httpx.Client(base_url=url, headers=headers, trust_env=False, timeout=30)
        self.made: list[str] = []

    def write(self) -> int:
        """Make a principal; the status, 201 or 503 with a problem document that holds nothing of the driver's."""
        name = f"p-{uuid.uuid4()}"
        answer = self.http.post("/api/v1/tokens", json={"name": name, "role": "auditor"})
        if answer.status_code == 201:
            self.made.append(name)
            return 201
        assert_unavailable(answer)
        return answer.status_code

    def call(self) -> int:
        """MLflow's webhook."""
        data = {"name": "m", "alias": "to-production", "version": "1"}
        event = {"entity": "model_version_alias", "action": "created", "timestamp": "2026-01-01T00:00:00Z"}
        body = json.dumps({**event, "data": data}).encode()
        answer = self.http.post("/webhooks/mlflow", content=body, headers=signed(SECRET, body))
        if answer.status_code != 202:
            assert_unavailable(answer)
        return answer.status_code

    def created(self) -> list[str]:
        """The principals that the trail knows of; it must verify."""
        assert self.http.get("/api/v1/audit/verify").json()["verified"]
        leaves = self.http.get("/api/v1/audit", params={"limit": 1000}).json()
        values = {opening["token"]: opening["value"] for leaf in leaves for opening in leaf["openings"]}
        made = [values[leaf["body"]["name"]] for leaf in leaves if leaf["kind"] == "principal.created"]
        return [name for name in made if name.startswith("p-")]


def assert_unavailable(answer: httpx.Response) -> None:
    assert answer.status_code == 503, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["type"] == "urn:headgate:problem:unavailable"
    assert not [word for word in ("INSERT", "sqlalche", "disk image", "SELECT", ".db") if word in answer.text]


@contextlib.contextmanager
def process(command: list[str], log: Path) -> Iterator[subprocess.Popen[str]]:
    with (
        log.open("ab") as errors,
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True) as running,
    ):
        try:
            yield running
        finally:
            running.terminate()


def test_a_full_disk_is_unavailable_loses_nothing_and_heals_by_itself(tmp_path: Path) -> None:
    home, url = tmp_path / "home", f"http://{LOOPBACK}:{free_port()}"
    home.mkdir()
    command = box(home, ["--size", str(SIZE), "--tmpfs", str(home)], [sys.executable, "-m", "tests.small_disk"], url)
    with process(command, tmp_path / "log") as running:
        assert running.stdin is not None and running.stdout is not None

        def order(line: str) -> None:
            print(line, file=running.stdin, flush=True)
            assert running.stdout is not None and running.stdout.readline() == "done\n"

        site = Site(url, running.stdout.readline().split()[1])
        assert (site.write(), site.call()) == (201, 202)
        refused = 0
        # Each page that is free decides at which of its writes the database meets the end of the disk.
        for free in range(0, 100_000, 12_000):
            order(f"fill {free}")
            while site.write() == 201:
                pass
            refused += site.call() == 503
            # What is there can be read all the time.
            assert site.http.get("/readyz").status_code == 200
            assert site.created() == site.made
            order("free")
            assert (site.write(), site.call()) == (201, 202)
            assert site.created() == site.made
        assert refused > 0
        site.http.close()


def test_a_read_only_disk_is_unavailable_from_the_start_and_writable_again_later(tmp_path: Path) -> None:
    home, url = tmp_path / "home", f"http://{LOOPBACK}:{free_port()}"
    for folder in ("broker/messages", "broker/control", "router"):
        (home / folder).mkdir(parents=True)
    database = f"sqlite:///{home / 'headgate.db'}"
    upgrade(database)
    opened = Database(database)
    token = principals.create(opened, "ada", "admin", "a test")
    opened.close()
    port = url.rpartition(":")[2]
    api = [sys.executable, "-m", "uvicorn", "app.main:app", "--port", port, "--log-level", "warning"]
    site = Site(url, token)
    with process(box(home, ["--ro-bind", str(home), str(home)], api, url), tmp_path / "log"):
        wait(lambda: answers(site), 60, "the API")
        assert (site.write(), site.call()) == (503, 503)
    with process(box(home, [], api, url), tmp_path / "log"):
        wait(lambda: answers(site), 60, "the API")
        assert (site.write(), site.call()) == (201, 202)
        assert site.created() == site.made
    site.http.close()


def answers(site: Site) -> bool:
    with contextlib.suppress(httpx.TransportError):
        return site.http.get("/healthz").is_success
    return False


WRITER = """
import sys
from app.db.session import Database
from app.services import principals
database = Database(sys.argv[1])
for number in range(int(sys.argv[3])):
    principals.create(database, f"{sys.argv[2]}-{number}", "auditor", "a test")
database.close()
"""


def test_four_processes_write_to_one_file_and_none_of_them_sees_an_error(tmp_path: Path) -> None:
    url, each = f"sqlite:///{tmp_path / 'headgate.db'}", 60
    upgrade(url)
    command = [sys.executable, "-c", WRITER, url]
    writers = [
        subprocess.Popen([*command, f"w{number}", str(each)], cwd=ROOT, env=dict(os.environ), stderr=subprocess.PIPE)
        for number in range(4)
    ]
    told = [writer.communicate(timeout=120)[1].decode() for writer in writers]
    assert [writer.returncode for writer in writers] == [0] * 4, told
    database = Database(url)
    leaves = trail.page(database, 0, 1000)
    names = {opening["value"] for leaf in leaves for opening in leaf["openings"]}
    assert names - {"a test"} == {f"w{number}-{one}" for number in range(4) for one in range(each)}
    assert trail.verify(database).verified
    database.close()


@pytest.mark.parametrize("kind", ["away", "folder"])
def test_a_file_that_cannot_be_opened_is_unavailable(tmp_path: Path, kind: str) -> None:
    home, url = tmp_path / "home", f"http://{LOOPBACK}:{free_port()}"
    file = tmp_path / "later" / "headgate.db"
    if kind == "folder":
        file.mkdir(parents=True)
    port = url.rpartition(":")[2]
    api = [sys.executable, "-m", "uvicorn", "app.main:app", "--port", port, "--log-level", "warning"]
    site = Site(url, "nobody's")
    with process(box(home, [], api, url, DATABASE_URL=f"sqlite:///{file}"), tmp_path / "log"):
        wait(lambda: answers(site), 60, "the API")
        assert_unavailable(site.http.get("/readyz"))
        assert (site.write(), site.call()) == (503, 503)
        # When it can be opened at last, the same process makes its first admin and works.
        if kind == "folder":
            file.rmdir()
        file.parent.mkdir(exist_ok=True)
        upgrade(f"sqlite:///{file}")
        wait((home / "admin.token").exists, 60, "the first admin")
        site.http.headers["Authorization"] = f"Bearer {(home / 'admin.token').read_text().strip()}"
        assert (site.write(), site.call()) == (201, 202)
    site.http.close()
