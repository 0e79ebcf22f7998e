"""What `convert` and `score` refuse, and how ONNX models that come as they are get through."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pandas as pd
import pytest
from skl2onnx import to_onnx
from sklearn.cluster import KMeans
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from tests.sandbox_bench import Bench, forest, listings, prepared
from workers.sandbox.__main__ import run
from workers.sandbox.refusal import Refused


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    return listings()


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_an_onnx_model_stays_what_it_is(bench: Bench, table: pd.DataFrame) -> None:
    features = table[["city", "area"]].astype({"area": "float32"})
    bench.model(prepared(forest(), ["area"]).fit(features, table.price), features)
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
    (bench.inputs / "model" / "MLmodel").write_text("flavors: {prophet: {}, python_function: {}}")

    refused = _refusal(bench)

    assert refused["code"] == "unsupported-flavor"
    assert "prophet" in refused["reason"]
    assert "xgboost" in refused["remedy"]
    assert "logged as ONNX" in refused["remedy"]


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
            'signature: {inputs: \'[{"name": "when", "type": "binary"}]\'}',
            "unsupported-column",
        ),
        (
            "flavors: {sklearn: {pickled_model: model.skops}}\n"
            'signature: {inputs: \'[{"type": "tensor", "tensor-spec": {"dtype": "float32", "shape": [-1, -1, 8]}}]\'}',
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


def test_an_onnx_model_of_maps_is_refused(bench: Bench, table: pd.DataFrame) -> None:
    features = table[["area"]].astype({"area": "float32"})
    model = LogisticRegression().fit(features.to_numpy(), table.price > 2)
    bench.onnx_model(to_onnx(model, features.to_numpy()[:1]).SerializeToString())
    bench.rows(features)

    refused = _refusal(bench)

    assert refused["code"] == "unsupported-type"
    assert "zipmap" in refused["remedy"]


@pytest.mark.parametrize("program", ["convert", "score"])
def test_an_onnx_model_that_fails_on_the_rows_is_refused(bench: Bench, table: pd.DataFrame, program: str) -> None:
    """For `score` that keeps a live model's failure from being put down to its challenger."""
    model = make_pipeline(OneHotEncoder(sparse_output=False), LinearRegression()).fit(table[["city"]], table.price)
    data = to_onnx(model, table[["city"]].head(1)).SerializeToString()
    bench.onnx_model(data)
    (bench.inputs / "onnx").write_bytes(data)
    bench.rows(table.assign(city="Rome"))

    more: dict[str, Any] = {"check": True, "batches": [], "slices": [], "nudges": []}
    refused = run(program, bench.request(**more), bench.inputs, bench.output)["refused"]

    assert refused["code"] == "cannot-predict"
    assert "Unknown Category" in refused["reason"]
