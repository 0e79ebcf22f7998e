"""Models of every flavor as MLflow saves them: they pass the scan, convert in the real sandbox, and answer as they did
where they were trained. The other libraries are in .flavors, no part of Headgate.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from app.adapters.bwrap import BwrapSandbox
from app.adapters.bwrap.sandbox import this_interpreter
from app.ports import SandboxJob
from workers.sandbox import scan
from workers.sandbox.runner import Runner

ROOT = Path(__file__).parents[2]
PACKAGES = ROOT / ".flavors"
REQUEST = {
    "rows": {"file": "rows", "label": None, "count": 400, "seed": 1},
    "rtol": 1e-4,
    "atol": 1e-5,
    "max_wrong_rows": 0,
}
# Converts every model below a folder in one process, as the sandbox would: its own start would cost minutes here.
PROGRAM = """
import json, sys, traceback
from pathlib import Path
from workers.sandbox.__main__ import run
for folder in sorted(Path(sys.argv[1]).iterdir()):
    (folder / "out").mkdir()
    try:
        result = run("convert", json.loads(sys.argv[2]), folder, folder / "out")
    except Exception:
        result = {"failed": traceback.format_exc()}
    (folder / "out" / "result.json").write_text(json.dumps(result))
"""
HALVES = (("xgboost", "lightgbm", "catboost", "sklearn"), ("pytorch", "keras"))
CONVERTED: Mapping[str, str] = {
    "xgboost, regression with gaps": "trees",
    "xgboost, two classes": "trees",
    "xgboost, three classes": "trees",
    "xgboost, several labels": "trees",
    "xgboost, several values": "trees",
    "xgboost, counts": "trees",
    "xgboost, dropout": "trees",
    "xgboost, forest": "trees",
    "xgboost, stopped early": "trees",
    "xgboost, booster": "trees",
    "lightgbm, regression with gaps": "double",
    "lightgbm, two classes": "double",
    "lightgbm, three texts": "double",
    "lightgbm, pickled": "double",
    "lightgbm, in 32 bits": "float",
    "lightgbm, counts": "double",
    "lightgbm, roots": "double",
    "lightgbm, forest": "double",
    "lightgbm, booster": "double",
    "catboost, regression with gaps": "catboost",
    "catboost, two classes": "catboost",
    "catboost, three texts": "catboost",
    "catboost, plain": "catboost",
    "pytorch, exported": "export",
    "pytorch, exported images": "export",
    "pytorch, pickled columns": "export",
    "pytorch, pickled images": "export",
    "keras, dense": "export",
    "keras, functional": "export",
    "keras, images": "export",
    "sklearn, pipeline of xgboost": "",
    "sklearn, pipeline of lightgbm": "",
    "sklearn, skops of lightgbm": "",
}
"""The models that `tests/flavor_models.py` trains, and the rung that each takes; any for scikit-learn."""


@dataclass(frozen=True)
class Made:
    """A trained model's folder and what became of it."""

    folder: Path
    result: Mapping[str, Any]

    @property
    def expected(self) -> list[Any]:
        answers: list[Any] = json.loads((self.folder / "expected.json").read_text())
        return answers

    def table(self) -> dict[str, Any]:
        """The rows as a V2 request would carry them."""
        cells = pd.read_csv(self.folder / "rows")
        wanted = self.result["inputs"]
        if len(wanted) == 1 and wanted[0]["shape"] != [-1, 1]:
            flat = cells.to_numpy(dtype="float32")
            return {wanted[0]["name"]: flat.reshape(-1, *wanted[0]["shape"][1:])}
        return {
            tensor["name"]: cells[tensor["name"]].to_numpy().astype(DTYPES[tensor["datatype"]]) for tensor in wanted
        }


DTYPES = {"FP32": "float32", "FP64": "float64", "INT64": "int64", "INT32": "int32", "BOOL": "bool", "BYTES": "object"}


