"""What the program `convert` may say: checked before anything is built on it, for the model may have had a hand in it.

Only what later steps read is looked at.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, Strict, TypeAdapter, ValidationError

from app.domain.errors import Rejected

MAX_ROWS_BYTES = 64 << 20
_REMEDY = "Log the model again; if this repeats, look at what runs when it is loaded."
Count = Annotated[int, Strict(), Field(ge=0)]
Size = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Word = Annotated[str, Field(min_length=1, max_length=500)]
Number = Annotated[float, Strict(), Field(allow_inf_nan=False)]
Value = Annotated[str, Strict()] | Annotated[bool, Strict()] | Annotated[int, Strict()] | Number | None


@dataclass(frozen=True)
class _Refused:
    code: str
    reason: str
    remedy: str = ""


@dataclass(frozen=True)
class _Hurting:
    kind: str
    decides: bool
    rows: Count
    wrong_rows: Count


@dataclass(frozen=True)
class _Rung:
    name: Word
    rows: Count | None = None
    wrong_rows: Count | None = None
    largest_error: Size | None = None
    hurting: tuple[_Hurting, ...] = ()
    error: str | None = None


@dataclass(frozen=True)
class _Tensor:
    name: Word
    datatype: Word
    shape: Annotated[tuple[Annotated[int, Strict(), Field(ge=-1)], ...], Field(max_length=16)]


@dataclass(frozen=True)
class _Ladder:
    """What is said where no rung agrees."""

    rungs: Annotated[tuple[_Rung, ...], Field(min_length=1)]

    def __post_init__(self) -> None:
        if any(rung.error is None and rung.wrong_rows is None for rung in self.rungs):
            raise ValueError("a rung was neither measured nor failed")


@dataclass(frozen=True)
class _Converted:
    """What is said where one was chosen."""

    rungs: tuple[_Rung, ...]
    chosen: Word
    opset: Count
    rows: Count
    inputs: Annotated[tuple[_Tensor, ...], Field(min_length=1)]
    outputs: Annotated[tuple[_Tensor, ...], Field(min_length=1)]
    optional: tuple[str, ...]

    def __post_init__(self) -> None:
        rung = next((rung for rung in self.rungs if rung.name == self.chosen), None)
        if rung is None or None in (rung.rows, rung.wrong_rows, rung.largest_error):
            raise ValueError("the chosen rung was not measured")


@dataclass(frozen=True)
class _Values:
    name: Word
    datatype: Word
    shape: Annotated[tuple[Count, ...], Field(min_length=1, max_length=16)]
    data: tuple[Value, ...]

    def __post_init__(self) -> None:
        if len(self.data) != math.prod(self.shape):
            raise ValueError("a tensor's data has another length than its shape says")


@dataclass(frozen=True)
class _Rows:
    inputs: Annotated[tuple[_Values, ...], Field(min_length=1)]
    outputs: Annotated[tuple[_Values, ...], Field(min_length=1)]

    def __post_init__(self) -> None:
        if len({tensor.shape[0] for tensor in (*self.inputs, *self.outputs)}) != 1:
            raise ValueError("the tensors have different numbers of rows")


@dataclass(frozen=True)
class _HurtingRows(_Rows):
    kind: str
    decides: bool
    left_out: Count


@dataclass(frozen=True)
class _Document(_Rows):
    hurting: tuple[_HurtingRows, ...] = ()


_REFUSED, _LADDER, _CONVERTED = TypeAdapter(_Refused), TypeAdapter(_Ladder), TypeAdapter(_Converted)
_DOCUMENT = TypeAdapter(_Document)


def check(result: Mapping[str, Any]) -> None:
    """Look whether what a run of `convert` said has the form that the later steps read.

    Raises:
        Rejected: it has another one.
    """
    try:
        if "refused" in result:
            check_refused(result["refused"])
        elif result.get("chosen") is None:
            _LADDER.validate_python(dict(result))
        else:
            _CONVERTED.validate_python(dict(result))
    except ValidationError as error:
        raise _odd(error) from error


def check_refused(said: Any) -> None:
    """Look whether a program's refusal, whichever program's, has its words.

    Raises:
        Rejected: it has not.
    """
    try:
        _REFUSED.validate_python(said)
    except ValidationError as error:
        raise _odd(error, "refused") from error


def check_rows(file: Path) -> None:
    """Look whether the rows to ask the served release about are a V2 document with as many values as it says.

    Raises:
        Rejected: they are not, or there are none.
    """
    if file.stat().st_size > MAX_ROWS_BYTES:
        raise Rejected(f"The conversion left more than {MAX_ROWS_BYTES >> 20} MiB of rows to ask about.", _REMEDY)
    try:
        rows = _DOCUMENT.validate_json(file.read_bytes())
    except ValidationError as error:
        raise _odd(error, file.name) from error
    if rows.inputs[0].shape[0] == 0:
        raise Rejected("There was no row to compare the served answers on.", "Log the model with an input example.")


def _odd(error: ValidationError, *place: str) -> Rejected:
    found = error.errors()[0]
    where = ".".join([*place, *(str(part) for part in found["loc"])]) or "its root"
    return Rejected(f"The sandboxed program gave an answer of an odd form at {where}.", _REMEDY)
