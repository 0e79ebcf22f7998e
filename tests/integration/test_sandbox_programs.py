"""The programs in the real sandbox, on models as MLflow writes them: the versions of the Airbnb example, and worse."""

import json
import os
import pickle
import shutil
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pandas as pd
import pytest
import yaml

from app.adapters.bwrap import BwrapSandbox
from app.domain.errors import Rejected
from app.ports import SandboxJob
from examples.airbnb import data
from examples.airbnb.models import Kind, build
from workers.sandbox.runner import Runner as ModelRunner

PROGRAMS = Path(__file__).parents[2] / "workers" / "sandbox"
REAL_ROWS = Path(__file__).parents[3] / "shared" / "data" / "AB_NYC_2019.csv.gz"
ROWS = {"file": "rows", "label": data.LABEL, "count": 5000, "seed": 20240229}

# MLflow 3.17 uses what pandas 4 will change.
pytestmark = pytest.mark.filterwarnings("ignore::pandas.errors.Pandas4Warning")

Versions = Callable[[Kind], Path]
Runner = Callable[..., Mapping[str, Any]]


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    """The real listings where they lie beside the checkout, else the synthetic ones."""
    return data.clean(data.load(REAL_ROWS if REAL_ROWS.exists() else None))


@pytest.fixture(scope="module")
def holdout(table: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("rows") / "holdout.csv"
    data.split(table)[1].to_csv(file, index=False)
    return file


@pytest.fixture(scope="module")
def versions(table: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Versions:
    """Folders of trained versions by kind, written by MLflow."""
    made: dict[str, Path] = {}

    def version(kind: Kind) -> Path:
        if kind not in made:
            made[kind] = _log(table, kind, tmp_path_factory.mktemp(kind) / "model")
        return made[kind]

    return version


def _log(table: pd.DataFrame, kind: Kind, folder: Path) -> Path:
    import mlflow.sklearn
    from mlflow.models import infer_signature

    from examples.airbnb.train import TRUSTED_TYPES

    train = data.split(table)[0]
    example = train[data.FEATURES].head(5)
    pipeline = build(kind).fit(train[data.FEATURES], train[data.LABEL])
    mlflow.sklearn.save_model(
        pipeline,
        folder,
        signature=infer_signature(example, pipeline.predict(example)),
        input_example=example,
        skops_trusted_types=TRUSTED_TYPES,
        pip_requirements=["scikit-learn"],
    )
    return folder


@pytest.fixture
def run(tmp_path: Path) -> Runner:
    sandbox, counter = BwrapSandbox(PROGRAMS), iter(range(99))

    def run_program(program: Any, inputs: Mapping[str, Path], request: Mapping[str, Any] | None = None) -> Any:
        output = tmp_path / f"out{next(counter)}"
        output.mkdir()
        job = SandboxJob(program, inputs, request or {}, output, timedelta(minutes=2))
        return {**sandbox.run(job), "output": output}

    return run_program


def _request(**options: Any) -> dict[str, Any]:
    return {"rows": ROWS, "rtol": 1e-4, "atol": 1e-5, "max_wrong_rows": 0, **options}


def _score(run: Runner, converted: Mapping[str, Any], holdout: Path, **options: Any) -> Mapping[str, Any]:
    """Measure what was converted, on the holdout."""
    inputs = {"onnx": converted["output"] / "model.onnx", "served": converted["output"] / "rows.json", "rows": holdout}
    nothing: dict[str, Any] = {"check": True, "batches": [], "slices": [], "nudges": []}
    return run("score", inputs, {"rows": ROWS, **nothing, **options})


def _served(output: Path, borough: str | None = None) -> Any:
    """ONNX Runtime's answers to the V2 rows that the conversion left, with another borough where asked."""
    rows = json.loads((output / "rows.json").read_text())
    table = {}
    for tensor in rows["inputs"]:
        table[tensor["name"]] = np.array(tensor["data"], dtype=object if tensor["datatype"] == "BYTES" else np.float32)
    if borough:
        table["neighbourhood_group"][:] = borough
    return ModelRunner((output / "model.onnx").read_bytes()).run(table)[0].ravel(), rows["outputs"][0]["data"]


def test_the_first_version_converts_plainly(run: Runner, versions: Versions, holdout: Path) -> None:
    inputs = {"model": versions("linear"), "rows": holdout}

    scanned = run("scan", inputs)
    assert (scanned["findings"], scanned["errors"]) == ([], [])
    result = run("convert", inputs, _request())

    assert result["chosen"] == "default"
    assert [tensor["name"] for tensor in result["inputs"]] == data.FEATURES
    assert {tensor["datatype"] for tensor in result["inputs"]} == {"BYTES", "FP32"}
    scored = _score(run, result, holdout, batches=[1, 8])
    assert 0.3 < scored["metrics"]["rmse"] < 0.5
    assert set(scored["latency_ms"]) == {"1", "8"}
    served, native = _served(result["output"])
    assert served == pytest.approx(native, rel=1e-4)


def test_the_second_version_needs_the_ladder_and_is_better(run: Runner, versions: Versions, holdout: Path) -> None:
    first = run("convert", {"model": versions("linear"), "rows": holdout}, _request())
    second = run("convert", {"model": versions("forest"), "rows": holdout}, _request())

    assert second["rungs"][0]["name"] == "default"
    assert second["rungs"][0]["wrong_rows"] > 0
    assert second["chosen"] == "float-division"
    scores = [_score(run, version, holdout)["metrics"]["rmse"] for version in (first, second)]
    assert scores[1] < scores[0] * 0.98
    served, native = _served(second["output"])
    assert served == pytest.approx(native, rel=1e-4)


def test_all_that_gates_ask_about_is_measured(
    run: Runner, versions: Versions, table: pd.DataFrame, holdout: Path
) -> None:
    converted = run("convert", {"model": versions("linear"), "rows": holdout}, _request())
    parquet = holdout.with_suffix(".parquet")
    data.split(table)[1].to_parquet(parquet)
    by = ["neighbourhood_group", "room_type"]
    asked = {"slices": [by], "nudges": [0.01], "rows": {**ROWS, "texts": by}}

    scored, again = (_score(run, converted, file, **asked) for file in (holdout, parquet))

    assert scored["rows"] == converted["rows"]
    assert again["metrics"] == pytest.approx(scored["metrics"])
    assert scored["slices"][0]["by"] == by
    assert sum(group["rows"] for group in scored["slices"][0]["groups"]) == scored["rows"]
    assert again["slices"] == scored["slices"]
    (noise,) = scored["noise"]
    assert 0 < noise["change"] < 0.1
    assert noise["not_finite"] == 0


def test_the_fourth_version_fails_on_a_borough_that_the_second_answers(
    run: Runner, versions: Versions, holdout: Path
) -> None:
    lenient, strict = (
        run("convert", {"model": versions(kind), "rows": holdout}, _request()) for kind in ("forest", "strict")
    )

    assert strict["chosen"]
    scores = [_score(run, version, holdout)["metrics"]["rmse"] for version in (lenient, strict)]
    assert scores[0] == pytest.approx(scores[1])
    assert np.isfinite(_served(lenient["output"], data.NEW_BOROUGH)[0]).all()
    with pytest.raises(Exception, match="Unknown Category"):
        _served(strict["output"], data.NEW_BOROUGH)


def test_without_data_the_input_example_is_used(run: Runner, versions: Versions) -> None:
    rows = {"file": None, "label": None, "count": 5000, "seed": 1}

    result = run("convert", {"model": versions("linear")}, _request(rows=rows))

    assert (result["rows_from"], result["rows"]) == ("input example", 5)
    assert result["chosen"] == "default"


def test_a_refusal_comes_as_a_result(run: Runner, versions: Versions, holdout: Path, tmp_path: Path) -> None:
    model = tmp_path / "unsigned"
    shutil.copytree(versions("linear"), model)
    document = yaml.safe_load((model / "MLmodel").read_text())
    del document["signature"]
    (model / "MLmodel").write_text(yaml.safe_dump(document))

    refused = run("convert", {"model": model, "rows": holdout}, _request())["refused"]

    assert refused["code"] == "no-signature"
    assert "infer_signature" in refused["remedy"]


class Evil:
    """Unpickles as a shell command."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (self.command,)


def _pickled(folder: Path, value: Any) -> Path:
    folder.mkdir()
    (folder / "model.pkl").write_bytes(pickle.dumps(value))
    columns = json.dumps([{"name": "latitude", "type": "float", "required": True}])
    flavor = {"pickled_model": "model.pkl", "serialization_format": "cloudpickle"}
    document = {"flavors": {"sklearn": flavor}, "signature": {"inputs": columns}}
    (folder / "MLmodel").write_text(yaml.safe_dump(document))
    return folder


def test_a_malicious_pickle_is_found_and_would_do_nothing(run: Runner, holdout: Path, tmp_path: Path) -> None:
    """Even if it were converted without a scan, it runs where there is no shell and nothing to reach."""
    marker = tmp_path / "marker"
    model = _pickled(tmp_path / "evil", Evil(f"touch {marker}"))

    found = run("scan", {"model": model})["findings"]
    refused = run("convert", {"model": model, "rows": holdout}, _request())["refused"]

    assert found[0]["severity"] == "CRITICAL"
    assert refused["code"] in {"unsupported-estimator", "cannot-load"}
    assert not marker.exists()


def test_a_model_that_eats_memory_is_rejected(tmp_path: Path, holdout: Path) -> None:
    class Hungry:
        def __reduce__(self) -> tuple[Any, ...]:
            return bytearray, (64 << 30,)

    (tmp_path / "out").mkdir()
    inputs = {"model": _pickled(tmp_path / "hungry", Hungry()), "rows": holdout}
    job = SandboxJob("convert", inputs, _request(), tmp_path / "out", timedelta(minutes=2))

    with pytest.raises(Rejected, match="4096 MiB"):
        BwrapSandbox(PROGRAMS).run(job)


def test_a_graph_that_ends_onnx_runtime_without_rows_is_rejected(run: Runner, tmp_path: Path) -> None:
    """One request without rows would end the server: FeatureVectorizer does so."""
    tensors = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [None, 1]) for name in "ab"]
    result = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [None, 2])
    domain = "ai.onnx.ml"
    node = onnx.helper.make_node("FeatureVectorizer", ["a", "b"], ["y"], domain=domain, inputdimensions=[1, 1])
    opsets = [onnx.helper.make_opsetid("", 18), onnx.helper.make_opsetid(domain, 3)]
    graph = onnx.helper.make_graph([node], "g", tensors, [result])
    model = tmp_path / "model"
    model.mkdir()
    (model / "model.onnx").write_bytes(
        onnx.helper.make_model(graph, opset_imports=opsets, ir_version=9).SerializeToString()
    )
    (model / "MLmodel").write_text("flavors: {onnx: {data: model.onnx}}")
    rows = tmp_path / "rows"
    rows.write_text("a,b\n1,2\n3,4\n")

    asked = {"rows": {"file": "rows", "label": None, "count": 2, "seed": 1}}
    with pytest.raises(Rejected, match="SIGABRT"):
        run("convert", {"model": model, "rows": rows}, _request(**asked))
