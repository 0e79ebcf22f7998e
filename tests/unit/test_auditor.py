"""An auditor without Headgate: an export, a proof and a key over HTTP, then an empty folder with the verifier alone."""

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.api.app import create_app
from app.db.session import Database
from app.domain.permissions import Role
from app.domain.policy import Rollout, default_policy
from app.services import principals, trail
from app.verifier import headgate_verify
from app.verifier.one_file import NAME, one_file
from tests.fakes import quick
from tests.plant import MODEL, World
from tests.serving import served

PACKAGE = Path(headgate_verify.__file__).parent
# Runs a script with nothing but the standard library and the packages in one folder; says which of those it took.
ALONE = """
import runpy, sys
sys.path.append(sys.argv[1])
sys.argv = sys.argv[2:]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
finally:
    outside = {name.partition(".")[0] for name in sys.modules} - sys.stdlib_module_names
    sys.stderr.write("MODULES " + " ".join(sorted(outside)) + "\\n")
"""


class Office:
    """The auditor's folder: the verifier, the packages that it needs, and whatever was downloaded."""

    def __init__(self, folder: Path) -> None:
        self.folder, self._packages = folder, folder / "packages"
        self._packages.mkdir(parents=True)
        (folder / NAME).write_bytes(one_file())
        for name in ("cryptography", "cffi", "_cffi_backend"):
            found = find_spec(name)
            if found is not None and found.origin is not None:
                source = Path(found.origin)
                source = source.parent if source.name == "__init__.py" else source
                (self._packages / source.name).symlink_to(source)

    def keep(self, name: str, data: bytes) -> str:
        (self.folder / name).write_bytes(data)
        return name

    def verify(self, *words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-I", "-S", "-c", ALONE, str(self._packages), NAME, *words]
        return subprocess.run(
            command, cwd=self.folder, env={}, capture_output=True, text=True, check=False, encoding="utf-8"
        )


class Service:
    """Headgate over HTTP, for one person of each role."""

    def __init__(self, world: World, http: httpx.Client) -> None:
        self.world, self._http = world, http
        self._tokens = {role: principals.create(world.database, f"the-{role}", role, "test") for role in Role}

    def ask(self, role: str, method: str, path: str, body: Any = None) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self._tokens[Role(role)]}"}
        answer = self._http.request(method, f"/api/v1{path}", headers=headers, json=body)
        assert answer.is_success, answer.text
        return answer

    def approved(self) -> tuple[int, dict[str, Any]]:
        """A promotion that was asked for, approved, and is live; and the answer to the approval."""
        wanted = {"model": MODEL, "version": "1", "environment": "production", "reason": "better"}
        number = self.ask("requester", "POST", "/promotions", wanted).json()["id"]
        digest = self.world.run(number)["digest"]
        decision = {"decision": "approve", "digest": digest, "reason": "the numbers hold"}
        answer = self.ask("reviewer", "POST", f"/promotions/{number}/approvals", decision).json()
        assert self.world.run(number)["state"] == "LIVE"
        return number, answer


@pytest.fixture
def service(database: Database, tmp_path: Path) -> Iterator[Service]:
    world = World(database, tmp_path)
    world.policies.known[MODEL] = quick(default_policy(MODEL), rollout=Rollout(soak=timedelta(0)))
    app = create_app(world.core, lambda *_: None, world.store)
    with served(app) as url, httpx.Client(base_url=url, trust_env=False) as http:
        yield Service(world, http)


def test_who_approved_which_bytes_is_proved_without_the_service(service: Service, tmp_path: Path) -> None:
    # Given a key that was noted when the trail began, and a promotion that was approved since,
    office = Office(tmp_path / "auditor")
    key = service.ask("auditor", "GET", "/audit/checkpoint").json()["keys"][0]
    number, answer = service.approved()
    trail.give_away(service.world.core, service.world.anchor)
    # when the auditor takes home what she was given,
    export = service.ask("auditor", "GET", "/audit/export").content
    anchor = office.keep("checkpoints.txt", (service.world.folder / "checkpoints").read_bytes())
    whole, proof = office.keep("trail.txt", export), office.keep("answer.json", json.dumps(answer).encode())
    # then the trail holds against the checkpoints from outside, with no module of Headgate's,
    held = office.verify("export", whole, "--key", key, "--anchor", anchor)
    assert held.returncode == 0 and "from outside" in held.stdout
    assert {"cryptography"} <= set(modules(held)) <= {"cryptography", "_openssl", "cffi", "_cffi_backend"}
    # and the answer proves the approval of just this digest: it is that line of the trail.
    proved = office.verify("proof", proof, "--key", key)
    leaf = json.loads(proved.stdout[: proved.stdout.index("\nThis is leaf")])
    assert (proved.returncode, leaf["kind"]) == (0, "approval")
    assert (leaf["body"]["promotion"], leaf["body"]["digest"]) == (number, answer["digest"])
    assert f" {answer['proof']['leaf']}\n".encode() in export


def test_what_was_changed_is_found_without_the_service(service: Service, tmp_path: Path) -> None:
    office = Office(tmp_path / "auditor")
    key = service.ask("auditor", "GET", "/audit/checkpoint").json()["keys"][0]
    before = service.ask("auditor", "GET", "/audit/export").content
    _, answer = service.approved()
    trail.give_away(service.world.core, service.world.anchor)
    true = service.ask("auditor", "GET", "/audit/export").content
    anchor = office.keep("checkpoints.txt", (service.world.folder / "checkpoints").read_bytes())
    asked = ("--key", key, "--anchor", anchor)
    number = answer["proof"]["seq"]
    for changed, words in (
        (true.replace(b'"decision":"approve"', b'"decision":"reject_"'), f"leaf {number} does not match its hash"),
        (b"".join(true.splitlines(keepends=True)[:-1]), "leaves and has"),
        (before, "leaves, the export only"),
        (b"\xff\xfe", "not text"),
        (b"", "no export"),
    ):
        found = office.verify("export", office.keep("trail.txt", changed), *asked)
        assert (found.returncode, found.stdout) == (1, "") and words in found.stderr, found.stderr
        assert "Traceback" not in found.stderr
    forged = {**answer["proof"], "leaf": answer["proof"]["leaf"].replace("approve", "reject_")}
    found = office.verify("proof", office.keep("answer.json", json.dumps(forged).encode()), "--key", key)
    assert found.returncode == 1 and f"leaf {number} is not in the trail" in found.stderr
    assert office.verify("export", "nothing.txt", *asked).returncode == 2
    assert office.verify("export", "trail.txt").returncode == 2


def test_the_verifier_asks_for_nothing_but_the_standard_library_and_cryptography() -> None:
    nodes = [node for file in PACKAGE.glob("*.py") for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))]
    assert all(node.level < 2 for node in nodes if isinstance(node, ast.ImportFrom))
    names = [node.module or "" for node in nodes if isinstance(node, ast.ImportFrom) and not node.level]
    names += [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    assert {name.partition(".")[0] for name in names} - sys.stdlib_module_names == {"cryptography"}


def modules(run: subprocess.CompletedProcess[str]) -> list[str]:
    """What it imported beside the standard library and the script itself."""
    (line,) = [line for line in run.stderr.splitlines() if line.startswith("MODULES ")]
    return [name for name in line.split()[1:] if name not in ("__main__", "__mp_main__", "headgate_verify")]
