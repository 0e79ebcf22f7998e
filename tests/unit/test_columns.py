"""Columns that may lack values, points in time and tensors: how they travel, and what the model itself is asked."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from tests.sandbox_bench import Bench
from workers.sandbox.frames import given
from workers.sandbox.refusal import Refused
from workers.sandbox.rows import Rows, Wanted, from_file
from workers.sandbox.runner import Runner
from workers.sandbox.tensors import Column, Matrix

WORDS: dict[str, str] = {
    "age": "long",
    "rooms": "integer",
    "garden": "boolean",
    "area": "double",
    "built": "datetime",
    "city": "string",
}


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def _signature(names: list[str], required: bool = False) -> dict[str, Any]:
    return {"inputs": json.dumps([{"name": name, "type": WORDS[name], "required": required} for name in names])}


def _houses() -> pd.DataFrame:
    chance = np.random.default_rng(4)
    count = 600
    table = pd.DataFrame(
        {
            "age": pd.array(chance.integers(0, 100, count), dtype="Int64"),
            "rooms": pd.array(chance.integers(1, 6, count), dtype="Int32"),
            "garden": pd.array(chance.random(count) > 0.5, dtype="boolean"),
            "area": chance.normal(90, 30, count),
            "city": chance.choice(["Ulm", "Bonn"], count),
            "built": pd.Timestamp("1999-12-31 23:59:59.123456789") + pd.to_timedelta(np.arange(count), unit="h"),
        }
    )
    for name, share in {"age": 0.1, "rooms": 0.2, "garden": 0.15, "area": 0.1}.items():
        table.loc[chance.random(count) < share, name] = None
    return table


def test_columns_that_may_lack_values_are_converted_and_travel_as_numbers_with_nan(bench: Bench) -> None:
    table = _houses()
    names = ["age", "rooms", "garden", "area", "city"]
    numbers = make_pipeline(SimpleImputer(strategy="median"), StandardScaler())
    columns = ColumnTransformer([("n", numbers, names[:4]), ("t", OneHotEncoder(), ["city"])])
    model = make_pipeline(columns, LinearRegression()).fit(table[names], np.arange(len(table)))
    bench.model(model, None, signature=_signature(names))
    bench.rows(table)

    result = bench.convert()

    assert result["chosen"], result["rungs"]
    assert result["rows"] == 600
    assert result["optional"] == names
    types = {tensor["name"]: tensor["datatype"] for tensor in result["inputs"]}
    assert types == {"age": "FP64", "rooms": "FP64", "garden": "FP64", "area": "FP64", "city": "BYTES"}
    asked = {name: table[name].head(9).astype("float64").to_numpy() for name in names[:4]}
    answers = Runner((bench.output / "model.onnx").read_bytes()).run(
        {**asked, "city": table.city.head(9).to_numpy(dtype=object)}
    )
    assert answers[0][:, 0] == pytest.approx(model.predict(table[names].head(9)), rel=1e-4)


def test_the_model_itself_is_asked_with_nullable_columns_and_times(tmp_path: Path) -> None:
    """As MLflow would ask it: the types of pandas that know what is missing."""
    table = _houses()
    table.to_csv(tmp_path / "rows", index=False)
    signature = tuple(Column(name, word, required=False) for name, word in WORDS.items())

    frame = given(from_file(tmp_path / "rows", signature, Wanted(None, 600, 1)), signature)

    assert {name: str(kind) for name, kind in frame.dtypes.items()} == {
        "age": "Int64",
        "rooms": "Int32",
        "garden": "boolean",
        "area": "float64",
        "built": "datetime64[ns]",
        "city": "str",
    }
    for name in ("age", "rooms", "garden"):
        assert frame[name].isna().tolist() == table[name].isna().tolist()
        assert frame[name].dropna().tolist() == table[name].dropna().tolist()
    assert (frame.built.to_numpy() == table.built.to_numpy()).all()


TIMES: dict[str, int] = {
    "1970-01-01": 0,
    "1970-01-01 00:00:01.5": 1_500_000_000,
    "1999-12-31T23:59:59.123456789": 946684799123456789,
    "1969-12-31 23:59:59.999999999": -1,
    "2024-02-29 12:00:00+02:00": 1709200800000000000,
    "2024-02-29 10:00:00.25Z": 1709200800250000000,
    "": -(2**63),
    "NaT": -(2**63),
}


@pytest.mark.parametrize("text", TIMES)
def test_points_in_time_are_exact_nanoseconds(tmp_path: Path, text: str) -> None:
    (tmp_path / "rows").write_text(f"built,other\n{text},1\n")
    signature = (Column("built", "datetime", required=False),)

    rows = from_file(tmp_path / "rows", signature, Wanted(None, 1, 1))

    assert rows.table["built"].dtype == np.int64
    assert rows.table["built"].tolist() == [TIMES[text]]


@pytest.mark.parametrize("text", ["yesterday", "2024-13-01", "2024-01-01 00:00:00.1234567891"])
def test_what_is_no_point_in_time_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "rows").write_text(f"built\n{text}\n")

    with pytest.raises(Refused, match="built"):
        from_file(tmp_path / "rows", (Column("built", "datetime"),), Wanted(None, 1, 1))


def test_a_model_of_a_point_in_time_takes_nanoseconds(bench: Bench) -> None:
    table = _houses()
    nanoseconds = table[["built"]].astype("datetime64[ns]")
    model = make_pipeline(StandardScaler(), LinearRegression()).fit(nanoseconds, np.arange(600.0))
    bench.model(model, None, signature=_signature(["built"], required=True))
    bench.rows(table)

    result = bench.convert()

    assert result["chosen"], result["rungs"]
    assert result["inputs"] == [{"name": "built", "datatype": "INT64", "shape": [-1, 1]}]


def test_whole_numbers_that_may_be_missing_must_be_exact(tmp_path: Path) -> None:
    (tmp_path / "rows").write_text(f"age\n{2**53 + 1}\n")

    with pytest.raises(Refused, match="too large"):
        from_file(tmp_path / "rows", (Column("age", "long", required=False),), Wanted(None, 1, 1))


def test_a_tensor_of_more_dimensions_is_read_from_flat_columns(tmp_path: Path) -> None:
    pd.DataFrame(np.arange(24).reshape(2, 12)).to_csv(tmp_path / "rows", index=False)

    rows = from_file(tmp_path / "rows", Matrix("image", "float", 12, (3, 4)), Wanted(None, 2, 1))

    assert rows.table["image"].shape == (2, 3, 4)
    assert rows.table["image"][1, 2].tolist() == [20, 21, 22, 23]


@pytest.mark.parametrize("make", [LogisticRegression, lambda: RandomForestClassifier(6, random_state=0)])
def test_truth_values_are_converted_as_such(bench: Bench, make: Callable[[], Any]) -> None:
    table = _houses().dropna()
    features = table[["garden", "rooms"]].astype({"garden": bool, "rooms": "int32"})
    bench.model(make().fit(features, table.city), features)
    bench.rows(features)

    result = bench.convert()

    assert result["chosen"], result["rungs"]
    assert [tensor["datatype"] for tensor in result["inputs"]] == ["BOOL", "INT32"]
    assert [tensor["datatype"] for tensor in result["outputs"]] == ["BYTES", "FP32"]


def test_rows_are_counted_where_nothing_is_asked_of_columns() -> None:
    matrix = Matrix("x", "float", 4, (2, 2))
    rows = Rows({"x": np.zeros((5, 2, 2), dtype=np.float32)}, None, "data")

    assert given(rows, matrix).shape == (5, 2, 2)
