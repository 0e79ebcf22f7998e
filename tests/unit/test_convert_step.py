"""The step CONVERT believes nothing of what the program answers: the model may have had its hands in it."""

import json
from pathlib import Path
from typing import Any

import pytest

from app.db.session import Database
from tests.fakes import CONVERTED, ROWS
from tests.plant import World


@pytest.fixture
def world(database: Database, tmp_path: Path) -> World:
    return World(database, tmp_path)


RUNG = CONVERTED["rungs"][1]
GOOD = json.loads(ROWS)


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"refused": "no"},
        {"refused": {"code": "bad"}},
        {"refused": {"reason": 7}},
        {**CONVERTED, "rungs": 1},
        {**CONVERTED, "rungs": ["div"]},
        {**CONVERTED, "rungs": []},
        {**CONVERTED, "chosen": "another"},
        {**CONVERTED, "chosen": ["div"]},
        {**CONVERTED, "rungs": [{**RUNG, "wrong_rows": "none"}]},
        {**CONVERTED, "rungs": [{**RUNG, "wrong_rows": -1}]},
        {**CONVERTED, "rungs": [{"name": "div", "status": "agrees"}]},
        {**CONVERTED, "rungs": [{**RUNG, "hurting": [{"kind": "x"}]}]},
        {**CONVERTED, "inputs": []},
        {**CONVERTED, "inputs": [{"name": "x", "datatype": "FP32"}]},
        {**CONVERTED, "outputs": [{"name": "x", "datatype": "FP32", "shape": ["n"]}]},
        {**CONVERTED, "optional": "x"},
        {**CONVERTED, "opset": "new"},
        {**CONVERTED, "rows": None},
        {**CONVERTED, "chosen": None, "rungs": [{"name": "div"}]},
    ],
)
def test_an_answer_of_another_form_is_the_models_fault(world: World, answer: dict[str, Any]) -> None:
    world.sandbox.results["convert"] = answer
    shown = world.run(world.ask("1"))
    assert (shown["state"], "odd form" in shown["reason"]) == ("REJECTED", True), shown["reason"]


def without(key: str) -> dict[str, Any]:
    return {name: value for name, value in GOOD.items() if name != key}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"inputs": [], "outputs": []}',
        json.dumps(without("outputs")),
        json.dumps({**GOOD, "inputs": [{**GOOD["inputs"][0], "shape": []}]}),
        json.dumps({**GOOD, "inputs": [{**GOOD["inputs"][0], "shape": [4, 1]}]}),
        json.dumps({**GOOD, "outputs": [{**GOOD["outputs"][0], "shape": [1, 1], "data": [1.0]}]}),
        json.dumps({**GOOD, "outputs": [{**GOOD["outputs"][0], "data": [[1], {}, 2]}]}),
        json.dumps({**GOOD, "hurting": [{"kind": "missing"}]}),
        "[" * 100_000,
        '{"inputs": NaN}',
    ],
)
def test_rows_of_another_form_are_the_models_fault(world: World, text: str) -> None:
    world.sandbox.rows = text
    shown = world.run(world.ask("1"))
    assert (shown["state"], "odd form" in shown["reason"]) == ("REJECTED", True), shown["reason"]


def test_no_rows_at_all_prove_nothing(world: World) -> None:
    empty = {side: [{**GOOD[side][0], "shape": [0, 1], "data": []}] for side in ("inputs", "outputs")}
    world.sandbox.rows = json.dumps(empty)
    shown = world.run(world.ask("1"))
    assert (shown["state"], "no row" in shown["reason"]) == ("REJECTED", True), shown["reason"]


@pytest.mark.parametrize("name", ["model.onnx", "rows.json", "parity.json"])
def test_a_file_that_is_not_there_is_the_models_fault(world: World, name: str) -> None:
    world.sandbox.forgets = name
    shown = world.run(world.ask("1"))
    assert (shown["state"], name in shown["reason"]) == ("REJECTED", True), shown["reason"]
