"""The judging rows: drawn by a seed, typed by the signature, refused where they do not fit."""

import csv
import gzip
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workers.sandbox.mlmodel import Card
from workers.sandbox.refusal import Refused
from workers.sandbox.rows import Wanted, draw, from_example, from_file, sample
from workers.sandbox.tensors import Column, Matrix

COLUMNS = (Column("city", "string"), Column("size", "float"), Column("rooms", "long"), Column("new", "boolean"))
HEADER = ["size", "city", "rooms", "new", "price", "unused"]
LINES = [
    ["1.5", "Ulm", "3", "true", "10", "x"],
    ["2.5", "Bonn", "4.0", "0", "20", "x"],
    ["", "Köln", "5", "1", "30", "x"],
    ["4.5", "", "6", "false", "40", "x"],
]


def _write(file: Path, lines: list[list[str]], header: list[str] = HEADER) -> Path:
    with file.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([header, *lines])
    return file


@settings(deadline=None)
@given(st.integers(0, 400), st.integers(1, 400), st.integers(0, 2**32 - 1))
def test_a_sample_is_the_same_each_time_and_of_the_right_size(total: int, count: int, seed: int) -> None:
    chosen = sample(total, count, seed)

    assert chosen == sample(total, count, seed)
    assert len(chosen) == min(total, count)
    assert chosen <= set(range(total))


def test_values_take_the_types_of_the_signature(tmp_path: Path) -> None:
    rows = from_file(_write(tmp_path / "rows.csv", LINES), COLUMNS, Wanted("price", 100, 1))

    assert rows.table["city"].tolist() == ["Ulm", "Bonn", ""]
    assert rows.table["size"].dtype == np.float32
    assert rows.table["rooms"].tolist() == [3, 4, 6]
    assert rows.table["new"].tolist() == [True, False, False]
    assert (rows.labels, rows.source, rows.dropped) == (("10", "20", "40"), "data", 1)


def test_a_missing_number_stays_where_the_column_may_lack_it(tmp_path: Path) -> None:
    columns = (Column("size", "double", required=False),)
    rows = from_file(_write(tmp_path / "rows.csv", LINES), columns, Wanted(None, 100, 1))

    assert rows.count == 4
    assert np.isnan(rows.table["size"][2])


def test_gzip_is_read_by_content(tmp_path: Path) -> None:
    plain = _write(tmp_path / "rows.csv", LINES)
    packed = tmp_path / "rows"
    packed.write_bytes(gzip.compress(plain.read_bytes()))

    assert from_file(packed, COLUMNS, Wanted(None, 9, 1)).table["rooms"].tolist() == [3, 4, 6]


def test_the_same_rows_are_drawn_whatever_the_model_reads(tmp_path: Path) -> None:
    lines = [[str(n), "Ulm", str(n), "1", str(n), "x"] for n in range(500)]
    file = _write(tmp_path / "rows.csv", lines)

    one = from_file(file, (Column("rooms", "long"),), Wanted("price", 50, 3))
    other = from_file(file, (Column("size", "double"),), Wanted("price", 50, 3))

    assert one.labels == other.labels
    assert one.count == 50


def test_a_matrix_takes_all_columns_but_the_label_in_order(tmp_path: Path) -> None:
    file = _write(tmp_path / "rows.csv", [["1", "2", "9"], ["3", "4", "8"]], ["b", "a", "label"])
    rows = from_file(file, Matrix("input", "float", 2), Wanted("label", 10, 1))

    assert rows.table["input"].tolist() == [[1.0, 2.0], [3.0, 4.0]]


@pytest.mark.parametrize(
    ("columns", "label", "code", "word"),
    [
        ((Column("garage", "float"),), None, "missing-columns", "garage"),
        ((Column("size", "float"),), "rent", "missing-columns", "rent"),
        ((Column("city", "float"),), None, "bad-rows", "city"),
        ((Column("size", "long", required=False),), None, "bad-rows", "size"),
        ((Column("rooms", "boolean"),), None, "bad-rows", "rooms"),
        (Matrix("input", "float", 2), None, "missing-columns", "takes 2 columns"),
    ],
)
def test_what_does_not_fit_is_named(
    tmp_path: Path, columns: tuple[Column, ...], label: str | None, code: str, word: str
) -> None:
    with pytest.raises(Refused, match=word) as caught:
        from_file(_write(tmp_path / "rows.csv", LINES), columns, Wanted(label, 9, 1))

    assert caught.value.code == code
    assert caught.value.remedy


@pytest.mark.parametrize("content", [b"", b"size,price\n", b"size,price\n,1\n", b"\xff\xfe\x00size\n"])
def test_files_without_usable_rows_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "rows.csv").write_bytes(content)

    with pytest.raises(Refused):
        from_file(tmp_path / "rows.csv", (Column("size", "float"),), Wanted("price", 9, 1))


def _card(tmp_path: Path, example: object) -> Card:
    (tmp_path / "input_example.json").write_text(json.dumps(example))
    return Card("sklearn", tmp_path / "m", "skops", None, tmp_path / "input_example.json", "dataframe", "1")


@pytest.mark.parametrize(
    "example",
    [
        {"columns": ["size", "city"], "data": [[1.5, "Ulm"], [None, "Bonn"]]},
        {"dataframe_split": {"columns": ["city", "size"], "data": [["Ulm", 1.5], ["Bonn", None]]}},
        {"inputs": {"city": ["Ulm", "Bonn"], "size": [1.5, None]}},
    ],
)
def test_examples_of_data_frames_are_read(tmp_path: Path, example: object) -> None:
    columns = (Column("city", "string"), Column("size", "float", required=False))
    rows = from_example(_card(tmp_path, example), columns)

    assert rows.table["city"].tolist() == ["Ulm", "Bonn"]
    assert rows.table["size"][0] == 1.5
    assert rows.source == "input example"


@pytest.mark.parametrize("example", [[[1, 2], [3, 4]], {"inputs": [[1, 2], [3, 4]]}])
def test_examples_of_arrays_are_read(tmp_path: Path, example: object) -> None:
    rows = from_example(_card(tmp_path, example), Matrix("input", "double", 2))

    assert rows.table["input"].tolist() == [[1.0, 2.0], [3.0, 4.0]]


@pytest.mark.parametrize("example", [{"columns": ["size"], "data": [["wide"]]}, {"columns": ["x"], "data": [[1]]}, 7])
def test_examples_that_do_not_fit_are_refused(tmp_path: Path, example: object) -> None:
    with pytest.raises(Refused, match="example"):
        from_example(_card(tmp_path, example), (Column("size", "float"),))


def test_without_any_rows_the_remedy_names_both_ways(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="no rows") as caught:
        draw({"rows": {"file": None}}, tmp_path, COLUMNS)

    assert "input_example" in caught.value.remedy
    assert "policy" in caught.value.remedy
