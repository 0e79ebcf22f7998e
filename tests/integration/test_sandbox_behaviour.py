"""Both sandboxes for real: programs that try to get out, to take too much or to answer nonsense; each says the same."""

import shutil
import textwrap
import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from app.domain.errors import Fault, Rejected
from app.ports import Sandbox, SandboxJob

PROGRAMS = Path(__file__).parents[2] / "workers" / "sandbox"

Runner = Callable[..., Mapping[str, Any]]


@pytest.fixture
def run(tmp_path: Path, new_sandbox: Callable[[Path, int], Sandbox]) -> Runner:
    """Runs the body of a program's `run(request, inputs, output)` in the sandbox."""

    def run_body(body: str, request: Mapping[str, Any] | None = None, **options: Any) -> Mapping[str, Any]:
        folder = tmp_path / "programs"
        shutil.copytree(PROGRAMS, folder)
        code = "import ctypes, mmap, os, socket, sys, threading, time\n\ndef run(request, inputs, output):\n"
        (folder / "scan.py").write_text(code + textwrap.indent(textwrap.dedent(body), "    "))
        (tmp_path / "out").mkdir()
        given = {"timeout": timedelta(seconds=20), "memory_mib": 1024, "inputs": {}, **options}
        return new_sandbox(folder, 64).run(SandboxJob("scan", request=request or {}, output=tmp_path / "out", **given))

    return run_body


def test_a_program_gets_its_request_and_inputs_and_leaves_files(run: Runner, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("a\n1\n")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "MLmodel").write_text("x")

    result = run(
        """
        (output / "made.bin").write_bytes(b"made")
        return {"asked": request, "rows": (inputs / "rows").read_text(), "model": os.listdir(inputs / "model"),
                "uid": os.getuid(), "environment": sorted(os.environ)}
        """,
        {"seed": 7},
        inputs={"rows": tmp_path / "rows.csv", "model": tmp_path / "model"},
    )

    assert result["asked"] == {"seed": 7}
    assert (result["rows"], result["model"], result["uid"]) == ("a\n1\n", ["MLmodel"], 65534)
    assert not {"PATH", "USER", "PYTEST_CURRENT_TEST"} & set(result["environment"])
    assert (tmp_path / "out" / "made.bin").read_bytes() == b"made"


def test_a_job_brings_its_own_packages(run: Runner, tmp_path: Path) -> None:
    """They are there instead of Headgate's own, and the program is still Headgate's."""
    (tmp_path / "packages").mkdir()
    (tmp_path / "packages" / "numpy.py").write_text("__version__ = '0.1'")
    body = """
        import numpy
        missing = [name for name in ("onnx", "sklearn") if not __import__("importlib.util").util.find_spec(name)]
        try:
            open(numpy.__file__, "w")
        except OSError:
            return {"numpy": numpy.__version__, "missing": missing, "program": __name__}
        """

    result = run(body, environment=tmp_path / "packages")

    assert result == {"numpy": "0.1", "missing": ["onnx", "sklearn"], "program": "sandbox.scan"}


def test_packages_that_are_gone_are_our_fault(tmp_path: Path, new_sandbox: Callable[[Path, int], Sandbox]) -> None:
    job = SandboxJob("scan", {}, {}, tmp_path, environment=tmp_path / "no-packages")
    with pytest.raises(Fault, match="are gone"):
        new_sandbox(PROGRAMS, 64).run(job)


def test_no_socket_but_unix_ones(run: Runner) -> None:
    result = run(
        """
        refused = []
        for family in (socket.AF_INET, socket.AF_INET6, socket.AF_NETLINK, socket.AF_PACKET, socket.AF_VSOCK):
            try:
                socket.socket(family, socket.SOCK_STREAM if family != socket.AF_PACKET else socket.SOCK_RAW)
            except PermissionError:
                refused.append(int(family))
        a, b = socket.socketpair()
        interfaces = os.listdir("/sys/class/net") if os.path.exists("/sys/class/net") else []
        return {"refused": len(refused), "interfaces": sorted({*interfaces} - {"lo"})}
        """
    )
    # `refused` is also how a program says that the model is at fault, so that the number comes through as it is.
    assert result == {"refused": 5, "interfaces": []}


