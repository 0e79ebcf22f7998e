"""The conversion in this process, on small models: which rung is taken, what the ONNX model takes, what is refused."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pandas as pd
import pytest
import skops.io
import yaml
from sklearn.cluster import KMeans
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import (
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.svm import LinearSVC

from workers.sandbox import convert, score
from workers.sandbox.__main__ import run
from workers.sandbox.ladder import RUNGS
from workers.sandbox.refusal import Refused
from workers.sandbox.runner import Runner

ROWS = 3000
MLFLOW_TYPES = {"float32": "float", "float64": "double", "int64": "long", "int32": "integer", "bool": "boolean"}


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    rng = np.random.default_rng(3)
    return pd.DataFrame(
        {
            "city": rng.choice(["Ulm", "Bonn", "Köln"], ROWS),
            # Far from zero and close together: where 32 bits are too few, the next branch of a tree is near.
            "area": rng.normal(1000, 5, ROWS).round(3),
            "income": rng.integers(0, 10**6, ROWS),
            "price": rng.normal(0, 1, ROWS),
        }
    ).assign(price=lambda t: t.price + t.area / 5 - 200 + t.income / 2e5 + (t.city == "Ulm"))


class Bench:
    """Writes models as MLflow does and converts them in this process."""

    def __init__(self, folder: Path) -> None:
        self.inputs, self.output = folder / "in", folder / "out"
        (self.inputs / "model").mkdir(parents=True)
        self.output.mkdir()

    def model(self, estimator: Any, features: pd.DataFrame | None, **extra: Any) -> None:
        (self.inputs / "model" / "model.skops").write_bytes(skops.io.dumps(estimator))
        flavor = {"pickled_model": "model.skops", "serialization_format": "skops", "sklearn_version": "1"}
        document: dict[str, Any] = {"flavors": {"sklearn": flavor, "python_function": {}}, **extra}
        if features is not None:
            specs = [
                {"name": name, "type": MLFLOW_TYPES.get(str(features[name].dtype), "string"), "required": True}
                for name in features
            ]
            document["signature"] = {"inputs": json.dumps(specs)}
        (self.inputs / "model" / "MLmodel").write_text(yaml.safe_dump(document))

    def onnx_model(self, data: bytes, **extra: Any) -> None:
        (self.inputs / "model" / "model.onnx").write_bytes(data)
        document = {"flavors": {"onnx": {"data": "model.onnx"}}, **extra}
        (self.inputs / "model" / "MLmodel").write_text(yaml.safe_dump(document))

    def rows(self, table: pd.DataFrame) -> None:
        table.to_csv(self.inputs / "rows", index=False)

    def request(self, label: str | None = None, **options: Any) -> dict[str, Any]:
        rows = {"file": "rows", "label": label, "count": 2000, "seed": 5}
        return {"rows": rows, "rtol": 1e-4, "atol": 1e-5, "max_wrong_rows": 0, "batches": [1], **options}

    def convert(self, label: str | None = None, **options: Any) -> Mapping[str, Any]:
        return convert.run(self.request(label, **options), self.inputs, self.output)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def _prepared(model: Any, numbers: list[str], **encoder: Any) -> Pipeline:
    one_hot = OneHotEncoder(handle_unknown="ignore", sparse_output=False, **encoder)
    return make_pipeline(ColumnTransformer([("t", one_hot, ["city"]), ("n", StandardScaler(), numbers)]), model)


def _forest() -> RandomForestRegressor:
    return RandomForestRegressor(8, max_depth=11, random_state=0)


REGRESSORS: dict[str, Callable[[], Any]] = {
    "linear": LinearRegression,
    "forest": _forest,
    "boosting": lambda: GradientBoostingRegressor(n_estimators=30, random_state=0),
    "histogram": lambda: HistGradientBoostingRegressor(max_iter=30, random_state=0),
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", REGRESSORS)
def test_every_regressor_ends_on_a_rung_that_agrees(bench: Bench, table: pd.DataFrame, kind: str, dtype: str) -> None:
    features = table[["city", "area", "income"]].astype({"area": dtype, "income": dtype})
    pipeline = _prepared(REGRESSORS[kind](), ["area", "income"]).fit(features, table.price)
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


def test_a_forest_on_doubles_needs_the_last_rung(bench: Bench, table: pd.DataFrame) -> None:
    """The plain conversion succeeds and answers wrongly: that is why each rung is measured on rows."""
    features = table[["city", "area", "income"]]
    bench.model(_prepared(_forest(), ["area", "income"]).fit(features, table.price), features)
    bench.rows(table)

    result = bench.convert()

    assert result["rungs"][0]["status"] == "differs"
    assert result["rungs"][0]["wrong_rows"] > 0
    assert result["chosen"] == "double-then-float"
    assert {t["name"]: t["datatype"] for t in result["inputs"]}["income"] == "INT64"


def test_where_no_rung_agrees_all_are_reported_and_nothing_is_left(bench: Bench, table: pd.DataFrame) -> None:
    features = table[["city", "area"]]
    bench.model(_prepared(_forest(), ["area"]).fit(features, table.price), features)
    bench.rows(table)

    result = bench.convert(rtol=0.0, atol=0.0)

    assert result["chosen"] is None
    assert [rung["name"] for rung in result["rungs"]] == [rung.name for rung in RUNGS]
    assert list(bench.output.iterdir()) == []


def test_rows_that_may_be_wrong_are_a_matter_of_policy(bench: Bench, table: pd.DataFrame) -> None:
    features = table[["city", "area", "income"]]
    bench.model(_prepared(_forest(), ["area", "income"]).fit(features, table.price), features)
    bench.rows(table)

    assert bench.convert(max_wrong_rows=2000)["chosen"] == "default"


def test_the_same_model_gives_the_same_bytes(bench: Bench, table: pd.DataFrame) -> None:
    features = table[["city", "area", "income"]]
    bench.model(_prepared(_forest(), ["area", "income"]).fit(features, table.price), features)
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
    bench.model(_prepared(make(), ["area"]).fit(features, labels), features)
    bench.rows(table.assign(label=labels))

    result = bench.convert("label")

    outputs = [(tensor["datatype"], len(tensor["shape"])) for tensor in result["outputs"]]
    assert outputs == [(datatype, 1), ("FP32", 2)]
    assert set(result["metrics"]) == {"accuracy", "f1_macro"}
    assert result["metrics"]["accuracy"] > 0.5
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
    bench.model(_forest().fit(matrix, table.price), None, signature={"inputs": json.dumps(spec)})
    bench.rows(table[["area", "income", "price"]])

    result = bench.convert("price")

    assert result["chosen"]
    assert result["inputs"] == [{"name": "input", "datatype": "FP64", "shape": [-1, 2]}]


def test_served_rows_are_a_request_and_the_native_answers(bench: Bench, table: pd.DataFrame) -> None:
    features = table[["city", "area"]].astype({"area": "float32"})
    pipeline = _prepared(_forest(), ["area"]).fit(features, table.price)
    bench.model(pipeline, features)
    bench.rows(table)

    result = bench.convert("price")
    served = json.loads((bench.output / "rows.json").read_text())

    cells = {tensor["name"]: tensor["data"] for tensor in served["inputs"]}
    asked = pd.DataFrame({"city": cells["city"], "area": np.array(cells["area"], dtype=np.float32)})
    assert served["outputs"][0]["data"] == pytest.approx(pipeline.predict(asked).tolist(), rel=1e-12)
    assert [(t["name"], t["shape"]) for t in served["inputs"]] == [("city", [500, 1]), ("area", [500, 1])]
    pairs = json.loads((bench.output / "parity.json").read_text())
    assert len(pairs["native"]) == len(pairs["onnx"]) == 2000
    assert set(result["latency_ms"]) == {"1"}
    assert 0 < len(result["latency_samples_ms"]["1"]) <= 200


def test_score_measures_the_same_rows_in_the_same_way(bench: Bench, table: pd.DataFrame) -> None:
    features = table[["city", "area"]].astype({"area": "float32"})
    bench.model(_prepared(_forest(), ["area"]).fit(features, table.price), features)
    bench.rows(table)
    converted = bench.convert("price")
    (bench.inputs / "onnx").write_bytes((bench.output / "model.onnx").read_bytes())

    scored = score.run({**bench.request("price"), "batches": []}, bench.inputs, bench.output)

    assert scored["metrics"] == converted["metrics"]
    assert (scored["rows"], scored["latency_ms"]) == (2000, {})


def test_an_onnx_model_stays_what_it_is(bench: Bench, table: pd.DataFrame) -> None:
    features = table[["city", "area"]].astype({"area": "float32"})
    bench.model(_prepared(_forest(), ["area"]).fit(features, table.price), features)
    bench.rows(table)
    bench.convert()
    data = (bench.output / "model.onnx").read_bytes()
    bench.onnx_model(data)

    result = bench.convert("price")

    assert (result["flavor"], result["chosen"]) == ("onnx", "as-is")
    assert "nothing else to compare" in result["native"]
    assert (bench.output / "model.onnx").read_bytes() == data


def _tiny_onnx(domain: str = "", external: bool = False) -> bytes:
    helper = onnx.helper
    node = helper.make_node("Add", ["x", "w"], ["y"], domain=domain)
    tensors = [helper.make_tensor_value_info(name, 1, [None, 1]) for name in "xy"]
    weight = onnx.numpy_helper.from_array(np.ones((1, 1), dtype=np.float32), "w")
    if external:
        weight.data_location = onnx.TensorProto.EXTERNAL
        weight.external_data.add(key="location", value="../../etc/passwd")
        weight.ClearField("raw_data")
    graph = helper.make_graph([node], "g", tensors[:1], tensors[1:], [weight])
    opsets = [helper.make_opsetid("", 18), *([helper.make_opsetid(domain, 1)] if domain else [])]
    data: bytes = helper.make_model(graph, opset_imports=opsets, ir_version=9).SerializeToString()
    return data


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (_tiny_onnx(domain="evil.ops"), "unknown-operators"),
        (_tiny_onnx(external=True), "external-data"),
        (b"not onnx at all", "invalid-onnx"),
        (b"", "invalid-onnx"),
    ],
)
def test_onnx_models_that_cannot_be_served_are_refused(bench: Bench, data: bytes, code: str) -> None:
    bench.onnx_model(data)

    with pytest.raises(Refused) as caught:
        bench.convert()
    assert caught.value.code == code


def _refusal(bench: Bench, **options: Any) -> Mapping[str, str]:
    refused: Mapping[str, str] = run("convert", bench.request(**options), bench.inputs, bench.output)["refused"]
    assert refused["reason"]
    assert refused["remedy"]
    return refused


def test_a_model_without_signature_is_refused_with_the_remedy(bench: Bench, table: pd.DataFrame) -> None:
    bench.model(LinearRegression().fit(table[["area"]], table.price), None)

    refused = _refusal(bench)

    assert refused["code"] == "no-signature"
    assert "infer_signature" in refused["remedy"]


def test_another_flavor_is_refused_by_name(bench: Bench) -> None:
    (bench.inputs / "model" / "MLmodel").write_text("flavors: {pytorch: {}, python_function: {}}")

    refused = _refusal(bench)

    assert refused["code"] == "unsupported-flavor"
    assert "pytorch" in refused["reason"]
    assert "sklearn and onnx" in refused["remedy"]


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("- a list", "bad-mlmodel"),
        ("{", "bad-mlmodel"),
        ("flavors: {sklearn: {pickled_model: ../../etc/passwd}}", "bad-mlmodel"),
        ("flavors: {sklearn: {pickled_model: /etc/passwd}}", "bad-mlmodel"),
        ("flavors: {sklearn: {pickled_model: gone.pkl}}", "bad-mlmodel"),
        ("flavors: {onnx: {data: model.skops}}\nsignature: {inputs: '['}", "bad-mlmodel"),
        (
            "flavors: {sklearn: {pickled_model: model.skops}}\n"
            'signature: {inputs: \'[{"name": "when", "type": "datetime"}]\'}',
            "unsupported-column",
        ),
        (
            "flavors: {sklearn: {pickled_model: model.skops}}\n"
            'signature: {inputs: \'[{"type": "tensor", "tensor-spec": {"dtype": "float32", "shape": [-1, 8, 8]}}]\'}',
            "unsupported-column",
        ),
    ],
)
def test_odd_mlmodel_files_are_refused(bench: Bench, text: str, code: str) -> None:
    (bench.inputs / "model" / "model.skops").write_bytes(b"")
    (bench.inputs / "model" / "MLmodel").write_text(text)

    assert _refusal(bench)["code"] == code


def test_a_clusterer_is_refused(bench: Bench, table: pd.DataFrame) -> None:
    features = table[["area"]]
    bench.model(KMeans(2, n_init=1, random_state=0).fit(features), features)
    bench.rows(table)

    assert _refusal(bench)["code"] == "unsupported-estimator"


def test_columns_that_the_rows_lack_are_named(bench: Bench, table: pd.DataFrame) -> None:
    features = table[["area", "income"]]
    bench.model(LinearRegression().fit(features, table.price), features)
    bench.rows(table[["area"]])

    refused = _refusal(bench)

    assert refused["code"] == "missing-columns"
    assert "income" in refused["reason"]


def test_bytes_that_are_no_model_are_refused(bench: Bench, table: pd.DataFrame) -> None:
    bench.model(LinearRegression().fit(table[["area"]], table.price), table[["area"]])
    bench.rows(table)
    (bench.inputs / "model" / "model.skops").write_bytes(b"junk")

    assert _refusal(bench)["code"] == "cannot-load"


def test_a_wrong_signature_is_the_models_fault(bench: Bench, table: pd.DataFrame) -> None:
    bench.model(LinearRegression().fit(table[["area", "income"]], table.price), table[["area"]])
    bench.rows(table)

    assert _refusal(bench)["code"] == "cannot-predict"


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
