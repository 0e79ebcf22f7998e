"""Native model, ONNX Runtime and served release side by side: what PROVE compares, and what people see of it."""

from collections.abc import Mapping
from typing import Any

import pytest

from app.cli import render
from app.domain.errors import Rejected
from app.domain.policy import Parity
from app.domain.three_way import three_way
from workers.steps.served import compared


def _tensors(values: list[float], labels: list[str]) -> dict[str, Any]:
    shape = [len(values), 1]
    return {
        "inputs": [{"name": "x", "datatype": "FP64", "shape": shape, "data": values}],
        "outputs": [
            {"name": "label", "datatype": "BYTES", "shape": [len(values)], "data": labels},
            {"name": "p", "datatype": "FP32", "shape": shape, "data": values},
        ],
    }


def _server(body: Mapping[str, Any]) -> Mapping[str, Any]:
    """Answers with what it is given, and calls what is above 5 high."""
    data = body["inputs"][0]["data"]
    return {
        "outputs": [
            {"name": "p", "data": [round(value, 3) for value in data]},
            {"name": "label", "data": ["high" if value > 5 else "low" for value in data]},
        ]
    }


def _document(decides: bool) -> dict[str, Any]:
    hurting = {"kind": "edges", "decides": decides, "left_out": 2, **_tensors([5.0, 6.0], ["low", "low"])}
    nothing = {"kind": "missing", "decides": True, "left_out": 9, **_tensors([], [])}
    return {**_tensors([1.0, 2.0], ["low", "low"]), "hurting": [hurting, nothing]}


def test_hurting_rows_are_asked_of_the_server_and_counted_by_kind() -> None:
    found = compared(_document(False), _server, Parity())

    assert (found["rows"], found["wrong_rows"], found["changed_decisions"]) == (2, 0, 0)
    edges, missing = found["hurting"]
    assert (edges["kind"], edges["rows"], edges["wrong_rows"], edges["changed_decisions"]) == ("edges", 2, 1, 1)
    assert (missing["rows"], missing["left_out"]) == (0, 9)


def test_a_kind_that_decides_rejects_what_is_served() -> None:
    with pytest.raises(Rejected, match="1 of 2 rows made to hurt"):
        compared(_document(True), _server, Parity())
    assert compared(_document(True), _server, Parity(max_wrong_rows=1))["hurting"][0]["wrong_rows"] == 1


def _evidence() -> dict[str, Any]:
    kind = {"kind": "edges", "decides": True, "rows": 4, "wrong_rows": 0, "largest_error": 1e-7, "changed_decisions": 0}
    rung = {"name": "double", "rows": 9, "wrong_rows": 0, "largest_error": 2e-7, "changed_decisions": 0}
    rungs = [{"name": "default", "rows": 9, "wrong_rows": 9}, {**rung, "hurting": [{**kind, "native_refuses": 3}]}]
    return {"convert": {"chosen": "double", "rungs": rungs}}


def test_the_three_stand_side_by_side_as_far_as_they_were_asked() -> None:
    assert three_way({}) == []
    real, edges = three_way(_evidence())
    assert (real["onnx"]["rows"], real["served"]) == (9, None)
    assert (edges["onnx"]["rows"], edges["native_refuses"], edges["served"]) == (4, 3, None)

    served = compared(_document(False), _server, Parity())
    real, edges = three_way({**_evidence(), "prove": {"served": served}})
    assert (real["served"]["rows"], edges["served"]["wrong_rows"]) == (2, 1)


def test_people_see_how_many_differ_and_how_far(capsys: pytest.CaptureFixture[str]) -> None:
    served = compared(_document(False), _server, Parity())
    render.parity(three_way({**_evidence(), "prove": {"served": served}}))

    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert "real rows yes 9 0 (max 2e-07) 0 (max 0)" in lines[1]
    assert lines[2].startswith("edges yes 4 0 (max 1e-07) 1 (1 other classes) 3")
