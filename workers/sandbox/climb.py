"""Climbing the ladder: convert, check, run and compare, until a rung agrees with the native model."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import onnx

from . import hurt, trial
from .flavors import Model, Rung
from .onnx_check import check
from .parity import Comparison, compare
from .refusal import Refused
from .rows import Rows
from .runner import Runner
from .tensors import Array, Signature
from .trial import Question

SEED = 20240229
MARGIN = 0.1


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
    """The rung that agreed: its name, the ONNX bytes, ONNX Runtime's answers and how they compare, and
    the rows made to hurt that it answers. It is comfortable where the real rows agree within MARGIN of what is allowed:
    what only just agrees on these rows may not on others."""

    name: str
    model: bytes
    runner: Runner
    outputs: list[Array]
    comparison: Comparison
    questions: Sequence[Question] = ()
    is_comfortable: bool = True


@dataclass(frozen=True)
class Exam:
    """What every rung is asked: the real rows with the native answers, and the rows made to hurt with theirs."""

    rows: Rows
    answers: Sequence[Array]
    questions: Sequence[Question]
    demands: Demands


@dataclass(frozen=True)
class Tried:
    """One rung as it went; `chosen` is set where it agreed."""

    report: dict[str, Any]
    chosen: Chosen | None


def climb(
    native: Model, signature: Signature, rows: Rows, answers: Sequence[Array], demands: Demands, name: str
) -> tuple[list[Tried], Chosen | None]:
    """Try the rungs in order up to the first one that agrees comfortably, on the real rows, to which `answers` are the
    native ones, and on rows made to hurt. Without any such the first that agrees at all is chosen.

    The rungs stand in the order of what they cost, so that is the fastest, and no clock has a say in the model's bytes.
    """
    exam = examine(native, signature, rows, answers, demands)
    tried: list[Tried] = []
    for attempt in attempts(native, exam, name):
        tried.append(attempt)
        if attempt.chosen and attempt.chosen.is_comfortable:
            return tried, attempt.chosen
    return tried, next((attempt.chosen for attempt in tried if attempt.chosen), None)


def examine(native: Model, signature: Signature, rows: Rows, answers: Sequence[Array], demands: Demands) -> Exam:
    """Make the rows that hurt and ask the native model about them."""
    questions = trial.ask(native.predict, hurt.make(signature, rows.table, native.thresholds(), SEED), rows.table)
    return Exam(rows, answers, questions, demands)


def attempts(native: Model, exam: Exam, name: str) -> Iterator[Tried]:
    """All rungs, one after the other."""
    seen: dict[bytes, dict[str, Any]] = {}
    for rung in native.rungs:
        try:
            model = native.convert(rung, name)
            if model in seen:
                # Without a StandardScaler, for one, its options change nothing.
                yield Tried({**seen[model], **_titles(rung)}, None)
                continue
            attempt = _measure(rung, model, exam)
        except MemoryError:
            raise
        except Exception as error:  # noqa: BLE001 - converters and ONNX Runtime have no common error
            said = error.reason if isinstance(error, Refused) else f"{type(error).__name__}: {error}"
            yield Tried({**_titles(rung), "status": "error", "error": _one_line(said), **_unmeasured()}, None)
            continue
        seen[model] = attempt.report
        yield attempt


def _measure(rung: Rung, model: bytes, exam: Exam) -> Tried:
    demands = exam.demands
    check(onnx.load_from_string(model), demands.support)
    runner = Runner(model)
    outputs = runner.run(exam.rows.table)
    comparison = compare(exam.answers, outputs, demands.rtol, demands.atol)
    report = {**_titles(rung), "status": "differs", **measured(comparison), "hurting": [], "zero_rows": None}
    if comparison.wrong_rows > demands.max_wrong_rows:
        return Tried(report, None)
    hurting = trial.judge(runner, exam.questions, demands.rtol, demands.atol)
    report.update(hurting=hurting, zero_rows=trial.zero_rows(runner, exam.rows.table))
    if trial.wrong(hurting) > demands.max_wrong_rows:
        return Tried({**report, "status": "hurt"}, None)
    answered = [question for question, said in zip(exam.questions, hurting, strict=True) if "error" not in said]
    closer = compare(exam.answers, outputs, demands.rtol * MARGIN, demands.atol * MARGIN)
    comfortable = closer.wrong_rows <= demands.max_wrong_rows
    chosen = Chosen(rung.name, model, runner, outputs, comparison, answered, comfortable)
    return Tried({**report, "status": "agrees"}, chosen)


def measured(comparison: Comparison) -> dict[str, Any]:
    """The numbers of a comparison as a rung reports them."""
    return {
        "rows": comparison.rows,
        "wrong_rows": comparison.wrong_rows,
        "largest_error": comparison.largest_error,
        "changed_decisions": comparison.changed_decisions,
    }


def _unmeasured() -> dict[str, Any]:
    return {"rows": 0, "wrong_rows": 0, "largest_error": 0.0, "changed_decisions": 0, "hurting": [], "zero_rows": None}


def _titles(rung: Rung) -> dict[str, Any]:
    return {"name": rung.name, "options": dict(rung.options)}


def _one_line(text: str) -> str:
    return " ".join(text.split())[:300]
