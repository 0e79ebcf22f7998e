"""The rows that a model is judged on: drawn from a file by a seed, or the model's own input example."""

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from . import files
from .mlmodel import Card
from .refusal import DATA_REMEDY, Refused
from .tensors import Array, Column, Matrix, Signature, Table


@dataclass(frozen=True)
class Rows:
    """Typed columns, the labels as text where there are any, where they come from, how many rows were dropped because a
    value that must be there was missing, and the columns as text that were asked for besides."""

    table: Table
    labels: tuple[str, ...] | None
    source: str
    dropped: int = 0
    texts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def count(self) -> int:
        return len(next(iter(self.table.values())))


def draw(
    request: Mapping[str, Any], inputs: Path, signature: Signature, example: Callable[[], Rows] | None = None
) -> Rows:
    """The rows that `request["rows"]` asks for: of a file in `inputs`, else the example.

    Raises:
        Refused: there is neither, columns are missing, or values are not of their column's type.
    """
    asked = request["rows"]
    if asked.get("file"):
        wanted = Wanted(
            asked.get("label"), asked["count"], asked["seed"], tuple(asked.get("texts", ())), asked.get("complete", ())
        )
        return from_file(inputs / str(asked["file"]), signature, wanted)
    if example is None:
        remedy = "Log the model with input_example=..., or name data in the policy."
        raise Refused("no-rows", "There are no rows to compare the model on.", remedy)
    return example()


@dataclass(frozen=True)
class Wanted:
    """Which rows of a file, at most `count` drawn by `seed`, and which columns of it besides those that the model
    takes: the `label`, and `texts` as they stand there. Rows that lack a value in one of `complete` are dropped, too.
    """

    label: str | None
    count: int
    seed: int
    texts: tuple[str, ...] = ()
    complete: Sequence[str] = ()

    @property
    def columns(self) -> tuple[str, ...]:
        return (*([self.label] if self.label else []), *self.texts)


def from_file(file: Path, signature: Signature, wanted: Wanted) -> Rows:
    """Rows of a CSV file with a header (plain or gzip) or of a Parquet file, in the file's order.

    A missing value is what `Column` says where the column is optional; else its row is dropped. Missing text is the
    empty text.

    Raises:
        Refused: a column or the label is missing, a value is not of its column's type, or no row is left.
    """
    with files.opened(file) as lines:
        header = next(lines, [])
        total = sum(1 for _ in lines)
    columns = _columns(signature, header, wanted.label)
    missing = [name for name in (*(c.name for c in columns), *wanted.columns) if name not in header]
    if missing:
        reason = f"The judging rows lack the columns {', '.join(map(ascii, missing))}."
        raise Refused("missing-columns", reason, DATA_REMEDY)
    chosen = sample(total, wanted.count, wanted.seed)
    with files.opened(file) as lines:
        next(lines)
        picked = [line for number, line in enumerate(lines) if number in chosen]
    return _typed(picked, header, columns, signature, wanted)


def sample(total: int, count: int, seed: int) -> frozenset[int]:
    """Which of `total` rows are drawn: the same for the same arguments, on every machine."""
    if count >= total:
        return frozenset(range(total))
    return frozenset(np.random.default_rng(seed).choice(total, count, replace=False).tolist())


def from_example(card: Card, signature: Signature) -> Rows:
    """The rows of MLflow's input example, in the formats that MLflow writes for data frames and arrays.

    Raises:
        Refused: it cannot be read or does not fit the signature.
    """
    assert card.example is not None
    try:
        value = json.loads(card.example.read_text())
        table = _example_table(value, signature)
    except (ValueError, KeyError, TypeError, IndexError) as error:
        reason = f"The input example does not fit the signature: {error}"
        raise Refused("bad-example", reason, "Log the model with an input example of its own columns.") from error
    rows = Rows(table, None, "input example")
    if rows.count == 0:
        raise Refused("no-rows", "The input example has no rows.", "Log the model with a filled input example.")
    return rows


def _example_table(value: Any, signature: Signature) -> Table:
    if isinstance(value, dict):
        value = value.get("dataframe_split", value)
        data = value["data"] if "data" in value else value.get("inputs", value)
    else:
        data = value
    if isinstance(signature, Matrix):
        matrix = np.array(data, dtype=signature.kind.dtype)
        return {signature.name: matrix.reshape(-1, *signature.shape)}
    if isinstance(data, dict):
        cells = {name: list(values) for name, values in data.items()}
    else:
        cells = {name: [line[at] for line in data] for at, name in enumerate(value["columns"])}
    return {c.name: _array([("" if v is None else str(v)) for v in cells[c.name]], c) for c in signature}


