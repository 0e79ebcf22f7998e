"""What the program `score` measures beyond metrics: groups of rows, moved inputs, and on which rows."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import parquet
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from tests.sandbox_bench import Bench, forest, listings, prepared
from workers.sandbox import noise, slices
from workers.sandbox.refusal import Refused
from workers.sandbox.rows import Wanted, from_file
from workers.sandbox.tensors import Column


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    return listings()


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def convert(bench: Bench, table: pd.DataFrame, model: Any, names: list[str], label: str | None = "price") -> None:
    features = table[names].astype({"area": "float32"})
    bench.model(model.fit(features, table.price), features)
    bench.rows(table)
    assert bench.convert(label)["chosen"]


def test_groups_are_measured_as_the_whole_is(bench: Bench, table: pd.DataFrame) -> None:
    convert(bench, table, prepared(forest(), ["area"]), ["city", "area"])

    scored = bench.score("price", ["city"], slices=[["city"]])

    (found,) = scored["slices"]
    assert sorted(group["key"] for group in found["groups"]) == [["Bonn"], ["Köln"], ["Ulm"]]
    squares = sum(group["rows"] * group["metrics"]["rmse"] ** 2 for group in found["groups"])
    assert squares / scored["rows"] == pytest.approx(scored["metrics"]["rmse"] ** 2)
    assert [group["rows"] for group in found["groups"]] == sorted((g["rows"] for g in found["groups"]), reverse=True)


def test_groups_beyond_the_most_are_counted() -> None:
    texts = {"id": [str(n) for n in range(slices.MAX_GROUPS + 7)]}
    predictions = np.zeros((len(texts["id"]), 1))
    found = slices.measure(predictions, ["1"] * len(predictions), texts, ["id"])
    assert (len(found["groups"]), found["left_out"]) == (slices.MAX_GROUPS, 7)


def test_a_linear_model_moves_as_far_as_its_inputs(bench: Bench, table: pd.DataFrame) -> None:
    convert(bench, table, LinearRegression(), ["area"])

    (small, large) = bench.score("price", nudges=[0.01, 0.02])["noise"]

    # One input alone, so that the answer moves by as much of its spread as the input by its own.
    assert small["change"] == pytest.approx(0.01, rel=0.01)
    assert large["change"] == pytest.approx(0.02, rel=0.01)
    assert (small["columns"], small["classes"], small["not_finite"]) == (1, False, 0)
    assert small["asked"] == (noise.TRIES + 2) * noise.MAX_ROWS


def test_the_same_nudges_are_made_each_time(bench: Bench, table: pd.DataFrame) -> None:
    convert(bench, table, prepared(forest(), ["area"]), ["city", "area"])
    assert bench.score("price", nudges=[0.01])["noise"] == bench.score("price", nudges=[0.01])["noise"]


def test_answers_that_grow_out_of_bounds_are_counted(bench: Bench, table: pd.DataFrame) -> None:
    class Steep:
        """Answers that are finite for what was seen and infinite a little further out."""

        def answers(self, given: Any) -> list[Any]:
            return [np.where(given["area"] > table.area.max() + 5, np.inf, given["area"])[:, np.newaxis]]

    area = {"area": table.area.to_numpy(dtype=np.float32)}
    found = noise.measure(Steep(), area, 0.01, 1)  # type: ignore[arg-type]  # as much of a runner as is used
    assert found["not_finite"] == noise.MAX_ROWS


def test_constant_answers_and_inputs_without_numbers_have_no_change() -> None:
    class Constant:
        """Always the same."""

        def answers(self, given: Any) -> list[Any]:
            return [np.ones((len(next(iter(given.values()))), 1))]

    runner: Any = Constant()
    numbers = noise.measure(runner, {"x": np.arange(9.0)}, 0.01, 1)
    words = noise.measure(runner, {"x": np.array(["a", "b"], dtype=object)}, 0.01, 1)
    assert (numbers["columns"], numbers["change"]) == (1, None)
    assert (words["columns"], words["change"], words["asked"]) == (0, None, 0)


def test_without_data_the_served_rows_are_timed(bench: Bench, table: pd.DataFrame) -> None:
    convert(bench, table, prepared(forest(), ["area"]), ["city", "area"], None)

    scored = bench.score(None, batches=[1, 4], rows={"file": None, "label": None, "count": 9, "seed": 1})

    assert (scored["rows"], scored["rows_from"], scored["metrics"]) == (500, "input example", {})
    assert set(scored["latency_ms"]) == {"1", "4"}
    assert 0 < len(scored["latency_samples_ms"]["1"]) <= 200


def test_a_file_that_somebody_slipped_in_is_refused(bench: Bench, table: pd.DataFrame) -> None:
    """What `convert` leaves was made beside code that came with the model: it is checked where that cannot be."""
    convert(bench, table, make_pipeline(StandardScaler(), LinearRegression()), ["area"])
    (bench.output / "model.onnx").write_bytes(b"not onnx")
    with pytest.raises(Refused, match="not ONNX"):
        bench.score("price")


def test_rows_that_the_other_version_could_not_answer_are_dropped(tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    file.write_text("a,b,price\n1,2,3\n,2,3\n1,,3\n")
    columns = (Column("a", "float", required=False),)
    assert from_file(file, columns, Wanted("price", 9, 1)).count == 3
    assert from_file(file, columns, Wanted("price", 9, 1, (), ["b", "not there"])).count == 2


def test_parquet_is_read_as_csv_is(tmp_path: Path) -> None:
    columns = {
        "size": pa.array([1.5, None, 4.5]),
        "rooms": pa.array([1, 2, 3], pa.int64()),
        "new": pa.array([True, False, True]),
        "city": pa.array(["Ulm", None, "Köln"]),
        "price": pa.array([1.0, 2.0, 3.0], pa.float32()),
    }
    parquet.write_table(pa.table(columns), tmp_path / "rows")
    signature = (Column("size", "float"), Column("rooms", "long"), Column("new", "boolean"), Column("city", "string"))

    rows = from_file(tmp_path / "rows", signature, Wanted("price", 9, 1, ("city",)))

    assert rows.table["size"].tolist() == [1.5, 4.5]
    assert rows.table["new"].tolist() == [True, True]
    assert (rows.labels, rows.texts["city"], rows.dropped) == (("1.0", "3.0"), ("Ulm", "Köln"), 1)


@pytest.mark.parametrize("content", [b"PAR1", b"PAR1" + b"\0" * 100 + b"PAR1", b"\x1f\x8bnot gzip"])
def test_a_broken_file_is_refused_in_words(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "rows").write_bytes(content)
    with pytest.raises(Refused, match="cannot be read"):
        from_file(tmp_path / "rows", (Column("size", "float"),), Wanted("price", 9, 1))
