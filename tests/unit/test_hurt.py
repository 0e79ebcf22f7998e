"""Rows made to hurt: which kinds a signature gives cause for, and that they find what ordinary rows do not."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.tree import DecisionTreeRegressor

from tests.sandbox_bench import Bench, listings
from workers.sandbox import hurt
from workers.sandbox.hurt import Hurting
from workers.sandbox.tensors import Column, Matrix, Table
from workers.sandbox.thresholds import of_model

COLUMNS = (Column("city", "string", required=False), Column("area", "double", required=False), Column("rooms", "long"))
TABLE: Table = {
    "city": np.array(["Ulm", "Bonn", "Köln"], dtype=object),
    "area": np.array([1.5, 2.5, 3.5]),
    "rooms": np.array([1, 2, 3], dtype=np.int64),
}


def _made(thresholds: list[tuple[str | int, float]]) -> dict[str, Hurting]:
    return {hurting.kind: hurting for hurting in hurt.make(COLUMNS, TABLE, thresholds, 1)}


def _values(hurting: Hurting, name: str) -> set[Any]:
    return set(hurting.table[name].tolist())


def test_every_column_gives_cause_for_its_own_kinds() -> None:
    made = _made([("area", 2.0), ("rooms", 2.5)])

    assert {kind for kind, hurting in made.items() if hurting.decides} == {
        "nudged",
        "thresholds",
        "missing",
        "unknown categories",
        "strings",
        "edges",
    }
    assert "missing where required" not in made  # A whole number has no NaN.
    near = _values(made["thresholds"], "area")
    assert {2.0, np.nextafter(2.0, 3.0), float(np.nextafter(np.float32(2), np.float32(1)))} <= near
    assert {2, 3} <= _values(made["thresholds"], "rooms")
    assert {"", "東京", "x" * 10_000} <= _values(made["strings"], "city")
    assert np.isnan(made["missing"].table["area"]).any()
    assert "" in _values(made["missing"], "city")
    assert {2**24 + 1, 2**63 - 1} <= _values(made["extremes"], "rooms")
    assert np.signbit(made["edges"].table["area"][made["edges"].table["area"] == 0]).any()


def test_the_same_arguments_give_the_same_rows() -> None:
    first, second = _made([("area", 2.0)]), _made([("area", 2.0)])

    for kind, hurting in first.items():
        for name, values in hurting.table.items():
            np.testing.assert_array_equal(values, second[kind].table[name])


def test_a_matrix_is_changed_one_column_at_a_time() -> None:
    made = hurt.make(Matrix("x", "float", 2), {"x": np.ones((3, 2), dtype=np.float32)}, [(1, 0.5)], 1)

    beside = next(hurting for hurting in made if hurting.kind == "thresholds").table["x"]
    assert set(beside[:, 0].tolist()) == {1.0}
    assert float(np.float32(0.5)) in beside[:, 1].tolist()


def test_thresholds_are_found_behind_scalers_in_units_of_the_columns() -> None:
    frame = pd.DataFrame({"city": ["Ulm", "Bonn"] * 50, "area": np.arange(100.0)})
    columns = ColumnTransformer(
        [("t", OneHotEncoder(sparse_output=False), ["city"]), ("n", StandardScaler(), ["area"])]
    )
    model = make_pipeline(columns, DecisionTreeRegressor(max_depth=1)).fit(frame, frame.area > 41)

    found = of_model(model, (Column("city", "string"), Column("area", "double")))

    assert [name for name, _ in found] == ["area"]
    assert found[0][1] == pytest.approx(41.5)


def test_a_rung_that_is_right_on_all_real_rows_fails_on_rows_beside_thresholds(tmp_path: Path) -> None:
    """Whole numbers on either side of a threshold that 32 bits cannot tell apart; the real rows are far from it."""
    area = np.repeat([2.0**25, 2.0**25 + 2], 200)
    frame = pd.DataFrame({"area": area, "price": (area > 2.0**25).astype(float)})
    bench = Bench(tmp_path)
    bench.model(HistGradientBoostingRegressor(max_iter=5).fit(frame[["area"]], frame.price), frame[["area"]])
    bench.rows(frame)

    result = bench.convert("price")

    first = result["rungs"][0]
    assert first["status"] != "agrees"
    assert result["chosen"] == "double"
    assert all(kind["wrong_rows"] == 0 for kind in result["rungs"][-1]["hurting"] if kind["decides"])
    written = json.loads((bench.output / "rows.json").read_text())["hurting"]
    assert "thresholds" in {kind["kind"] for kind in written}


def test_rows_that_the_native_model_refuses_are_counted_and_not_compared(tmp_path: Path) -> None:
    table = listings().head(300)
    features = table[["city", "area"]]
    columns = ColumnTransformer(
        [("t", OneHotEncoder(sparse_output=False), ["city"]), ("n", StandardScaler(), ["area"])]
    )
    bench = Bench(tmp_path)
    bench.model(make_pipeline(columns, LinearRegression()).fit(features, table.price), features)
    bench.rows(table)

    hurting = {kind["kind"]: kind for kind in bench.convert("price")["rungs"][-1]["hurting"]}

    unknown = hurting["unknown categories"]
    assert (unknown["rows"], unknown["onnx_answers"]) == (0, 0)
    assert unknown["native_refuses"] > 0
