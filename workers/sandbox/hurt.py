"""Rows made to hurt: what a conversion that agrees on ordinary rows may still answer otherwise.

They are made from the signature, the real rows and the fitted estimator; the same arguments give the same rows.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from .tensors import Array, Column, Matrix, Signature, Table

BASE = 64
"""Real rows that all others are made from."""
FAR = 10.0
BATCHES = (1, 7, 256)
Place = str | int
"""A column: its name, or its number within a matrix."""
_LONG = 10_000
_UNKNOWN = ("headgate-unknown", "0", "nan", "None")
_STRINGS = ("", " ", "x" * _LONG, "Köln", "Ko\u0308ln", "東京", "🏠", "\u202eabc", "a\tb\n", "İstanbul")


@dataclass(frozen=True)
class Hurting:
    """Rows of one kind. Those that decide lie inside what the model was made for: its rows, the values beside its
    thresholds, what its columns may lack, and any text at all."""

    kind: str
    decides: bool
    table: Table

    @property
    def count(self) -> int:
        return len(next(iter(self.table.values())))


def make(signature: Signature, table: Table, thresholds: Sequence[tuple[Place, float]], seed: int) -> list[Hurting]:
    """All kinds that the signature gives cause for; `table` holds the real rows."""
    bench = _Bench(signature, table, seed)
    kinds: list[tuple[str, bool, Iterator[Table]]] = [
        ("nudged", True, bench.nudged()),
        ("thresholds", True, bench.beside(thresholds)),
        ("missing", True, bench.missing(required=False)),
        ("unknown categories", True, bench.texts(_UNKNOWN, 4)),
        ("strings", True, bench.texts(_STRINGS, 1)),
        ("edges", True, bench.numbers(_edges, 2)),
        ("extremes", False, bench.numbers(_extremes, 1)),
        ("missing where required", False, bench.missing(required=True)),
    ]
    made = [(kind, decides, list(tables)) for kind, decides, tables in kinds]
    return [Hurting(kind, decides, _shaped(_stacked(tables), signature)) for kind, decides, tables in made if tables]


def batch(table: Table, size: int) -> Table:
    """So many rows, the table's in turn."""
    rows = len(next(iter(table.values())))
    return {name: values[np.arange(size) % rows] for name, values in table.items()}


class _Bench:
    """Some real rows, and ways to change one column of them at a time: a name, or a number within the matrix."""

    def __init__(self, signature: Signature, table: Table, seed: int) -> None:
        rows = len(next(iter(table.values())))
        picked = np.sort(np.random.default_rng(seed).choice(rows, min(BASE, rows), replace=False))
        # A tensor of more dimensions is a row of numbers here, whatever their order means.
        flat = {name: values.reshape(rows, -1) if values.ndim > 2 else values for name, values in table.items()}
        self._base: Table = {name: values[picked] for name, values in flat.items()}
        self._all, self._matrix = flat, signature if isinstance(signature, Matrix) else None
        if isinstance(signature, Matrix):
            self._columns: Mapping[Place, Column] = {
                at: Column(str(at), signature.type, required=True) for at in range(signature.width)
            }
        else:
            self._columns = {column.name: column for column in signature}

    def nudged(self) -> Iterator[Table]:
        """Every number one step up, and one down, as 64 bits and as 32 bits have steps."""
        floating = [at for at, column in self._columns.items() if column.own_kind.dtype.kind == "f"]
        doubles = [at for at in floating if self._columns[at].kind.dtype == np.float64]
        widths: list[type] = [*([np.float32] if floating else []), *([np.float64] if doubles else [])]
        for width, direction in ((width, side) for width in widths for side in (np.inf, -np.inf)):
            table = self._base
            for at in floating:
                table = self._with(table, at, _step(self._of(table, at), width, direction))
            yield table

    def beside(self, thresholds: Sequence[tuple[Place, float]]) -> Iterator[Table]:
        """Each threshold, and its neighbours on both sides, put into a few rows."""
        for number, (at, threshold) in enumerate(thresholds):
            column = self._columns[at]
            some = self._rows(number, 4)
            if column.own_kind.dtype.kind == "f":
                yield from (self._put(some, at, value) for value in _neighbours(threshold, column.kind.dtype))
            elif column.own_kind.dtype.kind == "i":
                yield from (self._put(some, at, value) for value in (np.floor(threshold), np.ceil(threshold)))

    def missing(self, required: bool) -> Iterator[Table]:
        """Each column that may lack a value, lacking it, and all of them; or each that must have one."""
        lacking: list[tuple[Place, float | str]] = [
            (at, "" if column.type == "string" else float("nan"))
            for at, column in self._columns.items()
            if column.required == required
            and (column.kind.dtype.kind == "f" or not (required or column.type != "string"))
        ]
        for number, (at, nothing) in enumerate(lacking):
            yield self._put(self._rows(number, 8), at, nothing)
        if len(lacking) > 1:
            table = self._rows(0, 8)
            for at, nothing in lacking:
                table = self._put(table, at, nothing)
            yield table

    def texts(self, words: Sequence[str], rows: int) -> Iterator[Table]:
        """Each text in each column that takes text."""
        for at in (at for at, column in self._columns.items() if column.type == "string"):
            for number, word in enumerate(words):
                yield self._put(self._rows(number, rows), at, word)
            known = sorted({str(value) for value in self._of(self._all, at)[:1000]})[:3]
            for other in (variant for word in known for variant in (f" {word}", f"{word} ", word.swapcase())):
                yield self._put(self._rows(0, 1), at, other)

    def numbers(self, values: Callable[[Array, Column], Sequence[float]], rows: int) -> Iterator[Table]:
        """Each of the values that a column gives cause for, one column at a time."""
        for at, column in self._columns.items():
            if column.own_kind.dtype.kind in "fi":
                found = values(self._of(self._all, at), column)
                yield from (self._put(self._rows(number, rows), at, value) for number, value in enumerate(found))

    def _rows(self, start: int, count: int) -> Table:
        total = len(next(iter(self._base.values())))
        return {name: values[(start + np.arange(min(count, total))) % total] for name, values in self._base.items()}

    def _of(self, table: Table, at: Place) -> Array:
        return table[str(at)] if self._matrix is None else table[self._matrix.name][:, int(at)]

    def _put(self, table: Table, at: Place, value: object) -> Table:
        rows = len(next(iter(table.values())))
        with np.errstate(over="ignore"):
            return self._with(table, at, np.full(rows, value, dtype=self._columns[at].kind.dtype))

    def _with(self, table: Table, at: Place, values: Array) -> Table:
        if self._matrix is None:
            return {**table, str(at): values}
        matrix = table[self._matrix.name].copy()
        matrix[:, int(at)] = values
        return {self._matrix.name: matrix}


