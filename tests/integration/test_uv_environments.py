"""Models' own environments: uv's answers and failures by a stand-in for it; and one set that is built for real,
converted in the real sandbox, and used again without an index."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.adapters.bwrap import BwrapSandbox
from app.adapters.uv_environments import Uv, UvEnvironments
from app.adapters.uv_environments.uv import judge
from app.db.session import Database
from app.domain.environments import ALLOWED, Wanted
from app.domain.errors import Fault, Rejected, Transient
from tests.plant import FAST, MODEL, World
from workers.runner import Runner

PROGRAMS = Path(__file__).parents[2] / "workers" / "sandbox"
OLDER = "1.8.0"
DEAD_INDEX = "http://127.0.0.1:9/simple"
WANTED = Wanted(("numpy==2.0.0",), {"onnx": "1.23.0"})

# Notes each call, and does what the files beside it say.
STAND_IN = """
    #!{python}
    import pathlib, sys, time, os
    here = pathlib.Path(__file__).parent
    with (here / "calls").open("a") as calls:
        calls.write(sys.argv[2] + chr(10))
    if (here / "words").exists():
        sys.exit((here / "words").read_text())
    if sys.argv[2] == "compile":
        (here / "asked").write_text(pathlib.Path("wanted.txt").read_text())
        (here / "environment").write_text(chr(10).join(sorted(os.environ)))
        pathlib.Path("lock.txt").write_text("numpy==2.0.0 --hash=sha256:00" + chr(10))
    else:
        site = pathlib.Path(sys.argv[sys.argv.index("--target") + 1])
        site.mkdir()
        (site / "half.py").write_text("x = 1")
        (here / "installing").touch()
        while (here / "slow").exists():
            time.sleep(0.01)
        (site / "whole.py").write_text("x = 2")