def _python(*words: str) -> None:
    environment = {**os.environ, "PYTHONPATH": f"{PACKAGES}:{ROOT}", "OMP_NUM_THREADS": "2", "PYTHONHASHSEED": "0"}
    done = subprocess.run([sys.executable, *words], env=environment, capture_output=True, timeout=1200)
    assert done.returncode == 0, done.stderr.decode(errors="replace")[-3000:]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Made]:
    """Every model by its name, trained, saved and converted."""
    subprocess.run(["bash", str(ROOT / "ci" / "setup-flavors.sh")], check=True, timeout=1800)
    folder = tmp_path_factory.mktemp("flavors")

    def work(flavors: tuple[str, ...]) -> Path:
        part = folder / flavors[0]
        part.mkdir()
        _python(str(ROOT / "tests" / "flavor_models.py"), str(part), *flavors)
        _python("-c", PROGRAM, str(part), json.dumps(REQUEST))
        return part

    with ThreadPoolExecutor() as workers:
        parts = list(workers.map(work, HALVES))

    def one(name: str) -> Made:
        found = next(part / name for part in parts if (part / name).is_dir())
        return Made(found, json.loads((found / "out" / "result.json").read_text()))

    return one


@pytest.mark.parametrize("name", CONVERTED)
def test_it_is_converted_and_answers_as_it_did_where_it_was_trained(made: Callable[[str], Made], name: str) -> None:
    model = made(name)

    assert model.result.get("chosen"), model.result
    assert model.result["chosen"] == (CONVERTED[name] or model.result["chosen"])
    assert model.result["rungs"][-1]["wrong_rows"] == 0
    assert model.result["rows"] == 400
    answers = Runner((model.folder / "out" / "model.onnx").read_bytes()).run(model.table())
    for answer, expected in zip(answers, model.expected, strict=True):
        got, want = answer.reshape(400, -1), np.array(expected)
        if want.dtype.kind in "fc":
            np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)
        else:
            assert got.tolist() == want.tolist()


def test_what_its_own_library_writes_and_nothing_loads_is_not_taken(made: Callable[[str], Made]) -> None:
    """CatBoost writes several values a row as ONNX that ONNX Runtime refuses."""
    result = made("catboost, several values").result

    assert result["chosen"] is None
    assert [rung["status"] for rung in result["rungs"]] == ["error"]
    assert "ONNXRuntimeError" in result["rungs"][0]["error"]


@pytest.mark.parametrize("name", CONVERTED)
def test_it_passes_the_scan(made: Callable[[str], Made], name: str, tmp_path: Path) -> None:
    result = scan.run({}, made(name).folder, tmp_path)

    assert (result["findings"], result["errors"]) == ([], [])


def test_inputs_keep_the_names_and_types_of_their_columns(made: Callable[[str], Made]) -> None:
    types = {tensor["name"]: tensor["datatype"] for tensor in made("xgboost, regression with gaps").result["inputs"]}

    assert types == {
        "a": "FP32",
        "b": "FP64",
        "c": "INT64",
        "d": "BOOL",
        "gap": "FP64",
        # Whole numbers and truth values that may be missing: V2 has no other word for what is not there.
        "count": "FP64",
        "sure": "FP64",
    }
    assert {"count", "sure", "gap"} == set(made("xgboost, regression with gaps").result["optional"])


@pytest.mark.parametrize(
    "name", ["xgboost, two classes", "lightgbm, three texts", "catboost, plain", "pytorch, exported", "keras, dense"]
)
def test_the_sandbox_converts_it_to_the_same_bytes(made: Callable[[str], Made], name: str, tmp_path: Path) -> None:
    model = made(name)
    here = this_interpreter()
    python = replace(here, site_packages=[PACKAGES, *here.site_packages])
    inputs = {name: model.folder / name for name in ("model", "rows")}
    job = SandboxJob("convert", inputs, REQUEST, tmp_path, timedelta(minutes=10))

    result = BwrapSandbox(ROOT / "workers" / "sandbox", python).run(job)

    assert result["chosen"] == model.result["chosen"]
    assert (tmp_path / "model.onnx").read_bytes() == (model.folder / "out" / "model.onnx").read_bytes()


def test_a_flavor_whose_packages_are_not_there_is_refused_by_name(made: Callable[[str], Made], tmp_path: Path) -> None:
    """Headgate's own environment has none of them."""
    model = made("xgboost, two classes")
    inputs = {name: model.folder / name for name in ("model", "rows")}

    result = BwrapSandbox(ROOT / "workers" / "sandbox").run(
        SandboxJob("convert", inputs, REQUEST, tmp_path, timedelta(minutes=2))
    )

    assert result["refused"]["code"] == "cannot-load"
    assert "'xgboost'" in result["refused"]["reason"]
    assert "requirements" in result["refused"]["remedy"]