def _step(values: Array, width: type, direction: float) -> Array:
    with np.errstate(over="ignore", invalid="ignore"):
        moved: Array = np.nextafter(values.astype(width), width(direction))
    return moved.astype(values.dtype)


def _neighbours(value: float, dtype: np.dtype[np.floating]) -> list[float]:
    """The value in the column's own type, and one step to either side, of 32 bits and, for doubles, of 64."""
    own = dtype.type(value)
    found = [own, *(np.nextafter(own, dtype.type(side)) for side in (-np.inf, np.inf))]
    if dtype == np.float64:
        single = np.float32(value)
        found += [single, *(np.nextafter(single, np.float32(side)) for side in (-np.inf, np.inf))]
    return [float(near) for near in found]


def _edges(values: Array, column: Column) -> list[float]:
    """The least and the greatest value, what lies a little and far beyond them, and zero from both sides."""
    finite = values[np.isfinite(values.astype(np.float64))].astype(np.float64)
    if not len(finite):
        return [0.0]
    low, high, spread = finite.min(), finite.max(), finite.std()
    found = [low, high, low - spread, high + spread, low - FAR * spread, high + FAR * spread, 0.0, -0.0]
    if column.own_kind.dtype.kind == "f":
        return [float(value) for value in found]
    limits = np.iinfo(column.own_kind.dtype)
    return [float(np.clip(np.rint(value), limits.min // 2, limits.max // 2)) for value in found[:-1]]


def _extremes(_values: Array, column: Column) -> Sequence[float]:
    """What the type can hold and nobody has seen: tiny, huge, and whole numbers that 32 and 64 bit floats cannot."""
    whole = [2**24 + 1, -(2**24) - 1]
    if column.own_kind.dtype == np.int32:
        return [*whole, 2**31 - 1, -(2**31)]
    if column.own_kind.dtype == np.int64:
        return [*whole, 2**53 + 1, 2**63 - 1, -(2**63)]
    single = [1e-45, 1e-38, -1e-38, 1e6, 2.0**24 + 2, 1e15, -1e15, 3e38, -3e38]
    return [*single, 2.0**24 + 1, 2.0**53 + 2, 1e300, -1e300] if column.kind.dtype == np.float64 else single


def _shaped(table: Table, signature: Signature) -> Table:
    if not isinstance(signature, Matrix):
        return table
    return {name: values.reshape(-1, *signature.shape) for name, values in table.items()}


def _stacked(tables: Sequence[Table]) -> Table:
    return {name: np.concatenate([table[name] for table in tables]) for name in tables[0]}
