"""Asking the native model and an ONNX model the rows that hurt, kind by kind, and comparing what they answer."""

import logging
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from . import hurt
from .hurt import Hurting
from .parity import compare, overflows
from .refusal import Refused
from .rows import Rows
from .runner import Runner
from .tensors import Array, Table

log = logging.getLogger(__name__)
Ask = Callable[[Rows], list[Array]]
ANSWERS = "answers"
SINGLY = 48
"""Where the native model fails on a kind, so many of its rows are asked one by one."""


@dataclass(frozen=True)
class Question:
    """Rows of one kind with the native answers to them; `refused` are rows that the native model fails on."""

    hurting: Hurting
    answers: list[Array]
    refused: Table | None

    @property
    def rows(self) -> int:
        return len(self.answers[0]) if self.answers else 0


def ask(predict: Ask, made: Sequence[Hurting], table: Table) -> list[Question]:
    """What the native model answers to each kind, and to batches of the real rows."""
    real = [Hurting(f"batch of {size}", True, hurt.batch(table, size)) for size in hurt.BATCHES]
    return [_ask(predict, hurting) for hurting in (*made, *real)]


def _ask(predict: Ask, hurting: Hurting) -> Question:
    with warnings.catch_warnings():
        # What is meant to hurt overflows here and there, and estimators would say so at each row.
        warnings.simplefilter("ignore")
        try:
            return Question(hurting, predict(_rows(hurting.table)), None)
        except Refused:
            return _singly(predict, hurting)


def _singly(predict: Ask, hurting: Hurting) -> Question:
    answers: list[list[Array]] = []
    answered, refused = [], []
    total = hurting.count
    for row in np.linspace(0, total - 1, min(total, SINGLY)).astype(int).tolist():
        try:
            answers.append(predict(_rows(_picked(hurting.table, [row]))))
            answered.append(row)
        except Refused:
            refused.append(row)
    together = [np.concatenate(values) for values in zip(*answers, strict=True)]
    return Question(replace(hurting, table=_picked(hurting.table, answered)), together, _picked(hurting.table, refused))


def _rows(table: Table) -> Rows:
    return Rows(table, None, "made to hurt")


def _picked(table: Table, rows: Sequence[int]) -> Table:
    return {name: values[np.asarray(rows, dtype=int)] for name, values in table.items()}


def judge(runner: Runner, questions: Sequence[Question], rtol: float, atol: float) -> list[dict[str, Any]]:
    """One report a kind: `kind`, `decides`, `rows` that were compared, `wrong_rows`, `largest_error`,
    `changed_decisions`; `native_refuses` counts rows that only the native model fails on, or both, `onnx_answers` those
    of them that the ONNX model answers; `overflows` rows that were not compared because the answer does not fit in 32
    bits; `error` where the ONNX model fails."""
    return [_judge(runner, question, rtol, atol) for question in questions]


def _judge(runner: Runner, question: Question, rtol: float, atol: float) -> dict[str, Any]:
    report: dict[str, Any] = {
        "kind": question.hurting.kind,
        "decides": question.hurting.decides,
        "rows": question.rows,
        "wrong_rows": 0,
        "largest_error": 0.0,
        "changed_decisions": 0,
        "native_refuses": 0,
        "onnx_answers": 0,
        "overflows": 0,
    }
    if question.refused is not None:
        report["native_refuses"] = len(next(iter(question.refused.values())))
        report["onnx_answers"] = _answered(runner, question.refused)
    if not question.rows:
        return report
    try:
        outputs = runner.run(question.hurting.table)
        whole = ~overflows(question.answers)
        compared = compare([a[whole] for a in question.answers], [o[whole] for o in outputs], rtol, atol)
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - ONNX Runtime's errors have no common base
        return {**report, "wrong_rows": question.rows, "error": " ".join(str(error).split())[:200]}
    report.update(rows=compared.rows, wrong_rows=compared.wrong_rows, largest_error=compared.largest_error)
    report.update(changed_decisions=compared.changed_decisions, overflows=int(np.count_nonzero(~whole)))
    return report


def _answered(runner: Runner, table: Table) -> int:
    rows = len(next(iter(table.values())))
    return sum(_answers(runner, _picked(table, [row])) for row in range(rows))


def _answers(runner: Runner, table: Table) -> bool:
    try:
        runner.run(table)
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - the same
        log.debug("both refuse a row: %s", error)
        return False
    return True


def zero_rows(runner: Runner, table: Table) -> str:
    """What ONNX Runtime does when it is asked about no row at all: ANSWERS, or the words that it refuses with.

    Some operators make it abort. Then this process ends, and the model is rejected with these words: it would end a
    server as well. A process of its own for the question is not to be had in the sandbox.
    """
    sys.stderr.write("asking the ONNX model about no row, which may end ONNX Runtime's process\n")
    sys.stderr.flush()
    try:
        runner.run(hurt.batch(table, 0))
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - the same
        return " ".join(str(error).split())[:200]
    return ANSWERS


def wrong(reports: Sequence[dict[str, Any]]) -> int:
    """The wrong rows of the kinds that decide."""
    return sum(int(report["wrong_rows"]) for report in reports if report["decides"])