def _columns(signature: Signature, header: Sequence[str], label: str | None) -> tuple[Column, ...]:
    """The columns to read; a matrix takes the file's columns, but the label, in their order."""
    if not isinstance(signature, Matrix):
        return signature
    names = [name for name in header if name != label]
    if len(names) != signature.width:
        reason = f"The model takes {signature.width} columns, the judging rows have {len(names)} besides the label."
        raise Refused("missing-columns", reason, DATA_REMEDY)
    return tuple(Column(name, signature.type) for name in names)


def _typed(
    picked: Sequence[Sequence[str]],
    header: Sequence[str],
    columns: Sequence[Column],
    signature: Signature,
    wanted: Wanted,
) -> Rows:
    at = {name: position for position, name in enumerate(header)}
    needed = {c.name for c in columns if c.required and c.type != "string"} | {wanted.label, *wanted.complete}
    places = [at[name] for name in header if name in needed]
    kept = [line for line in picked if len(line) == len(header) and not any(_is_missing(line[n]) for n in places)]
    if not kept:
        raise Refused("no-judging-rows", "No judging row has all values that the model needs.", DATA_REMEDY)
    try:
        arrays = {c.name: _array([line[at[c.name]] for line in kept], c) for c in columns}
    except ValueError as error:
        raise Refused("bad-rows", f"The judging rows do not fit the signature: {error}", DATA_REMEDY) from error
    texts = {name: tuple(line[at[name]] for line in kept) for name in wanted.columns}
    table = arrays
    if isinstance(signature, Matrix):
        table = {signature.name: np.column_stack(list(arrays.values())).reshape(-1, *signature.shape)}
    return Rows(table, texts.get(wanted.label or ""), "data", len(picked) - len(kept), texts)


def _is_missing(text: str) -> bool:
    return text.strip().lower() in {"", "na", "nan", "null", "none", "inf", "-inf"}


def _array(texts: Sequence[str], column: Column) -> Array:
    """The column's values.

    Raises:
        ValueError: a text is not of the column's type; the message names both.
    """
    if column.type == "string":
        return np.array(texts, dtype=object)
    read = _maybe(_NUMBERS[column.type]) if column.may_lack_whole else _NUMBERS[column.type]
    try:
        return np.array([read(text) for text in texts], dtype=column.kind.dtype)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"column {column.name!a} of type {column.type}: {error}") from error


def _float(text: str) -> float:
    return math.nan if _is_missing(text) else float(text)


def _maybe(read: Callable[[str], Any]) -> Callable[[str], float]:
    """Reads whole numbers that may be missing, as 64-bit numbers with NaN.

    Raises:
        ValueError: a number is too large to be held exactly.
    """

    def maybe(text: str) -> float:
        if _is_missing(text):
            return math.nan
        whole = int(read(text))
        if abs(whole) > _EXACT:
            raise ValueError(f"{text!a} is too large for a column that may lack values")
        return float(whole)

    return maybe


def _nanoseconds(text: str) -> int:
    """Of a point in time in ISO 8601, UTC where it says nothing; the smallest number where it is missing."""
    if _is_missing(text) or text.strip().lower() == "nat":
        return _NO_TIME
    words, _, rest = text.strip().partition(".")
    digits = re.match(r"[0-9]*", rest)
    fraction = digits.group() if digits else ""
    if len(fraction) > 9:
        raise ValueError(f"{text!a} has parts of nanoseconds")
    moment = datetime.fromisoformat(words + rest[len(fraction) :])
    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
    seconds = (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(seconds=1)
    return seconds * 10**9 + int(fraction.ljust(9, "0") if fraction else 0)


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        value = float(text)
        if not value.is_integer():
            raise ValueError(f"{text!a} is not a whole number") from None
        return int(value)


def _truth(text: str) -> bool:
    words = {"true": True, "1": True, "1.0": True, "false": False, "0": False, "0.0": False}
    if text.strip().lower() not in words:
        raise ValueError(f"{text!a} is neither true nor false")
    return words[text.strip().lower()]


_NUMBERS: Mapping[str, Callable[[str], Any]] = {
    "float": _float,
    "double": _float,
    "integer": _whole,
    "long": _whole,
    "boolean": _truth,
    "datetime": _nanoseconds,
}
_EXACT = 2**53
_NO_TIME = -(2**63)
