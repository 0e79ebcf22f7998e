"""The bwrap command line: what exists inside the sandbox, and what the program is told about its limits."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

HOME = "/headgate"
READY = b"headgate sandbox ready\n"
"""What our own code writes first inside; without it, the sandbox was never set up."""

NOBODY = "65534"
THREADS = 2
_TMP = "/tmp"  # noqa: S108 - the sandbox's own, made anew for each run
_TMP_BYTES = 512 << 20
# The program's package is put on the path by hand: without `site`, no .pth file and no user folder has a say.
_BOOTSTRAP = (
    f"import os, sys; os.write(2, {READY!r}); sys.path += ['{HOME}', *sys.argv[3:]];"
    "from sandbox.__main__ import main; main(sys.argv[1], sys.argv[2])"
)
_ENVIRONMENT = {
    "HOME": _TMP,
    "TMPDIR": _TMP,
    "LC_ALL": "C.UTF-8",
    # The same model gives the same bytes of ONNX at every try.
    "PYTHONHASHSEED": "0",
    # Each thread and each arena reserves address space, which is what the memory limit counts.
    "OMP_NUM_THREADS": str(THREADS),
    "OPENBLAS_NUM_THREADS": str(THREADS),
    "LOKY_MAX_CPU_COUNT": str(THREADS),
    "MALLOC_ARENA_MAX": "2",
    "ORT_DISABLE_TELEMETRY": "1",
    # Its semaphores need a writable /dev/shm, and no process can be started here anyway.
    "JOBLIB_MULTIPROCESSING": "0",
}


@dataclass(frozen=True)
class Interpreter:
    """What Python needs: its real program file, the prefix of its standard library, the folders of its packages."""

    executable: Path
    base_prefix: Path
    site_packages: Sequence[Path]


@dataclass(frozen=True)
class Limits:
    """What the program may use: MiB of address space, CPU seconds over all threads, MiB of one written file."""

    memory_mib: int
    cpu_seconds: int
    file_mib: int

    def as_json(self) -> str:
        return json.dumps({"memory_mib": self.memory_mib, "cpu_seconds": self.cpu_seconds, "file_mib": self.file_mib})


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
        *("--cap-drop", "ALL", "--uid", NOBODY, "--gid", NOBODY, "--hostname", "sandbox"),
        *_python_mounts(python, sites),
        *("--ro-bind", str(mounts.program_folder), f"{HOME}/sandbox"),
        *("--proc", "/proc", "--dev", "/dev", "--size", str(_TMP_BYTES), "--tmpfs", _TMP),
        *(word for name, path in mounts.inputs.items() for word in ("--ro-bind", str(path), f"/in/{name}")),
        *("--ro-bind-data", str(mounts.request_fd), "/in/request.json"),
        *("--bind", str(mounts.output), "/out"),
        # The root and /dev are memory file systems of no particular size: what is written there, nobody counts. And
        # where bwrap runs as root, /proc/sys answers to the host's root without any capability, core_pattern included.
        *("--remount-ro", "/dev", "--remount-ro", "/proc", "--remount-ro", "/", "--chdir", _TMP),
        *(word for name, value in _ENVIRONMENT.items() for word in ("--setenv", name, value)),
        *("--seccomp", str(mounts.filter_fd), "--"),
        *(str(python.executable), "-s", "-S", "-P", "-B", "-X", "faulthandler", "-c", _BOOTSTRAP),
        *(program, limits.as_json(), *sites),
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
