"""The bwrap command line: what exists inside the sandbox, and what the program is told about its limits."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from app.sandbox.program import ENVIRONMENT, HOME, NOBODY, TMP, TMP_BYTES, Limits, python_words


@dataclass(frozen=True)
class Interpreter:
    """What Python needs: its real program file, the prefix of its standard library, the folders of its packages."""

    executable: Path
    base_prefix: Path
    site_packages: Sequence[Path]


@dataclass(frozen=True)
class Mounts:
    """What one run sees besides Python: the programs, the inputs by name, the output; two open descriptors."""

    program_folder: Path
    inputs: Mapping[str, Path]
    output: Path
    request_fd: int
    filter_fd: int


def bwrap_command(bwrap: str, python: Interpreter, mounts: Mounts, program: str, limits: Limits) -> list[str]:
    """The whole command line; `program` is a module of the mounted package."""
    sites = [f"{HOME}/site{number}" for number, _ in enumerate(python.site_packages)]
    return [
        bwrap,
        *("--unshare-all", "--die-with-parent", "--new-session", "--clearenv"),
        *("--cap-drop", "ALL", "--uid", str(NOBODY), "--gid", str(NOBODY), "--hostname", "sandbox"),
        *_python_mounts(python, sites),
        *("--ro-bind", str(mounts.program_folder), f"{HOME}/sandbox"),
        *("--proc", "/proc", "--dev", "/dev", "--size", str(TMP_BYTES), "--tmpfs", TMP),
        *(word for name, path in mounts.inputs.items() for word in ("--ro-bind", str(path), f"/in/{name}")),
        *("--ro-bind-data", str(mounts.request_fd), "/in/request.json"),
        *("--bind", str(mounts.output), "/out"),
        # The root and /dev are memory file systems of no particular size: what is written there, nobody counts. And
        # where bwrap runs as root, /proc/sys answers to the host's root without any capability, core_pattern included.
        *("--remount-ro", "/dev", "--remount-ro", "/proc", "--remount-ro", "/", "--chdir", TMP),
        *(word for name, value in ENVIRONMENT.items() for word in ("--setenv", name, value)),
        *("--seccomp", str(mounts.filter_fd), "--"),
        *python_words(str(python.executable), program, limits, sites),
    ]


def _python_mounts(python: Interpreter, sites: Sequence[str]) -> Iterator[str]:
    """The C library, Python itself and its packages, all read-only; no shell and no tools."""
    if python.base_prefix == Path("/usr"):
        yield from ("--ro-bind", "/usr", "/usr")
    for folder in map(Path, ("/usr/lib", "/usr/lib64", "/lib", "/lib64")):
        if folder.is_symlink():
            yield from ("--symlink", str(folder.readlink()), str(folder))
        elif folder.is_dir() and not (python.base_prefix == Path("/usr") and folder.is_relative_to("/usr")):
            yield from ("--ro-bind", str(folder), str(folder))
    if python.base_prefix != Path("/usr"):
        yield from ("--ro-bind", str(python.base_prefix), str(python.base_prefix))
    yield from ("--ro-bind-try", "/etc/ld.so.cache", "/etc/ld.so.cache")
    for folder, site in zip(python.site_packages, sites, strict=True):
        yield from ("--ro-bind", str(folder), site)
