"""Native model, ONNX Runtime and served release side by side, read from what the steps measured."""

from collections.abc import Mapping
from typing import Any

_COUNTS = ("rows", "wrong_rows", "largest_error", "changed_decisions")


def three_way(evidence: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One entry for the real rows and one for each kind of rows made to hurt, `evidence` being that of the steps by
    their names in lower case. `onnx` and `served` count rows that differ from the native answers; `served` is None as
    long as nothing has been served, or where no row of the kind fits into JSON. Without a chosen conversion: nothing.
    """
    converted = evidence.get("convert", {})
    rung = next((rung for rung in converted.get("rungs", ()) if rung["name"] == converted.get("chosen")), None)
    if rung is None:
        return []
    served = evidence.get("prove", {}).get("served", {})
    hurting = {entry["kind"]: entry for entry in served.get("hurting", ())}
    real = {"kind": "real rows", "decides": True, **_side(rung, served)}
    return [
        real,
        *(
            {
                "kind": report["kind"],
                "decides": report["decides"],
                **_side(report, hurting.get(report["kind"], {})),
                **{
                    key: report[key]
                    for key in ("native_refuses", "onnx_answers", "overflows", "error")
                    if key in report
                },
            }
            for report in rung.get("hurting", ())
        ),
    ]


def _side(onnx: Mapping[str, Any], served: Mapping[str, Any]) -> dict[str, Any]:
    counts = {key: served[key] for key in (*_COUNTS, "left_out") if key in served}
    return {"onnx": {key: onnx[key] for key in _COUNTS if key in onnx}, "served": counts or None}