"""


@pytest.fixture
def stand_in(tmp_path: Path) -> Path:
    program = tmp_path / "stand-in" / "uv"
    program.parent.mkdir()
    program.write_text(textwrap.dedent(STAND_IN).strip().replace("{python}", sys.executable))
    program.chmod(0o755)
    return program


def environments(tmp_path: Path, program: Path, index: str = "") -> UvEnvironments:
    return UvEnvironments(tmp_path / "environments", Uv(tmp_path / "cache", index, program))


def calls(stand_in: Path) -> list[str]:
    file = stand_in.with_name("calls")
    return file.read_text().split() if file.exists() else []


def test_a_set_is_built_once_and_found_by_what_was_asked(tmp_path: Path, stand_in: Path) -> None:
    built = environments(tmp_path, stand_in).build(WANTED)

    assert environments(tmp_path, stand_in).find(WANTED) == built
    assert environments(tmp_path, stand_in).build(WANTED) == built
    assert calls(stand_in) == ["compile", "install"]
    assert built.packages == {"numpy": "2.0.0"}
    assert {file.name for file in built.folder.glob("*.py")} == {"half.py", "whole.py"}
    assert list(built.folder.glob("__pycache__/*.pyc"))
    assert environments(tmp_path, stand_in).find(Wanted(("numpy==2.0.0",))) is None


def test_two_requests_for_the_same_packages_share_them(tmp_path: Path, stand_in: Path) -> None:
    first, second = (environments(tmp_path, stand_in).build(wanted) for wanted in (WANTED, Wanted(("numpy<3",))))

    assert first == second
    assert calls(stand_in) == ["compile", "install", "compile"]


def test_of_two_workers_at_once_one_builds(tmp_path: Path, stand_in: Path) -> None:
    slow = stand_in.with_name("slow")
    slow.touch()
    found: list[Any] = []
    workers = [
        threading.Thread(target=lambda: found.append(environments(tmp_path, stand_in).build(WANTED))) for _ in range(3)
    ]
    for worker in workers:
        worker.start()
    _until(stand_in.with_name("installing"))
    slow.unlink()
    for worker in workers:
        worker.join()

    assert calls(stand_in) == ["compile", "install"]
    assert len(found) == 3
    assert found[0] == found[1] == found[2]


def test_a_worker_that_is_killed_midway_leaves_nothing_half(tmp_path: Path, stand_in: Path) -> None:
    slow = stand_in.with_name("slow")
    slow.touch()
    code = f"""
        from pathlib import Path
        from app.adapters.uv_environments import Uv, UvEnvironments
        from app.domain.environments import Wanted
        uv = Uv(Path({str(tmp_path)!r}), "", Path({str(stand_in)!r}))
        wanted = Wanted({WANTED.requirements!r}, {WANTED.preferred!r})
        UvEnvironments(Path({str(tmp_path / "environments")!r}), uv).build(wanted)
    """
    root = {"PYTHONPATH": str(PROGRAMS.parents[1])}
    worker = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], env={**os.environ, **root})
    _until(stand_in.with_name("installing"))
    worker.send_signal(signal.SIGKILL)
    worker.wait()
    ours = environments(tmp_path, stand_in)
    assert ours.find(WANTED) is None
    slow.unlink()

    built = ours.build(WANTED)

    assert (built.folder / "whole.py").exists()
    assert ours.find(WANTED) == built


def test_what_nobody_used_for_a_month_goes(tmp_path: Path, stand_in: Path) -> None:
    ours = environments(tmp_path, stand_in)
    old = ours.build(WANTED)
    month_ago = time.time() - 31 * 24 * 3600
    for path in (*(tmp_path / "environments").glob("requests/*"), *(tmp_path / "environments").glob("built/*")):
        os.utime(path, (month_ago, month_ago))
    assert ours.find(WANTED) == old  # and so it was used just now
    ours.build(Wanted(("numpy<3",)))
    assert old.folder.exists()

    for path in (*(tmp_path / "environments").glob("requests/*"), *(tmp_path / "environments").glob("built/*")):
        os.utime(path, (month_ago, month_ago))
    ours.build(Wanted(("numpy<4",)))

    assert ours.find(WANTED) is None
    assert list((tmp_path / "environments" / "building").iterdir()) == []


def test_of_too_many_the_least_used_go(tmp_path: Path, stand_in: Path) -> None:
    """Whoever logs models with ever other versions shall not fill the disk."""
    ours, folder = environments(tmp_path, stand_in), tmp_path / "environments" / "built"
    for age in range(25):
        (folder / f"{age:02}").mkdir(parents=True)
        os.utime(folder / f"{age:02}", (time.time() - age * 7200, time.time() - age * 7200))

    ours.build(WANTED)

    assert {path.name for path in folder.iterdir() if len(path.name) == 2} == {f"{age:02}" for age in range(21)}


def test_a_broken_folder_is_our_fault(tmp_path: Path, stand_in: Path) -> None:
    (tmp_path / "environments").write_text("no folder")
    with pytest.raises(Fault, match="cannot be used"):
        environments(tmp_path, stand_in).build(WANTED)


def test_uv_sees_none_of_our_secrets_and_one_index(
    tmp_path: Path, stand_in: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (
        "HEADGATE_DATABASE_URL",
        "AWS_SECRET_ACCESS_KEY",
        "UV_EXTRA_INDEX_URL",
        "UV_INDEX",
        "UV_TORCH_BACKEND",
    ):
        monkeypatch.setenv(name, "cpu")
    environments(tmp_path, stand_in, "https://index.example/simple").build(WANTED)
    seen = set(stand_in.with_name("environment").read_text().split())

    assert {"UV_DEFAULT_INDEX", "UV_TORCH_BACKEND", "PATH"} <= seen
    assert not {"HEADGATE_DATABASE_URL", "AWS_SECRET_ACCESS_KEY", "UV_EXTRA_INDEX_URL", "UV_INDEX"} & seen
    assert stand_in.with_name("asked").read_text() == "numpy==2.0.0\n"


UV_SAYS = [
    ("error: No solution found when resolving dependencies\n  cause: Because there is no version of x==9", Rejected),
    ("  \u00d7 No solution found when resolving dependencies:\n  ╰─▶ Because x==1 has no usable wheels", Rejected),
    ("error: Request failed after 3 retries\n cause: Failed to fetch: `https://u:hunter2@i/simple/x/`", Transient),
    ("error: Failed to fetch: `https://i/x`\n HTTP status server error (503 Service Unavailable)", Transient),
    ("hint: Packages were unavailable because the network was disabled.", Transient),
    ("error: failed to write: No space left on device (os error 28)", Fault),
    ("error: No solution found\nhint: lack of valid authentication credentials (401 Unauthorized)", Fault),
    ("error: something new", Fault),
]


@pytest.mark.parametrize(("said", "kind"), UV_SAYS)
def test_uvs_words_are_put_down_to_whose_fault_it_is(
    tmp_path: Path, stand_in: Path, said: str, kind: type[Exception]
) -> None:
    stand_in.with_name("words").write_text(said)

    with pytest.raises(kind) as caught:
        environments(tmp_path, stand_in).build(WANTED)

    assert caught.value.remedy  # type: ignore[attr-defined]  # all of ours have one
    assert "hunter2" not in str(caught.value)
    assert str(caught.value).isprintable()
    assert environments(tmp_path, stand_in).find(WANTED) is None


def test_what_is_missing_while_uv_is_offline_may_exist() -> None:
    said = "No solution found when resolving dependencies: because there is no version of numpy==99"
    assert isinstance(judge(said), Rejected)
    assert isinstance(judge(said, offline=True), Transient)


def test_without_uv_it_is_our_fault(tmp_path: Path) -> None:
    with pytest.raises(Fault, match="uv cannot be run"):
        environments(tmp_path, tmp_path / "no-uv").build(WANTED)


def _until(file: Path) -> None:
    end = time.monotonic() + 60
    while not file.exists():
        assert time.monotonic() < end, f"{file.name} was waited for in vain"
        time.sleep(0.01)


def _installed(folder: Path) -> Path:
    """The packages that the model is trained with."""
    folder.mkdir()
    uv = Uv(folder / "cache")
    uv.resolve([f"scikit-learn=={OLDER}"], {"numpy": version("numpy"), "scipy": version("scipy")}, folder)
    uv.install(folder / "lock.txt", folder / "site")
    return folder / "site"


TRAIN = """
    import pickle, sys
    sys.path.append(sys.argv[1])
    import numpy as np, sklearn
    from sklearn.linear_model import LinearRegression
    model = LinearRegression().fit(np.arange(20.0).reshape(10, 2), np.arange(10.0))
    pickle.dump(model, open(sys.argv[2], "wb"))
    print(sklearn.__version__)
