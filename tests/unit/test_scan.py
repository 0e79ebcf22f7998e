"""The scanner: pickles that do harm are found however they are named, packed or broken; ordinary models pass.

Nothing here is unpickled: the scanner reads opcodes.
"""

import builtins
import gzip
import importlib
import io
import json
import os
import pickle
import struct
import subprocess
import timeit
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import cloudpickle  # type: ignore[import-untyped]  # it ships no types
import numpy as np
import pytest
import skops.io
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import (
    GradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestRegressor,
    VotingRegressor,
)
from sklearn.feature_selection import SelectKBest
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge, SGDClassifier
from sklearn.model_selection import GridSearchCV
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsRegressor
from sklearn.neural_network import MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler
from sklearn.svm import SVR

from workers.sandbox import scan, scan_archives
from workers.sandbox.pickle_prefix import importing_prefix


class Call:
    """Pickles as a call of `function` with `arguments`."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call


def _scan(folder: Path, **files: bytes) -> Mapping[str, Any]:
    model = folder / "model"
    model.mkdir(exist_ok=True)
    (model / "MLmodel").write_text("flavors:\n  sklearn:\n    pickled_model: model.pkl\n")
    for name, data in files.items():
        (model / name.replace("__", ".")).write_bytes(data)
    return scan.run({}, folder, folder)


def _global(module: str, name: str, protocol: int = 4) -> bytes:
    """A pickle that does nothing but import `module` `name` and call it."""
    if protocol < 4:
        return b"c" + module.encode() + b"\n" + name.encode() + b"\n(tR."
    words = b"".join(b"\x8c" + struct.pack("B", len(word)) + word.encode() for word in (module, name))
    return b"\x80\x04" + words + b"\x93)R."


EVIL = pickle.dumps(Call(os.system, "true"))
MALICIOUS: dict[str, bytes] = {
    "os.system": EVIL,
    "eval": pickle.dumps(Call(builtins.eval, "1")),
    "exec, protocol 0": pickle.dumps(Call(builtins.exec, "1"), protocol=0),
    "subprocess": pickle.dumps(Call(subprocess.run, ["true"])),
    "getattr": pickle.dumps(Call(getattr, "", "upper")),
    "import by name": pickle.dumps(Call(importlib.import_module, "os")),
    "timeit": pickle.dumps(Call(timeit.timeit, "1")),
    "numpy's own exec": _global("numpy.testing._private.utils", "runstring"),
    "numpy's loader": _global("numpy", "load"),
    "joblib's loader": _global("joblib", "load"),
    "pandas' loader": _global("pandas", "read_pickle"),
    "pandas' eval": _global("pandas.core.computation.eval", "eval"),
    "ctypes": _global("ctypes", "CDLL"),
    "a dotted name through a good module": _global("sklearn.base", "warnings.sys.modules.get"),
    "a dotted name of an old protocol": _global("sklearn.base", "os.system", protocol=2),
    "a fetcher of scikit-learn": _global("sklearn.datasets._base", "fetch_file"),
    "another module": _global("a_package_of_theirs", "Model"),
    "code by value": cloudpickle.dumps(lambda x: x + 1),
    "a good pickle before": pickle.dumps([1, 2]) + EVIL,
    "broken after the call": EVIL[:-1] + b"\xff\xff",
    "without an end": EVIL[:-1],
    "a name by way of the memo": (
        b"\x80\x04\x8c\x02os\x94\x8c\x06system\x94\x8c\x0csklearn.base\x94000h\x00h\x01\x93\x8c\x04true\x85R."
    ),
    "an instance of the old kind": b"(S'true'\nios\nsystem\n.",
}


@pytest.mark.parametrize("name", ["model__pkl", "notes__txt", "input_example__json", "weights__onnx", "README"])
@pytest.mark.parametrize("kind", MALICIOUS)
def test_harmful_pickles_are_found_whatever_they_are_called(tmp_path: Path, kind: str, name: str) -> None:
    result = _scan(tmp_path, **{name: MALICIOUS[kind]})

    assert result["findings"], result
    assert result["findings"][0]["file"] == name.replace("__", ".")
    assert result["findings"][0]["reason"]


def test_a_finding_names_what_is_imported(tmp_path: Path) -> None:
    result = _scan(tmp_path, model__pkl=EVIL)

    found = {"file": "model.pkl", "severity": "CRITICAL", "reason": "an import of posix.system"}
    for scanner in ("modelscan", "picklescan"):
        assert {**found, "scanner": scanner} in result["findings"]


def _zip(members: Mapping[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return stream.getvalue()


def _objects(data: bytes) -> bytes:
    """An array file of Python objects with `data` where their pickle belongs."""
    stream = io.BytesIO()
    np.save(stream, np.array([None], dtype=object), allow_pickle=True)
    header = stream.getvalue()
    return header[: header.index(b"\n") + 1] + data


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("model__skops", _zip({"schema.json": b"{}", "weights.npy": EVIL})),
        ("model__skops", _zip({"schema.json": json.dumps({"__class__": "system", "__module__": "os"}).encode()})),
        ("model__skops", _zip({"schema.json": b"{}", "1.npy": _objects(EVIL)})),
        ("array__npy", _objects(EVIL)),
        ("polyglot", EVIL + _zip({"harmless.txt": b"hello"})),
        ("hidden__zip", b"some text" + _zip({"model.pkl": EVIL})),
    ],
)
def test_what_is_packed_is_looked_into(tmp_path: Path, name: str, data: bytes) -> None:
    assert _scan(tmp_path, **{name: data})["findings"]


def _encrypted() -> bytes:
    data = bytearray(_zip({"model.pkl": b"x"}))
    data[6] |= 1
    data[data.rindex(b"PK\x01\x02") + 8] |= 1
    return bytes(data)


@pytest.mark.parametrize(
    "data",
    [
        gzip.compress(EVIL),
        b"BZh91AY&SY" + bytes(20),
        b"\xfd7zXZ\x00" + bytes(20),
        b"x\x9c" + bytes(20),
        b"\x89HDF\r\n\x1a\n" + bytes(20),
        _zip({"inner.zip": _zip({"innermost.zip": _zip({"a": b"text"})})}),
        _encrypted(),
        b"\x93NUMPY\x01\x00\x09\x00{'oops':1\n",
        _zip({"schema.json": b"[" * 100_000}),
    ],
)
def test_what_cannot_be_looked_into_is_an_error(tmp_path: Path, data: bytes) -> None:
    result = _scan(tmp_path, strange=data)

    assert result["errors"], result


def test_a_zip_bomb_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan_archives, "MAX_UNPACKED_BYTES", 1 << 20)
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros", bytes(2 << 20))

    assert "unpacks to more" in _scan(tmp_path, bomb=stream.getvalue())["errors"][0]


def test_links_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "link").symlink_to("/etc/passwd")

    assert "no regular file" in _scan(tmp_path)["errors"][0]


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("conda__yaml", b"channels:\n- conda-forge\ndependencies:\n- python=3.11\n"),
        ("requirements__txt", b"cloudpickle==3.1.2\nscikit-learn==1.9.1\n"),
        ("python_env__yaml", b"python: 3.11.7\nbuild_dependencies:\n- pip==24\n"),
        ("rows__csv", b"cat\nx\ny\n"),
        ("README__md", b"code\nos\n\nThis is how to use it.\n"),
        ("input_example__json", b'{"columns": ["a"], "data": [[1]]}'),
        ("image__png", b"\x89PNG\r\n\x1a\n" + bytes(range(256))),
        ("array__npy", _objects(pickle.dumps([1, "a"]))),
        ("empty", b""),
        ("plain__pkl", pickle.dumps({"a": [1, 2.0, "x"]})),
    ],
)
def test_ordinary_files_pass(tmp_path: Path, name: str, data: bytes) -> None:
    result = _scan(tmp_path, **{name: data})

    assert (result["findings"], result["errors"], result["scanned"]) == ([], [], 2)


def _columns(model: Any) -> Any:
    return make_pipeline(
        ColumnTransformer(
            [("t", OneHotEncoder(), [0]), ("n", make_pipeline(SimpleImputer(), StandardScaler()), [1, 2])]
        ),
        model,
    )


ORDINARY: dict[str, Callable[[], Any]] = {
    "ridge": lambda: _columns(Ridge()),
    "forest": lambda: _columns(RandomForestRegressor(5, random_state=np.random.RandomState(1))),
    "histogram": lambda: HistGradientBoostingRegressor(max_iter=5),
    "boosting": lambda: GradientBoostingClassifier(n_estimators=5),
    "search": lambda: GridSearchCV(LogisticRegression(), {"C": [0.1, 1.0]}, cv=2),
    "voting": lambda: VotingRegressor([("a", Ridge()), ("b", KNeighborsRegressor(algorithm="kd_tree"))]),
    "network": lambda: MLPRegressor(hidden_layer_sizes=(3,), max_iter=800),
    "others": lambda: make_pipeline(FunctionTransformer(np.log1p), SelectKBest(k=2), GaussianNB()),
    "sgd": lambda: SGDClassifier(loss="log_loss"),
    "kernel": lambda: SVR(),
    "process": lambda: GaussianProcessRegressor(),
}


@pytest.mark.parametrize("kind", ORDINARY)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_ordinary_models_pass_in_every_format(tmp_path: Path, kind: str) -> None:
    rng = np.random.default_rng(1)
    rows = np.column_stack([rng.integers(0, 3, 60), rng.random((60, 2))])
    model = ORDINARY[kind]().fit(rows, (rows[:, 1] > 0.5).astype(int))

    result = _scan(
        tmp_path, a__pkl=cloudpickle.dumps(model), b__pkl=pickle.dumps(model), c__skops=skops.io.dumps(model)
    )

    assert (result["findings"], result["errors"]) == ([], [])


def test_a_pickle_of_many_frames_passes(tmp_path: Path) -> None:
    """A frame may begin between a name and its import, which alone looks like an attempt to hide the name."""
    data = pickle.dumps([(np.float64(n), "x" * 40) for n in range(20_000)])

    assert _scan(tmp_path, model__pkl=data)["findings"] == []


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_reading_opcodes_never_raises(data: bytes) -> None:
    prefix = importing_prefix(data)

    assert prefix is None or prefix.data.endswith(b".")
