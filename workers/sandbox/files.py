"""Reading judging rows: CSV, plain or gzip, and Parquet, told apart by their first bytes, as lines of text."""

import csv
import gzip
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .refusal import DATA_REMEDY, Refused

_GZIP, _PARQUET = b"\x1f\x8b", b"PAR1"
_BATCH = 8192


@contextmanager
def opened(file: Path) -> Iterator[Iterator[list[str]]]:
    """The lines of the file, the header first; a Parquet file's values are written as CSV would have them.

    Raises:
        Refused: the file cannot be read, at its opening or in its middle.
    """
    try:
        with file.open("rb") as raw:
            start = raw.read(4)
        if start == _PARQUET:
            yield _parquet(file)
            return
        opener = gzip.open if start.startswith(_GZIP) else open
        with opener(file, "rt", encoding="utf-8-sig", newline="") as text:
            yield (line for line in csv.reader(text) if line)
    except (csv.Error, UnicodeDecodeError, OSError, EOFError) as error:
        raise _unreadable(error) from error


def _parquet(file: Path) -> Iterator[list[str]]:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        # One thread: the limits of the sandbox count them, and what is read is small.
        with parquet.ParquetFile(file) as source:
            yield list(source.schema_arrow.names)
            for batch in source.iter_batches(_BATCH, use_threads=False):
                columns = [[_text(value) for value in column.to_pylist()] for column in batch.columns]
                yield from (list(line) for line in zip(*columns, strict=True))
    except (pa.ArrowException, ValueError) as error:
        raise _unreadable(error) from error


def _text(value: Any) -> str:
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _unreadable(error: Exception) -> Refused:
    return Refused("bad-rows", f"The judging rows cannot be read: {' '.join(str(error).split())[:300]}", DATA_REMEDY)
