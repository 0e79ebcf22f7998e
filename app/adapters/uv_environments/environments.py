"""The `Environments` in a folder: found by what was asked for; a crash leaves nothing or the whole.

Layout below the root::

    requests/<hex>.json          which environment was built for a request, by the request's digest
    built/<hex>/lock.txt         every package with version and hashes; the environment's digest covers it
    built/<hex>/packages.json    versions by name
    built/<hex>/site/            what is mounted in the sandbox
    building/                    unfinished ones: renamed into place when complete, or swept a day later
    turns/<hex>.lock             held by the worker that builds for a request
    cache/                       what uv has downloaded
"""

import contextlib
import errno
import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path

from app import failpoints
from app.adapters.uv_environments.uv import Uv
from app.domain.digests import digest_json
from app.domain.environments import Wanted
from app.domain.errors import Fault
from app.ports import Environment

INTERPRETER = f"{sys.implementation.cache_tag} {sysconfig.get_platform()}"
_PINNED = re.compile(r"^([a-z0-9-]+)==([^\s;]+)", re.M)
_KEPT = timedelta(days=30)
_MOST = 20
_DEAD = timedelta(days=1)
# Longer than any job that was given an environment just now.
_IN_USE = timedelta(hours=1)
_COMPILE_SECONDS = 600


class UvEnvironments:
    """Environments below one folder; several processes may use it at once. When one is built, those go that nobody has
    asked for in 30 days, and of more than 20 the ones that were not asked for longest."""

    def __init__(self, root: Path, uv: Uv) -> None:
        self._root, self._uv = root.absolute(), uv

    def find(self, wanted: Wanted) -> Environment | None:
        """What was built for this request before. Raises Fault where the folder cannot be read."""
        with self._our_fault():
            request = self._request(wanted)
            try:
                digest = json.loads(request.read_text())["environment"]
                found = self._environment(digest)
            except FileNotFoundError:
                return None
            for used in (request, self._home(digest)):
                os.utime(used)
        return found

    def build(self, wanted: Wanted) -> Environment:
        """Build the environment, unless another worker has done so meanwhile.

        Raises:
            Rejected: there is no such set of packages.
            Transient: the package index is away.
            Fault: uv or the disk does not do its work.
        """
        with self._our_fault(), self._turn(wanted):
            found = self.find(wanted)
            if found is not None:
                return found
            self._sweep()
            with self._draft() as draft:
                digest = self._make(wanted, draft)
            return self._environment(digest)

    def _make(self, wanted: Wanted, draft: Path) -> str:
        lock = self._uv.resolve(wanted.requirements, wanted.preferred, draft)
        digest = digest_json({"lock": lock, "interpreter": INTERPRETER})
        home = self._home(digest)
        if not home.exists():  # Another request may come down to the same packages.
            ready = draft / "ready"
            ready.mkdir()
            (ready / "lock.txt").write_text(lock)
            (ready / "packages.json").write_text(json.dumps(dict(_PINNED.findall(lock))))
            self._uv.install(ready / "lock.txt", ready / "site")
            _compile(ready / "site")
            os.sync()  # thousands of files: so that a power cut after the rename cannot empty any
            self._settle(ready, home)
        note = draft / "request.json"
        note.write_text(json.dumps({"environment": digest, "requirements": list(wanted.requirements)}))
        self._request(wanted).parent.mkdir(exist_ok=True)
        note.rename(self._request(wanted))
        return digest

    @staticmethod
    def _settle(ready: Path, home: Path) -> None:
        home.parent.mkdir(exist_ok=True)
        try:
            with failpoints.around("environments.settle"):
                ready.rename(home)
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                raise

    def _environment(self, digest: str) -> Environment:
        home = self._home(digest)
        packages: Mapping[str, str] = json.loads((home / "packages.json").read_text())
        return Environment(digest, home / "site", packages)

    def _request(self, wanted: Wanted) -> Path:
        return self._root / "requests" / f"{_hex(wanted.digest(INTERPRETER))}.json"

    def _home(self, digest: str) -> Path:
        return self._root / "built" / _hex(digest)

    @contextlib.contextmanager
    def _turn(self, wanted: Wanted) -> Iterator[None]:
        """Wait until nobody else builds for this request. The kernel ends the turn of a worker that dies."""
        folder = self._root / "turns"
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / f"{_hex(wanted.digest(INTERPRETER))}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    @contextlib.contextmanager
    def _draft(self) -> Iterator[Path]:
        building = self._root / "building"
        building.mkdir(exist_ok=True)
        folder = Path(tempfile.mkdtemp(dir=building))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _sweep(self) -> None:
        """Remove what died half-built, what nobody has used for long, and what is too much."""
        for path in _aged(self._root / "building", _DEAD):
            shutil.rmtree(path, ignore_errors=True)
        built = sorted(_aged(self._root / "built", _IN_USE), key=lambda path: path.lstat().st_mtime)
        too_many = built[: max(0, len(built) - _MOST)]
        old = [*_aged(self._root / "built", _KEPT), *_aged(self._root / "requests", _KEPT)]
        for path in dict.fromkeys([*too_many, *old]):
            # Under its name it is whole or not there, also for a worker that looks right now.
            with contextlib.suppress(FileNotFoundError), self._draft() as draft:
                path.rename(draft / "old")

    @contextlib.contextmanager
    def _our_fault(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError, KeyError) as error:
            told = f"The models' environments in {self._root} cannot be used: {error}"
            raise Fault(told, "Check the disk; the folder may be removed, it is made anew.") from error


def _aged(folder: Path, age: timedelta) -> list[Path]:
    """What was not touched for that long."""
    found = []
    for path in folder.glob("*"):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - path.lstat().st_mtime > age.total_seconds():
                found.append(path)
    return found


def _compile(site: Path) -> None:
    """Compile what programs import, once: the folder is read-only where it is used, so that nobody could keep it."""
    # -I: of this folder nothing is imported, and so nothing runs.
    command = [sys.executable, "-I", "-m", "compileall", "-q", "-j", "0", "-x", r"/tests?/", str(site)]
    # It only saves time: files for other versions of Python do not compile, and that is no failure.
    with contextlib.suppress(subprocess.TimeoutExpired):
        subprocess.run(
            command, env={}, stdin=subprocess.DEVNULL, capture_output=True, timeout=_COMPILE_SECONDS, check=False
        )


def _hex(digest: str) -> str:
    return digest.rpartition(":")[2]
