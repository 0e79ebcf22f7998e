"""What a tritonserver from the nvidia-pytriton wheel needs around it: a backend folder, libraries, an environment.

Its python backend carries our stand-in for NVIDIA's C++ onnxruntime backend. The stub that runs it embeds a libpython
of the same minor version as `python`, starts it isolated (PYTHONPATH does not reach it) and reads NumPy 1 only.
"""

import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.domain.errors import Fault

_INSTALL = "Install requirements-triton.lock with `pip install --no-deps --target <folder>` and name that folder."

_PROBE = """
import ctypes, importlib.util, json, pathlib, sys, sysconfig
version = f"{sys.version_info[0]}.{sys.version_info[1]}"
soname, libdir = f"libpython{version}.so.1.0", sysconfig.get_config_var("LIBDIR")
own = bool(libdir) and pathlib.Path(libdir, soname).exists()
found = own
if not own:
    try:
        ctypes.CDLL(soname)
        found = True
    except OSError:
        pass
onnxruntime = importlib.util.find_spec("onnxruntime")
print(json.dumps({
    "version": version,
    "soname": soname,
    "found": found,
    "libdir": libdir if own else None,
    "prefix": sys.base_prefix,
    "packages": str(pathlib.Path(onnxruntime.origin).parent.parent) if onnxruntime else None,
}))
"""

# Settings of the machine that Triton itself reads. Nothing else of ours is handed on: Triton needs no credentials.
_INHERITED = ("CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES", "TMPDIR", "TZ")


@dataclass(frozen=True)
class Runtime:
    """A tritonserver that can be started: the program, its backend folder and its environment."""

    program: Path
    backends: Path
    environment: dict[str, str]


def prepare(home: Path, triton: Path, backend: Path, python: Path) -> Runtime:
    """Make the backend folder below `home`, once for each content, and return all that a start needs.

    `triton` is the folder into which requirements-triton.lock was installed, `backend` our backend's model.py and
    `python` the interpreter whose onnxruntime serves.

    Raises:
        Fault: a part is missing; the remedy says how to get it.
    """
    server = triton / "pytriton" / "tritonserver"
    program = server / "bin" / "tritonserver"
    if not program.is_file():
        raise Fault(f"There is no tritonserver at {program}.", _INSTALL)
    if not (triton / "numpy").is_dir():
        raise Fault(f"There is no NumPy 1 in {triton}, which Triton's Python stub needs.", _INSTALL)
    facts = _look_at(python)
    stub = server / "python_backend_stubs" / facts["version"] / "triton_python_backend_stub"
    if not stub.is_file():
        raise Fault(f"Triton has no stub for Python {facts['version']}.", "Run Headgate with Python 3.11 or 3.12.")
    # pip, other than uv, leaves a folder of compiled files among the backend's own.
    parts = sorted(part for part in (server / "backends" / "python").iterdir() if part.is_file())
    backends = _backend_folder(home, [*parts, stub], backend)
    return Runtime(program, backends, _environment(triton, facts))


def _look_at(python: Path) -> dict[str, Any]:
    """Ask the interpreter for its version, its shared library and where its onnxruntime lies."""
    try:
        done = subprocess.run([str(python), "-I", "-c", _PROBE], capture_output=True, text=True, timeout=60, check=True)
        facts: dict[str, Any] = json.loads(done.stdout)
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        raise Fault(f"{python} does not run: {error}", "Name a Python interpreter that runs.") from error
    if not facts["found"]:
        library = f"libpython{facts['version']}"
        raise Fault(
            f"Triton's Python stub needs {facts['soname']}.", f"On Debian or Ubuntu: apt-get install {library}."
        )
    if facts["packages"] is None:
        raise Fault(f"{python} has no onnxruntime.", "Install requirements.lock for it.")
    return facts


def _backend_folder(home: Path, python_parts: list[Path], backend: Path) -> Path:
    """`<home>/backends/<digest>/{python,onnxruntime}`. Its name covers its content, so running servers keep theirs."""
    digest = hashlib.sha256()
    for part in (*python_parts, backend):
        digest.update(part.name.encode() + part.read_bytes())
    ready = home / "backends" / digest.hexdigest()[:12]
    if ready.is_dir():
        return ready
    ready.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(dir=ready.parent, prefix=".draft-"))
    for name, parts in {"python": python_parts, "onnxruntime": [backend]}.items():
        (draft / name).mkdir()
        for part in parts:
            shutil.copy2(part, draft / name)
    draft.chmod(0o755)
    try:
        draft.rename(ready)
    except OSError:
        # Another process was quicker. Its folder has the same content, for the name says so.
        shutil.rmtree(draft)
    return ready


def _environment(triton: Path, facts: dict[str, Any]) -> dict[str, str]:
    libraries, programs = [str(triton / "nvidia_pytriton.libs")], ["/usr/local/bin", "/usr/bin", "/bin"]
    if facts["libdir"]:
        # The interpreter brings its own libpython, which finds its standard library by the python3 on the PATH.
        libraries.append(facts["libdir"])
        programs.insert(0, str(Path(facts["prefix"]) / "bin"))
    inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    return inherited | {
        "PATH": os.pathsep.join(programs),
        "LD_LIBRARY_PATH": os.pathsep.join(libraries),
        "HEADGATE_PYTHON_PATH": os.pathsep.join((str(triton), facts["packages"])),
        "LANG": "C.UTF-8",
        # NumPy's own thread pool is never used here and would only slow the start.
        "OPENBLAS_NUM_THREADS": "1",
        # ONNX Runtime would otherwise start a thread that reports to its makers.
        "ORT_DISABLE_TELEMETRY": "1",
    }