"""


def log(folder: Path, site: Path, requirements: str) -> None:
    """A model that was trained with the packages in `site`, as MLflow writes it."""
    train = [sys.executable, "-S", "-c", textwrap.dedent(TRAIN), str(site), str(folder / "model.pkl")]
    assert subprocess.run(train, capture_output=True, text=True, check=True).stdout == f"{OLDER}\n"
    inputs = '[{"type": "tensor", "tensor-spec": {"dtype": "float64", "shape": [-1, 2]}}]'
    flavor = {"pickled_model": "model.pkl", "serialization_format": "cloudpickle", "sklearn_version": OLDER}
    document = {
        "flavors": {"sklearn": flavor},
        "signature": {"inputs": inputs},
        "saved_input_example_info": {"artifact_path": "input_example.json", "type": "ndarray"},
    }
    (folder / "MLmodel").write_text(yaml.safe_dump(document))
    (folder / "input_example.json").write_text('{"inputs": [[1.0, 2.0], [3.0, 5.0], [8.0, 13.0]]}')
    (folder / "requirements.txt").write_text(requirements)


@pytest.fixture
def downloads(monkeypatch: pytest.MonkeyPatch) -> None:
    """What uv has downloaded for others serves these tests, too."""
    if "UV_CACHE_DIR" not in os.environ:
        uv = [str(Path(sys.executable).with_name("uv")), "cache", "dir"]
        monkeypatch.setenv(
            "UV_CACHE_DIR", subprocess.run(uv, capture_output=True, text=True, check=True).stdout.strip()
        )


def worker(world: World, kept: Path, uv: Uv, **changes: Any) -> None:
    """Give the world the real sandbox and real environments."""
    parts = {"environments": UvEnvironments(kept, uv), "environment_packages": ALLOWED, **changes}
    world.plant = replace(world.plant, sandbox=BwrapSandbox(PROGRAMS), **parts)
    world.runner = Runner(world.core, world.plant, FAST, "worker-1")


@pytest.mark.usefixtures("downloads")
def test_an_older_model_is_converted_with_its_own_packages_and_later_without_an_index(
    database: Database, tmp_path: Path
) -> None:
    world, kept = World(database, tmp_path), tmp_path / "environments"
    folder = world.registry.versions[(MODEL, "1")]
    assert folder is not None
    log(folder, _installed(tmp_path / "training"), f"mlflow==3.1\nscikit-learn=={OLDER}\n")

    worker(world, kept, Uv(tmp_path / "cache"))
    first = world.run(world.ask("1", "staging"))["evidence"]
    worker(world, kept, Uv(tmp_path / "no-cache", DEAD_INDEX))
    again = world.run(world.ask("1"))["evidence"]

    for found, reused in ((first, False), (again, True)):
        environment = found["convert"]["environment"]
        assert (environment["own"], environment["reused"]) == (True, reused)
        assert environment["packages"]["scikit-learn"] == OLDER
        assert (found["convert"]["chosen"], found["convert"]["warnings"]) == ("default", [])
    assert first["convert"]["environment"]["digest"] == again["convert"]["environment"]["digest"]
    assert first["convert"]["onnx"] == again["convert"]["onnx"]

    # With Headgate's own packages it loads as well, and scikit-learn warns that it may be wrong.
    worker(world, kept, Uv(tmp_path / "cache"), environment_packages=None)
    ours = world.run(world.ask("1", "staging"))["evidence"]["convert"]
    assert OLDER in ours["warnings"][0]

    # Another set needs the index, which is away.
    (folder / "requirements.txt").write_text("scikit-learn==1.7.1\n")
    worker(world, kept, Uv(tmp_path / "no-cache", DEAD_INDEX))
    shown = world.run(world.ask("1"))
    assert (shown["state"], shown["last_error"][:25]) == ("CONVERT", "The package index does no")