def test_no_host_file_is_there(run: Runner, tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("secret")

    result = run(
        """
        paths = [request["secret"], "/etc/passwd", "/bin/sh", "/usr/bin/env", "/var", "/run"]
        return {"found": [path for path in paths if os.path.exists(path)], "root": sorted(os.listdir("/"))}
        """,
        {"secret": str(tmp_path / "secret.txt")},
    )

    assert result["found"] == []
    assert {"in", "out", "headgate", "usr", "proc", "dev", "tmp"} <= set(result["root"])


def test_a_fork_bomb_does_not_even_start(run: Runner) -> None:
    with pytest.raises(Rejected, match="PermissionError"):
        run("while True: os.fork()")


def test_a_thread_bomb_ends_in_its_own_memory(run: Runner) -> None:
    with pytest.raises(Rejected, match=r"thread|memory"):
        run(
            """
            while True:
                threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
            """
        )


def test_a_bomb_of_small_threads_is_stopped(run: Runner) -> None:
    """Where bwrap runs as root no limit of the kernel counts them, and small stacks take no memory to speak of."""
    with pytest.raises(Rejected, match=r"threads without end|can't start new thread"):
        run(
            """
            threading.stack_size(64 << 10)
            for _ in range(3000):
                threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
                time.sleep(0.0005)
            """
        )


@pytest.mark.parametrize(
    "body",
    [
        "blob = bytearray(4 << 30)",
        "shared = mmap.mmap(-1, 4 << 30); shared.write(b'x' * (4 << 30))",
        "blobs = []\nwhile True: blobs.append(bytearray(1 << 24))",
    ],
)
def test_memory_is_limited(run: Runner, body: str) -> None:
    with pytest.raises(Rejected, match="1024 MiB") as caught:
        run(body)
    assert "smaller" in caught.value.remedy


def test_memory_that_no_limit_counts_is_out_of_reach(run: Runner) -> None:
    result = run(
        """
        libc, refused = ctypes.CDLL(None, use_errno=True), []
        for name, call in {"memfd": lambda: os.memfd_create("x"), "shm": lambda: open("/dev/shm/x", "w"),
                           "root": lambda: open("/x", "w"), "dev": lambda: open("/dev/x", "w")}.items():
            try:
                call()
            except OSError:
                refused.append(name)
        if libc.shmget(0, 1 << 20, 0o1600) == -1:
            refused.append("shmget")
        return {"names": refused}
        """
    )

    assert result["names"] == ["memfd", "shm", "root", "dev", "shmget"]


def test_the_wall_clock_ends_a_run(run: Runner) -> None:
    start = time.monotonic()
    with pytest.raises(Rejected, match=r"longer than 1\.5 s") as caught:
        run("time.sleep(600)", timeout=timedelta(seconds=1.5))

    assert caught.value.remedy
    assert time.monotonic() - start < 60


def test_a_program_that_closes_its_output_is_still_watched(run: Runner) -> None:
    with pytest.raises(Rejected, match="longer than 2 s"):
        run("os.close(1); os.close(2); time.sleep(600)", timeout=timedelta(seconds=2))


def test_endless_printing_is_stopped(run: Runner) -> None:
    with pytest.raises(Rejected, match="printed without end"):
        run("while True: print('x' * 100_000)")


@pytest.mark.parametrize(
    ("body", "word"),
    [
        ("for n in range(9999): (output / str(n)).mkdir(); time.sleep(0.001)", "wrote too much"),
        ("for n in range(9999):\n  with open(output / str(n), 'wb') as f: f.write(bytes(1 << 24))", "wrote too much"),
        ("(output / 'large').touch(); os.truncate(output / 'large', 1 << 40)", "File too large|SIGXFSZ"),
        ("for n in range(99): open(f'/tmp/{n}', 'wb').write(bytes(60 << 20))", "No space left"),
    ],
)
def test_the_disk_is_limited(run: Runner, body: str, word: str) -> None:
    with pytest.raises(Rejected, match=word):
        run(body)


@pytest.mark.parametrize(
    ("body", "word"),
    [
        ("raise RuntimeError('the tree is not fitted')", "the tree is not fitted"),
        ("ctypes.string_at(0)", "SIGSEGV"),
        ("os.abort()", "SIGABRT"),
        ("os._exit(3)", "status 3"),
        ("os._exit(0)", "cannot be opened"),
        ("return {'x': float('nan')}", "not JSON compliant"),
        ("os.symlink('/etc/passwd', output / 'result.json'); os._exit(0)", "no plain file"),
        ("os.symlink('/etc', output / 'folder'); return {}", "no plain file"),
        ("(output / 'a').write_text(''); os.link(output / 'a', output / 'b'); return {}", "no plain file"),
        ("os.mkfifo(output / 'result.json'); os._exit(0)", "no plain file"),
        ("(output / 'result.json').mkdir(); os._exit(0)", "no regular file"),
        ("(output / 'result.json').write_text('[' * 99999 + ']' * 99999); os._exit(0)", "deeper"),
        ("(output / 'result.json').write_text('{\"a\": NaN}'); os._exit(0)", "not a number"),
        ("(output / 'result.json').write_text('{\"a\": 1e999}'); os._exit(0)", "too large"),
        ("(output / 'result.json').write_text('{\"a\": ' + '9' * 9999 + '}'); os._exit(0)", "valid JSON"),
        ("(output / 'result.json').write_text('[]'); os._exit(0)", "not a JSON object"),
        ("(output / 'result.json').write_bytes(b'\\xff'); os._exit(0)", "UTF-8"),
        ("(output / 'result.json').write_bytes(b' ' * (9 << 20)); os._exit(0)", "larger than"),
    ],
)
def test_crashes_and_nonsense_are_the_models_fault(run: Runner, body: str, word: str) -> None:
    with pytest.raises(Rejected, match=word) as caught:
        run(body)

    assert caught.value.remedy
    assert caught.value.reason.isprintable()


def test_signals_reach_nobody_outside(run: Runner) -> None:
    result = run(
        """
        try:
            os.kill(request["pid"], 0)
            return {"reached": True}
        except ProcessLookupError:
            return {"reached": False}
        """,
        {"pid": 4_000_000 - 1},
    )
    assert result == {"reached": False}


@pytest.mark.parametrize("name", ["../x", "a/b", "X", ""])
def test_odd_input_names_are_our_fault(tmp_path: Path, new_sandbox: Callable[[Path, int], Sandbox], name: str) -> None:
    with pytest.raises(Fault, match="oddly named"):
        new_sandbox(PROGRAMS, 64).run(SandboxJob("scan", {name: tmp_path}, {}, tmp_path))
