"""Calling uv: it resolves and installs wheels, nothing in them runs; its words are put down to whose fault it is."""

import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from app.domain.errors import Fault, HeadgateError, Rejected, Transient

RESOLVE_SECONDS, INSTALL_SECONDS = 180.0, 900.0
# Wheels only: whatever is built from source runs its own code while it is built.
_WHEELS = ("--only-binary", ":all:", "--no-progress")
# What uv needs of ours besides its own variables. The rest, secrets among it, is none of its business.
_PASSED = frozenset(
    ["PATH", "HOME", "LANG", "NETRC", "TMPDIR", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_CONFIG_DIRS", "XDG_DATA_HOME"]
)
_PASSED_PROXY = frozenset({"http_proxy", "https_proxy", "all_proxy", "no_proxy"})
# GPU libraries of hundreds of megabytes that these wheels load only where there is a GPU; the sandbox has none.
_LEFT_OUT = "".join(f"{name} ; python_version < '3'\n" for name in ("nvidia-nccl-cu12", "nvidia-nccl-cu13"))
_LONGEST = 700
_INDEX_REMEDY = "It is tried again; see uv's own configuration and HEADGATE_ENVIRONMENT_INDEX."


class Uv:
    """One installation of uv, which works for the interpreter that runs this."""

    def __init__(self, cache: Path, index: str = "", program: Path | None = None) -> None:
        """`cache` keeps what was downloaded, unless the environment variable UV_CACHE_DIR names another place; `index`
        is the address of the only package index to ask, and empty what uv itself is configured for."""
        self._cache, self._index, self._program = cache, index, program

    def version(self) -> str:
        """uv's own name and version. Raises Fault where it is missing."""
        return self._run(["--version"], Path.cwd(), 30)

    def resolve(self, requirements: Iterable[str], preferred: Mapping[str, str], folder: Path) -> str:
        """The lock of a set, each version with its hashes; `folder` is an empty one to work in.

        Raises:
            Rejected: there is no such set for this Python.
            Transient: the index is away.
            Fault: uv is missing or cannot work.
        """
        (folder / "wanted.txt").write_text("".join(f"{line}\n" for line in requirements))
        (folder / "left-out.txt").write_text(_LEFT_OUT)
        # uv keeps to the versions of the file that it is to write, where they fit.
        lock = folder / "lock.txt"
        lock.write_text("".join(f"{name}=={version}\n" for name, version in sorted(preferred.items())))
        options = ["--override", "left-out.txt", "--generate-hashes", "--no-header", "--no-annotate", "--quiet"]
        command = ["pip", "compile", "wanted.txt", "-o", lock.name, "--python", sys.executable, *_WHEELS, *options]
        self._run(command, folder, RESOLVE_SECONDS)
        return lock.read_text()

    def install(self, lock: Path, site: Path) -> None:
        """Install what the lock says, and nothing else, into the new folder `site`, checked against its hashes.

        Raises:
            Transient: the index is away.
            Fault: uv is missing or cannot work, or the index has other files by now.
        """
        options = ["--no-deps", "--require-hashes", "--quiet"]
        command = ["pip", "install", "--target", str(site), "--python", sys.executable, *_WHEELS, *options]
        try:
            self._run([*command, "-r", str(lock)], lock.parent, INSTALL_SECONDS)
        except Rejected as error:  # It could be resolved, so that this is not for the model to mend.
            raise Fault(error.reason, _INDEX_REMEDY) from error

    def _run(self, arguments: Sequence[str], folder: Path, seconds: float) -> str:
        try:
            done = subprocess.run(
                [str(self._program or _find()), *arguments],
                cwd=folder,
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=seconds,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise Transient(f"uv did not end within {seconds:g} s.", _INDEX_REMEDY) from None
        except OSError as error:
            raise Fault(f"uv cannot be run: {error}", "Install all of Headgate: uv is a part of it.") from error
        if done.returncode:
            raise judge(done.stderr, offline="UV_OFFLINE" in os.environ)
        return done.stdout.strip()

    def _environment(self) -> dict[str, str]:
        kept = {
            name: value
            for name, value in os.environ.items()
            if name in _PASSED or name.startswith(("UV_", "SSL_CERT_")) or name.lower() in _PASSED_PROXY
        }
        if self._index:
            kept = {name: value for name, value in kept.items() if "INDEX" not in name and name != "UV_FIND_LINKS"}
            kept["UV_DEFAULT_INDEX"] = self._index
        return {"UV_CACHE_DIR": str(self._cache), **kept, "NO_COLOR": "1", "UV_PYTHON_DOWNLOADS": "never"}


def judge(said: str, offline: bool = False) -> HeadgateError:
    """The error that uv's words stand for. What is missing while uv is told to be `offline` may exist all the same."""
    low, words = said.lower(), _words(said)
    if "no space left" in low or "os error 28" in low or "quota exceeded" in low:
        return Fault("There is no room on the disk for the model's environment.", "Make room in HEADGATE_HOME.")
    if "network was disabled" in low or (offline and "no solution found" in low):
        return Transient("uv is offline (UV_OFFLINE), and this set of packages was not built before.", _INDEX_REMEDY)
    if "authentication credentials" in low or re.search(r"\b40[137] (unauthorized|forbidden|proxy)", low):
        return Fault(f"The package index wants other credentials: {words}", _INDEX_REMEDY)
    if "no solution found" in low:
        return _unsolvable(low, words)
    if re.search(r"fail\w* to (fetch|download)|error sending request|request failed|connect|dns error|timed out", low):
        return Transient(f"The package index does not answer: {words}", _INDEX_REMEDY)
    return Fault(f"uv cannot build the model's environment: {words}", "See uv's own configuration.")


def _unsolvable(low: str, words: str) -> Rejected:
    version = ".".join(platform.python_version_tuple()[:2])
    if "usable wheels" in low or "wheels are required" in low or "no wheels" in low:
        return Rejected(
            f"The model's packages cannot be installed for Python {version}, which Headgate runs on, without building "
            f"them from source: {words}",
            f"Train and log the model with versions that have wheels for Python {version}.",
        )
    return Rejected(
        f"No set of packages fits what the model was logged with on Python {version}: {words}",
        "Log the model with versions that exist and fit together.",
    )


def _words(said: str) -> str:
    """What uv said, on one line and short; addresses may hold a password and are left out."""
    text = re.sub(r"\w+://\S+", "<address>", said)
    text = re.sub(r"^\s*(error|cause|hint):\s*(No solution found when resolving dependencies:?)?", "", text, flags=re.M)
    text = "".join(c if c.isascii() and c.isprintable() else " " for c in text)
    text = " ".join(text.split()).removeprefix("No solution found when resolving dependencies:").strip()
    return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."


def _find() -> str:
    """The uv that was installed with Headgate, else the one on the path."""
    beside = Path(sys.executable).with_name("uv")
    found = str(beside) if beside.exists() else shutil.which("uv")
    if found is None:
        raise Fault("uv, which builds models' environments, is not installed.", "Install all of Headgate.")
    return found
