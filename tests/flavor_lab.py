"""Trains small models of every flavor where their libraries are, and converts them: for tests and for the benchmarks.

The libraries are in .flavors, no part of Headgate.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from workers.sandbox.runner import Runner

ROOT = Path(__file__).parents[1]
PACKAGES = ROOT / ".flavors"
ROWS, RTOL, ATOL = 400, 1e-4, 1e-5
REQUEST = {
    "rows": {"file": "rows", "label": None, "count": ROWS, "seed": 1},
    "rtol": RTOL,
    "atol": ATOL,
    "max_wrong_rows": 0,
}
# Converts every model below a folder in one process, as the sandbox would: its own start would cost minutes here.
_PROGRAM = """
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
_HALVES = (("xgboost", "lightgbm", "catboost", "sklearn"), ("pytorch", "keras"))
_DTYPES = {"FP32": "float32", "FP64": "float64", "INT64": "int64", "INT32": "int32", "BOOL": "bool", "BYTES": "object"}


@dataclass(frozen=True)
class Made:
    """A trained model's folder and what became of it."""

    folder: Path
    result: Mapping[str, Any]

    def wrong_rows(self) -> int:
        """How many of the ROWS the ONNX model answers otherwise than the trained model itself, before it was saved."""
        answers = Runner((self.folder / "out" / "model.onnx").read_bytes()).run(self._table())
        expected = json.loads((self.folder / "expected.json").read_text())
        wrong = np.zeros(ROWS, dtype=bool)
        for answer, said in zip(answers, expected, strict=True):
            got, want = answer.reshape(ROWS, -1), np.array(said).reshape(ROWS, -1)
            equal = np.isclose(got, want, RTOL, ATOL, equal_nan=True) if want.dtype.kind == "f" else got == want
            wrong |= ~equal.all(axis=1)
        return int(np.count_nonzero(wrong))

    def _table(self) -> dict[str, Any]:
        """The rows as a V2 request would carry them."""
        cells = pd.read_csv(self.folder / "rows")
        wanted = self.result["inputs"]
        if len(wanted) == 1 and wanted[0]["shape"] != [-1, 1]:
            flat = cells.to_numpy(dtype="float32")
            return {wanted[0]["name"]: flat.reshape(-1, *wanted[0]["shape"][1:])}
        return {
            tensor["name"]: cells[tensor["name"]].to_numpy().astype(_DTYPES[tensor["datatype"]]) for tensor in wanted
        }


def python(*words: str) -> None:
    """Run Python with the libraries in .flavors on its path. Raises RuntimeError where it fails."""
    environment = {**os.environ, "PYTHONPATH": f"{PACKAGES}:{ROOT}", "OMP_NUM_THREADS": "2", "PYTHONHASHSEED": "0"}
    done = subprocess.run([sys.executable, *words], env=environment, capture_output=True, timeout=1200)
    if done.returncode:
        raise RuntimeError(done.stderr.decode(errors="replace")[-3000:])


def made(folder: Path) -> dict[str, Made]:
    """Every model by its name, trained, saved and converted below `folder`."""
    subprocess.run(["bash", str(ROOT / "ci" / "setup-flavors.sh")], check=True, timeout=1800)

    def work(flavors: tuple[str, ...]) -> Iterator[Made]:
        part = folder / flavors[0]
        part.mkdir()
        python(str(ROOT / "tests" / "flavor_models.py"), str(part), *flavors)
        python("-c", _PROGRAM, str(part), json.dumps(REQUEST))
        for model in sorted(part.iterdir()):
            yield Made(model, json.loads((model / "out" / "result.json").read_text()))

    with ThreadPoolExecutor() as workers:
        parts = list(workers.map(lambda flavors: list(work(flavors)), _HALVES))
    return {one.folder.name: one for part in parts for one in part}
