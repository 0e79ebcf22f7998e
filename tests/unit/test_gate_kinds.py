"""Slices, schema and robustness: what each gate says of what was measured."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.gates import Rank, judge
from app.domain.measured import Group, Measurements, Noise, Schema, Slices, Tensor
from app.domain.policy import (
    ChampionGate,
    EnvironmentPolicy,
    Gate,
    OwnGate,
    RobustnessGate,
    SchemaGate,
    SlicesGate,
    Triggers,
)
from app.domain.schema import differences
from app.measurements import freeze, thaw

BY = ("borough", "room")


def judged(gate: Gate, **measured: object) -> tuple[Rank, str, float | None]:
    """Rank, reason and measured value of one gate."""
    made = replace(Measurements(100, 0, 0.0), **measured)  # type: ignore[arg-type]  # whatever a case needs
    result = judge(made, EnvironmentPolicy(Triggers("to-production"), gates=(gate,))).results[1]
    return result.rank, result.reason, result.measured


def groups(name: str = "rmse", **values: tuple[int, float]) -> tuple[Slices, ...]:
    return (Slices(BY, tuple(Group((key, "shared"), rows, {name: value}) for key, (rows, value) in values.items())),)


@pytest.mark.parametrize(
    ("name", "whole", "found", "rank", "words"),
    [
        ("rmse", 0.4, groups(bronx=(60, 0.5), queens=(90, 0.3)), Rank.PASS, "bronx / shared, 60 rows"),
        ("rmse", 0.4, groups(bronx=(60, 0.7), queens=(90, 0.3)), Rank.FAIL, "1.75 times as bad"),
        # Few rows prove nothing, neither alone nor beside others.
        ("rmse", 0.4, groups(bronx=(49, 9.0), queens=(90, 0.4)), Rank.PASS, "1 of 2 groups have fewer than 50 rows"),
        ("rmse", 0.4, groups(bronx=(49, 0.4)), Rank.INCONCLUSIVE, "no group can be judged"),
        ("accuracy", 0.9, groups("accuracy", a=(60, 0.45), b=(60, 0.9)), Rank.FAIL, "2 times as bad"),
        ("accuracy", 0.9, groups("accuracy", a=(60, 0.0)), Rank.FAIL, "1e+06 times"),
        ("rmse", 0.0, groups(a=(60, 0.0)), Rank.PASS, "1 times"),
        ("rmse", 0.4, (), Rank.ERROR, "was not measured"),
        ("rmse", 0.4, (replace(groups(a=(60, 0.4))[0], left_out=3),), Rank.ERROR, "3 groups too many"),
    ],
)
def test_slices(name: str, whole: float, found: tuple[Slices, ...], rank: Rank, words: str) -> None:
    verdict = judged(SlicesGate(BY, name, 1.6), metrics={name: whole}, slices=found)
    assert verdict[0] is rank
    assert words in verdict[1]


@given(st.floats(0, 1e300), st.floats(0, 1e300), st.sampled_from(["rmse", "accuracy"]))
def test_a_ratio_is_always_a_number_that_can_be_recorded(group: float, whole: float, name: str) -> None:
    ratio = judged(SlicesGate(BY, name, 1.6), metrics={name: whole}, slices=groups(name, a=(60, group)))[2]
    assert ratio is not None and math.isfinite(ratio)


X, Y = Tensor("x", "FP32", (-1, 1)), Tensor("y", "FP32", (-1, 1))
LIVE = Schema((X, Tensor("city", "BYTES", (-1, 1))), (Y,))


@pytest.mark.parametrize(
    ("new", "words"),
    [
        (LIVE, []),
        (replace(LIVE, outputs=(Y, Tensor("std", "FP32", (-1, 1)))), []),
        (replace(LIVE, inputs=LIVE.inputs[::-1]), []),
        (replace(LIVE, inputs=LIVE.inputs[:1]), ["the input city is gone"]),
        (replace(LIVE, inputs=(*LIVE.inputs, Tensor("area", "FP32", (-1, 1)))), ["also needs the input area"]),
        (replace(LIVE, inputs=(replace(X, datatype="FP64"), LIVE.inputs[1])), ["input x is FP64 and was FP32"]),
        (replace(LIVE, inputs=(replace(X, shape=(8, 1)), LIVE.inputs[1])), ["input x has the shape [8, 1]"]),
        (replace(LIVE, inputs=(replace(X, shape=(-1, -1)), LIVE.inputs[1])), []),
        (replace(LIVE, outputs=(replace(Y, shape=(-1, 3)),)), ["output y has the shape [-1, 3] and had [-1, 1]"]),
        (replace(LIVE, outputs=(replace(Y, shape=(-1,)),)), ["output y has the shape"]),
        (replace(LIVE, outputs=(replace(Y, shape=(-1, -1)),)), ["output y has the shape"]),
        (Schema((), ()), ["input x is gone", "input city is gone", "output y is gone"]),
    ],
)
def test_schemas(new: Schema, words: list[str]) -> None:
    found = differences(new, LIVE)
    assert len(found) == len(words)
    assert all(word in said for word, said in zip(words, found, strict=True))
    verdict = judged(SchemaGate(), schema=new, live_schema=LIVE)
    assert verdict[0] is (Rank.FAIL if words else Rank.PASS)


def test_a_first_release_has_no_schema_to_keep() -> None:
    assert judged(SchemaGate(), schema=LIVE)[0] is Rank.PASS
    assert judged(SchemaGate())[0] is Rank.ERROR


def test_a_champion_that_was_not_measured_is_no_missing_champion() -> None:
    gate = ChampionGate("rmse", 0.02)
    assert judged(gate, metrics={"rmse": 0.5})[0] is Rank.PASS
    assert judged(gate, metrics={"rmse": 0.5}, live_schema=LIVE)[0] is Rank.ERROR


CALM = Noise(0.01, 3, False, 0.02, 1000, 0)


@pytest.mark.parametrize(
    ("noise", "rank", "words"),
    [
        ((CALM,), Rank.PASS, "0.02 of the predictions' spread"),
        ((replace(CALM, change=0.2),), Rank.FAIL, "limit 0.05"),
        ((replace(CALM, change=0.2, classes=True),), Rank.FAIL, "0.2 of the answers change their class"),
        ((replace(CALM, not_finite=2),), Rank.FAIL, "2 of 1000 answers"),
        ((replace(CALM, columns=0, change=None),), Rank.INCONCLUSIVE, "no floating-point input"),
        ((replace(CALM, change=None),), Rank.INCONCLUSIVE, "no scale"),
        ((replace(CALM, nudge=0.5),), Rank.ERROR, "was not measured"),
        ((), Rank.ERROR, "was not measured"),
    ],
)
def test_robustness(noise: tuple[Noise, ...], rank: Rank, words: str) -> None:
    verdict = judged(RobustnessGate(0.05), noise=noise)
    assert verdict[0] is rank
    assert words in verdict[1]


def test_an_own_gate_never_passes_where_it_cannot_run() -> None:
    assert judged(OwnGate("fairness"))[0] is Rank.ERROR


def test_measurements_come_back_and_those_of_another_time_do_not() -> None:
    made = Measurements(
        9, 0, 0.5, {"rmse": 0.5}, {"rmse": 0.4}, {1: 0.2}, groups(a=(60, 0.4)), (CALM,), LIVE, replace(LIVE, outputs=())
    )
    assert thaw(freeze(made)) == made
    assert thaw({"rows": 9}) is None
