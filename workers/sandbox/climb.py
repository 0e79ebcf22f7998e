"""Climbing the ladder: convert, check, run and compare, until a rung agrees with the native model."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import onnx

from .flavors import Model, Rung
from .onnx_check import check
from .parity import Comparison, compare
from .refusal import Refused
from .rows import Rows
from .runner import Runner
from .tensors import Array


@dataclass(frozen=True)
class Demands:
    """When answers count as equal, how many rows may be wrong all the same, and what the target's ONNX Runtime
    loads."""

    rtol: float
    atol: float
    max_wrong_rows: int
    support: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Chosen:
    """The rung that agreed: its name, the ONNX bytes, ONNX Runtime's answers and how they compare."""

    name: str
    model: bytes
    runner: Runner
    outputs: list[Array]
    comparison: Comparison


@dataclass(frozen=True)
class Tried:
    """One rung as it went; `chosen` is set where it agreed."""

    report: dict[str, Any]
    chosen: Chosen | None


def climb(native: Model, rows: Rows, answers: Sequence[Array], demands: Demands, name: str) -> list[Tried]:
    """Try the rungs in order up to the first one that agrees; `answers` are the native ones to `rows`."""
    tried: list[Tried] = []
    for attempt in _attempts(native, rows, answers, demands, name):
        tried.append(attempt)
        if attempt.chosen:
            break
    return tried


def _attempts(native: Model, rows: Rows, answers: Sequence[Array], demands: Demands, name: str) -> Iterator[Tried]:
    seen: dict[bytes, dict[str, Any]] = {}
    for rung in native.rungs:
        try:
            model = native.convert(rung, name)
            if model in seen:
                # Without a StandardScaler, for one, its options change nothing.
                yield Tried({**seen[model], **_titles(rung)}, None)
                continue
            attempt = _measure(rung, model, rows, answers, demands)
        except MemoryError:
            raise
        except Exception as error:  # noqa: BLE001 - converters and ONNX Runtime have no common error
            said = error.reason if isinstance(error, Refused) else f"{type(error).__name__}: {error}"
            yield Tried({**_titles(rung), "status": "error", "error": _one_line(said), **_unmeasured()}, None)
            continue
        seen[model] = attempt.report
        yield attempt


def _measure(rung: Rung, model: bytes, rows: Rows, answers: Sequence[Array], demands: Demands) -> Tried:
    check(onnx.load_from_string(model), demands.support)
    runner = Runner(model)
    outputs = runner.run(rows.table)
    comparison = compare(answers, outputs, demands.rtol, demands.atol)
    agrees = comparison.wrong_rows <= demands.max_wrong_rows
    report = {**_titles(rung), "status": "agrees" if agrees else "differs", **measured(comparison)}
    return Tried(report, Chosen(rung.name, model, runner, outputs, comparison) if agrees else None)


def measured(comparison: Comparison) -> dict[str, Any]:
    """The numbers of a comparison as a rung reports them."""
    return {
        "rows": comparison.rows,
        "wrong_rows": comparison.wrong_rows,
        "largest_error": comparison.largest_error,
    }


def _unmeasured() -> dict[str, Any]:
    return {"rows": 0, "wrong_rows": 0, "largest_error": 0.0}


def _titles(rung: Rung) -> dict[str, Any]:
    return {"name": rung.name, "options": dict(rung.options)}


def _one_line(text: str) -> str:
    return " ".join(text.split())[:300]
