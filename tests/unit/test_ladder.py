"""The conversion in this process, on small models: which rung is taken, and what the ONNX model takes and gives."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import (
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
)
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.neighbors import KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.svm import LinearSVC

from tests.sandbox_bench import Bench, forest, listings, prepared
from workers.sandbox.ladder import RUNGS
from workers.sandbox.runner import Runner


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    return listings()


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


REGRESSORS: dict[str, Callable[[], Any]] = {
    "linear": LinearRegression,
    "forest": forest,
    "boosting": lambda: GradientBoostingRegressor(n_estimators=30, random_state=0),
    "histogram": lambda: HistGradientBoostingRegressor(max_iter=30, random_state=0),
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", REGRESSORS)
def test_every_regressor_ends_on_a_rung_that_agrees(bench: Bench, table: pd.DataFrame, kind: str, dtype: str) -> None:
    features = table[["city", "area", "income"]].astype({"area": dtype, "income": dtype})
    pipeline = prepared(REGRESSORS[kind](), ["area", "income"]).fit(features, table.price)
    bench.model(pipeline, features)
    bench.rows(table)

    result = bench.convert("price")

    assert result["chosen"], result["rungs"]
    assert result["rungs"][-1]["status"] == "agrees"
    assert result["rungs"][-1]["wrong_rows"] == 0
    assert [rung["name"] for rung in result["rungs"]] == [rung.name for rung in RUNGS[: len(result["rungs"])]]
    types = {tensor["name"]: tensor["datatype"] for tensor in result["inputs"]}
    number = "FP32" if dtype == "float32" else "FP64"
    assert types == {"city": "BYTES", "area": number, "income": number}
    assert all(tensor["shape"] == [-1, 1] for tensor in (*result["inputs"], *result["outputs"]))


def test_aforest_on_doubles_needs_the_last_rung(bench: Bench, table: pd.DataFrame) -> None:
    """The plain conversion succeeds and answers wrongly: that is why each rung is measured on rows."""
    features = table[["city", "area", "income"]]
    bench.model(prepared(forest(), ["area", "income"]).fit(features, table.price), features)
    bench.rows(table)

    result = bench.convert()

    assert result["rungs"][0]["status"] == "differs"
    assert result["rungs"][0]["wrong_rows"] > 0
    assert result["chosen"] == "double-then-float"
    assert {t["name"]: t["datatype"] for t in result["inputs"]}["income"] == "INT64"


BARE: dict[str, Callable[[], Any]] = {
    "forest": forest,
    "linear": LinearRegression,
    # Becomes a loop, whose body reads names from outside.
    "neighbours": lambda: KNeighborsRegressor(3),
    "scaled neighbours": lambda: make_pipeline(StandardScaler(), KNeighborsRegressor(3)),
}


@pytest.mark.parametrize("kind", BARE)
def test_estimators_on_data_frames_keep_their_columns_as_inputs(bench: Bench, table: pd.DataFrame, kind: str) -> None:
    """skl2onnx wants these on one matrix; the model was logged with columns, and so it is called."""
    some = table.head(300)
    features = some[["area", "income"]]
    bench.model(BARE[kind]().fit(features, some.price), features)
    bench.rows(some)

    result = bench.convert()

    assert result["chosen"], result["rungs"]
    assert result["inputs"] == [
        {"name": "area", "datatype": "FP64", "shape": [-1, 1]},
        {"name": "income", "datatype": "INT64", "shape": [-1, 1]},
    ]


def test_where_no_rung_agrees_all_are_reported_and_nothing_is_left(bench: Bench, table: pd.DataFrame) -> None:
    features = table[["city", "area"]]
    bench.model(prepared(forest(), ["area"]).fit(features, table.price), features)
    bench.rows(table)

    result = bench.convert(rtol=0.0, atol=0.0)

    assert result["chosen"] is None
    assert [rung["name"] for rung in result["rungs"]] == [rung.name for rung in RUNGS]
    assert list(bench.output.iterdir()) == []


def test_rows_that_may_be_wrong_are_a_matter_of_policy(bench: Bench, table: pd.DataFrame) -> None:
    features = table[["city", "area", "income"]]
    bench.model(prepared(forest(), ["area", "income"]).fit(features, table.price), features)
    bench.rows(table)

    assert bench.convert(max_wrong_rows=2000)["chosen"] == "default"


def test_the_same_model_gives_the_same_bytes(bench: Bench, table: pd.DataFrame) -> None:
    features = table[["city", "area", "income"]]
    bench.model(prepared(forest(), ["area", "income"]).fit(features, table.price), features)
    bench.rows(table)

    bench.convert()
    first = (bench.output / "model.onnx").read_bytes()
    bench.convert()

    assert (bench.output / "model.onnx").read_bytes() == first


CLASSIFIERS: dict[str, tuple[Callable[[], Any], list[Any], str]] = {
    "whole numbers": (lambda: LogisticRegression(max_iter=500), [0, 1], "INT64"),
    "text": (lambda: RandomForestClassifier(10, max_depth=6, random_state=0), ["cheap", "dear"], "BYTES"),
    "truth values": (lambda: RandomForestClassifier(10, max_depth=6, random_state=0), [False, True], "INT64"),
    "three": (lambda: GradientBoostingClassifier(n_estimators=10, random_state=0), [0, 1, 2], "INT64"),
}


@pytest.mark.parametrize("kind", CLASSIFIERS)
def test_classifiers_give_labels_and_probabilities(bench: Bench, table: pd.DataFrame, kind: str) -> None:
    make, classes, datatype = CLASSIFIERS[kind]
    features = table[["city", "area"]].astype({"area": "float32"})
    labels = np.array(classes)[
        np.digitize(table.price, np.quantile(table.price, np.arange(1, len(classes)) / len(classes)))
    ]
    bench.model(prepared(make(), ["area"]).fit(features, labels), features)
    bench.rows(table.assign(label=labels))

    result = bench.convert("label")

    outputs = [(tensor["datatype"], len(tensor["shape"])) for tensor in result["outputs"]]
    assert outputs == [(datatype, 1), ("FP32", 2)]
    metrics = bench.score("label")["metrics"]
    assert set(metrics) == {"accuracy", "f1_macro"}
    assert metrics["accuracy"] > 0.5
    served = json.loads((bench.output / "rows.json").read_text())["outputs"]
    assert [tensor["shape"] for tensor in served] == [[500], [500, len(classes)]]


def test_a_classifier_without_probabilities_gives_labels_alone(bench: Bench, table: pd.DataFrame) -> None:
    features = table[["area"]].astype({"area": "float32"})
    bench.model(make_pipeline(StandardScaler(), LinearSVC()).fit(features, table.price > 2), features)
    bench.rows(table)

    result = bench.convert()

    assert result["chosen"]
    assert [tensor["datatype"] for tensor in result["outputs"]] == ["INT64"]


def test_a_model_of_a_matrix_takes_one_input(bench: Bench, table: pd.DataFrame) -> None:
    matrix = table[["area", "income"]].to_numpy(dtype=np.float64)
    spec = [{"type": "tensor", "tensor-spec": {"dtype": "float64", "shape": [-1, 2]}}]
    bench.model(forest().fit(matrix, table.price), None, signature={"inputs": json.dumps(spec)})
    bench.rows(table[["area", "income", "price"]])

    result = bench.convert("price")

    assert result["chosen"]
    assert result["inputs"] == [{"name": "input", "datatype": "FP64", "shape": [-1, 2]}]


def test_served_rows_are_a_request_and_the_native_answers(bench: Bench, table: pd.DataFrame) -> None:
    features = table[["city", "area"]].astype({"area": "float32"})
    pipeline = prepared(forest(), ["area"]).fit(features, table.price)
    bench.model(pipeline, features)
    bench.rows(table)

    bench.convert("price")
    served = json.loads((bench.output / "rows.json").read_text())

    cells = {tensor["name"]: tensor["data"] for tensor in served["inputs"]}
    asked = pd.DataFrame({"city": cells["city"], "area": np.array(cells["area"], dtype=np.float32)})
    assert served["outputs"][0]["data"] == pytest.approx(pipeline.predict(asked).tolist(), rel=1e-12)
    assert [(t["name"], t["shape"]) for t in served["inputs"]] == [("city", [500, 1]), ("area", [500, 1])]
    pairs = json.loads((bench.output / "parity.json").read_text())
    assert len(pairs["native"]) == len(pairs["onnx"]) == 2000


def test_a_category_that_training_did_not_know_fails_only_in_the_strict_model(
    bench: Bench, table: pd.DataFrame
) -> None:
    """What the demo's fourth version does to live traffic."""
    features = table[["city", "area"]].astype({"area": "float32"})
    asked = {"city": np.array(["Rome"], dtype=object), "area": np.array([1000], dtype=np.float32)}
    encoders = {"strict": OneHotEncoder(sparse_output=False), "lenient": OneHotEncoder(handle_unknown="ignore")}
    runners = {}
    bench.rows(table)
    for name, encoder in encoders.items():
        columns = ColumnTransformer([("t", encoder, ["city"]), ("n", StandardScaler(), ["area"])])
        bench.model(make_pipeline(columns, LinearRegression()).fit(features, table.price), features)
        assert bench.convert()["chosen"]
        runners[name] = Runner((bench.output / "model.onnx").read_bytes())

    assert np.isfinite(runners["lenient"].run(asked)[0]).all()
    with pytest.raises(Exception, match="Unknown Category"):
        runners["strict"].run(asked)


def test_data_frames_of_numbers_answer_a_request_without_rows(bench: Bench, table: pd.DataFrame) -> None:
    """skl2onnx's way to put columns side by side ends ONNX Runtime's process then, and a server with it."""
    features = table[["area", "income"]]
    bench.model(make_pipeline(StandardScaler(), LinearRegression()).fit(features, table.price), features)
    bench.rows(table)

    result = bench.convert()

    assert result["rungs"][-1]["zero_rows"] == "answers"
    runner = Runner((bench.output / "model.onnx").read_bytes())
    assert runner.run({name: features[name].to_numpy()[:0] for name in ("area", "income")})[0].shape == (0, 1)
