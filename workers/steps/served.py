"""What the served release answers, against the native answers: real rows, and the rows made to hurt."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from app.domain.errors import Rejected
from app.domain.policy import Parity
from app.domain.v2 import wrong_rows

ROWS_A_CALL = 64
# Stands for an error without a size (another label, an infinity): JSON has no word for infinity.
NOT_COMPARABLE = 1e308
_NUMBERS = ("FP32", "FP64")

Ask = Callable[[Mapping[str, Any]], Mapping[str, Any]]
"""Takes the body of a V2 request and returns that of the answer."""


def compared(document: Mapping[str, Any], ask: Ask, parity: Parity) -> dict[str, Any]:
    """`rows`, `wrong_rows`, `largest_error`, `changed_decisions` of the real rows, and `hurting`: the same of each
    kind, which is asked in one request.

    Raises:
        Rejected: more rows differ than the policy allows, of the real ones or of kinds that decide; or there are none.
    """
    found = _together([_compared(i, o, ask, parity) for i, o in _slices(document)])
    if found["rows"] == 0:
        raise Rejected("There was no row to compare the served answers on.", "Log the model with an input example.")
    _judge(found, parity, "rows")
    hurting = [
        {
            "kind": kind["kind"],
            "decides": kind["decides"],
            "left_out": kind["left_out"],
            **_together([_compared(kind["inputs"], kind["outputs"], ask, parity)] if _count(kind) else []),
        }
        for kind in document.get("hurting", ())
    ]
    deciding = [kind for kind in hurting if kind["decides"]]
    _judge(_together(deciding), parity, "rows made to hurt")
    return {**found, "hurting": hurting}


def _count(rows: Mapping[str, Any]) -> int:
    return int(rows["inputs"][0]["shape"][0])


def _compared(inputs: Any, outputs: Sequence[Mapping[str, Any]], ask: Ask, parity: Parity) -> dict[str, Any]:
    answer = ask({"inputs": inputs})["outputs"]
    wrong, largest = wrong_rows(outputs, answer, parity.rtol, parity.atol)
    decisions = [tensor for tensor in outputs if tensor["datatype"] not in _NUMBERS]
    changed = wrong_rows(decisions, answer, 0.0, 0.0)[0]
    rows = int(outputs[0]["shape"][0])
    return {"rows": rows, "wrong_rows": wrong, "largest_error": largest, "changed_decisions": changed}


def _together(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    sums = {key: sum(int(part[key]) for part in parts) for key in ("rows", "wrong_rows", "changed_decisions")}
    largest = max((float(part["largest_error"]) for part in parts), default=0.0)
    return {**sums, "largest_error": min(largest, NOT_COMPARABLE)}


def _judge(found: Mapping[str, Any], parity: Parity, what: str) -> None:
    if found["wrong_rows"] > parity.max_wrong_rows:
        raise Rejected(
            f"The served model differs from the native one on {found['wrong_rows']} of {found['rows']} {what} "
            f"(largest error {found['largest_error']:.3g}).",
            "See the evidence of PROVE; the server may run another version of ONNX Runtime.",
        )


def _slices(rows: Mapping[str, Any]) -> Iterator[tuple[list[dict[str, Any]], list[dict[str, Any]]]]:
    total = _count(rows)
    for start in range(0, total, ROWS_A_CALL):
        stop = min(start + ROWS_A_CALL, total)
        yield [cut(t, start, stop) for t in rows["inputs"]], [cut(t, start, stop) for t in rows["outputs"]]


def cut(tensor: Mapping[str, Any], start: int, stop: int) -> dict[str, Any]:
    """Rows `start` to `stop` of a V2 tensor whose flat `data` lies row by row."""
    shape: Sequence[int] = tensor["shape"]
    width = len(tensor["data"]) // shape[0]
    data = tensor["data"][start * width : stop * width]
    return {**tensor, "shape": [stop - start, *shape[1:]], "data": data}
