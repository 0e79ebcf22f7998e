"""The pure rules: states, gates, canary, digests, the audit chain, the registry's net changes."""

import itertools
import json
import math
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain import canary, gates
from app.domain.canonical import canonical
from app.domain.digests import RELEASE_PARTS, digest_json, release_digest, short
from app.domain.measured import Measurements
from app.domain.policy import (
    ChampionGate,
    EnvironmentPolicy,
    Gate,
    Guardrails,
    LatencyGate,
    MetricGate,
    Rollout,
    Triggers,
    default_policy,
)
from app.domain.promotion import ACTIVE, ENDED, FLOW, TRANSITIONS, State, may_follow, next_state
from app.domain.registry import Ask, ModelView, Withdrawal, diff, interpret
from app.domain.v2 import wrong_rows

NAMES = st.sampled_from(["1", "2", "3", "10"])
VIEWS = st.builds(
    ModelView,
    st.just("m"),
    st.dictionaries(st.sampled_from(["to-production", "to-staging", "champion"]), NAMES),
    st.dictionaries(NAMES, st.sampled_from(["Staging", "Production", "Archived"])),
    st.dictionaries(NAMES, st.sampled_from(["staging", "production", "moon"])),
)


def test_every_state_is_reached_and_every_end_is_final() -> None:
    reached = {State.REQUESTED}
    while True:
        more = {after for before in reached for after in TRANSITIONS[before]} - reached
        if not more:
            break
        reached |= more
    assert reached == set(State)
    assert all(not TRANSITIONS[state] for state in ENDED - {State.FAILED})


@given(st.lists(st.sampled_from(State), max_size=30))
def test_any_walk_of_legal_transitions_keeps_its_order(wishes: list[State]) -> None:
    here, seen = State.REQUESTED, [State.REQUESTED]
    for wish in wishes:
        if may_follow(here, wish):
            here = wish
            seen.append(here)
    steps = [state for state in seen if state in FLOW]
    for before, after in itertools.pairwise(steps):
        assert after is State.REQUESTED or FLOW.index(after) == FLOW.index(before) + 1


def test_the_flow_leads_to_live_and_ends_have_no_next() -> None:
    state = State.REQUESTED
    while state is not State.LIVE:
        assert state in ACTIVE or state is State.REQUESTED
        state = next_state(state)
    with pytest.raises(ValueError, match="is an end"):
        next_state(State.LIVE)


def test_labels_are_what_mlflow_shows() -> None:
    assert State.ROLLED_BACK.label == "rolled-back"


def policy(*chosen: Gate) -> EnvironmentPolicy:
    return EnvironmentPolicy(Triggers("to-production"), gates=chosen)


def measured(wrong: int = 0, rows: int = 100, **metrics: float) -> Measurements:
    return Measurements(rows, wrong, 0.5 if wrong else 0.0, metrics, {"rmse": 0.5, "r2": 0.6}, {1: 5.0})


@pytest.mark.parametrize(
    ("values", "gate", "rank", "words"),
    [
        (measured(), None, gates.Rank.PASS, ""),
        (measured(wrong=1), None, gates.Rank.FAIL, "1 of 100 rows differ"),
        (measured(rows=0), None, gates.Rank.ERROR, "no rows"),
        (measured(rmse=0.4), MetricGate("rmse", max=0.55), gates.Rank.PASS, ""),
        (measured(rmse=0.6), MetricGate("rmse", max=0.55), gates.Rank.FAIL, "rmse 0.6 is above 0.55"),
        (measured(rmse=math.nan), MetricGate("rmse", max=0.55), gates.Rank.FAIL, "above"),
        (measured(r2=0.1), MetricGate("r2", min=0.5), gates.Rank.FAIL, "r2 0.1 is below 0.5"),
        (measured(), MetricGate("rmse", max=0.55), gates.Rank.ERROR, "set data.label"),
        (measured(rmse=0.51), ChampionGate("rmse", 0.02), gates.Rank.PASS, ""),
        (measured(rmse=0.52), ChampionGate("rmse", 0.02), gates.Rank.FAIL, "worse than the live version's 0.5"),
        (measured(r2=0.58), ChampionGate("r2", 0.02), gates.Rank.FAIL, "worse"),
        (measured(r2=0.595), ChampionGate("r2", 0.02), gates.Rank.PASS, ""),
        (measured(), LatencyGate(10.0), gates.Rank.PASS, ""),
        (measured(), LatencyGate(1.0), gates.Rank.FAIL, "p99 5 ms is above 1 ms"),
        (measured(), LatencyGate(1.0, batch=64), gates.Rank.ERROR, "batch 64 was not measured"),
    ],
)
def test_gates(values: Measurements, gate: Gate | None, rank: gates.Rank, words: str) -> None:
    verdict = gates.judge(values, policy(*([gate] if gate else [])))
    assert verdict.rank is rank
    assert words in "; ".join(verdict.reasons)


def test_the_worst_gate_wins_and_a_first_release_has_no_champion() -> None:
    verdict = gates.judge(measured(rmse=0.6), policy(MetricGate("rmse", max=0.5), LatencyGate(1.0, batch=9)))
    assert verdict.rank is gates.Rank.FAIL
    alone = Measurements(10, 0, 0.0, {"rmse": 9.0}, None, {})
    assert gates.judge(alone, policy(ChampionGate("rmse", 0.0))).rank is gates.Rank.PASS


START = datetime(2026, 1, 1, tzinfo=UTC)
ROLLOUT = Rollout((10, 50, 100), timedelta(seconds=30), Guardrails(0.01, 50.0, 20), timedelta(minutes=5))


@pytest.mark.parametrize(
    ("weight", "sample", "seconds", "alone", "move"),
    [
        (10, canary.Sample(100, 0, 5.0), 10, False, canary.Hold),
        (10, canary.Sample(100, 0, 5.0), 30, False, canary.Advance(50)),
        (100, canary.Sample(100, 0, 5.0), 30, False, canary.Advance(None)),
        (10, canary.Sample(100, 2, 5.0), 1, False, canary.RollBack),
        (10, canary.Sample(100, 0, 51.0), 1, False, canary.RollBack),
        (10, canary.Sample(19, 19, 51.0), 1, False, canary.Hold),
        (10, canary.Sample(19, 0, 5.0), 60, False, canary.Hold),
        (10, canary.Sample(0, 0, None), 300, False, canary.AskHuman),
        (100, canary.Sample(0, 0, None), 30, True, canary.Advance(None)),
    ],
)
def test_the_canary_is_judged_by_its_own_traffic(
    weight: int, sample: canary.Sample, seconds: int, alone: bool, move: object
) -> None:
    plan = canary.Plan(ROLLOUT, weight, START, alone)
    found = canary.assess(plan, sample, START + timedelta(seconds=seconds))
    assert found == move if not isinstance(move, type) else isinstance(found, move)


@given(st.integers(0, 1000), st.integers(0, 1000), st.floats(0, 1000), st.integers(0, 10_000), st.booleans())
def test_a_canary_that_breaks_a_guardrail_never_advances(
    requests: int, failed: int, p99: float, seconds: int, alone: bool
) -> None:
    sample = canary.Sample(requests, min(failed, requests), p99 if requests else None)
    move = canary.assess(canary.Plan(ROLLOUT, 10, START, alone), sample, START + timedelta(seconds=seconds))
    if requests >= 20 and (sample.error_rate > 0.01 or p99 > 50):
        assert isinstance(move, canary.RollBack)
    else:
        assert not isinstance(move, canary.RollBack)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)


@given(JSON)
def test_a_digest_survives_being_stored_as_json(value: object) -> None:
    assert digest_json(json.loads(json.dumps(value))) == digest_json(value)


def test_nan_has_no_digest() -> None:
    with pytest.raises(ValueError, match="no word for nan"):
        canonical({"x": math.nan})


@given(st.sampled_from(RELEASE_PARTS))
def test_a_release_digest_covers_each_part(part: str) -> None:
    parts = dict.fromkeys(RELEASE_PARTS, "x")
    assert release_digest(parts) != release_digest({**parts, part: "y"})
    with pytest.raises(ValueError, match="covers exactly"):
        release_digest({key: value for key, value in parts.items() if key != part})


def test_short_digests_are_twelve_characters() -> None:
    assert short("sha256:" + "ab" * 32) == "ab" * 6


@given(VIEWS, VIEWS)
def test_changes_turn_one_view_into_the_other(before: ModelView, after: ModelView) -> None:
    aliases, stages, asks = dict(before.aliases), dict(before.stages), dict(before.asks)
    for change in diff(before, after):
        if change.field.startswith("alias:"):
            put(aliases, change.field.removeprefix("alias:"), change.after)
        else:
            assert change.version is not None
            target = stages if change.field == "stage" else asks
            put(target, change.version, None if change.after == "None" else change.after)
    assert ModelView("m", aliases, stages, asks) == after


def put(into: dict[str, str], key: str, value: str | None) -> None:
    into.pop(key, None)
    if value is not None:
        into[key] = value


@given(VIEWS)
def test_nothing_changed_is_no_change_and_json_keeps_a_view(view: ModelView) -> None:
    assert diff(view, view) == []
    assert ModelView.from_json("m", json.loads(json.dumps(view.as_json()))) == view


def meaning(before: ModelView, after: ModelView) -> tuple[Withdrawal | None, Ask | None]:
    (change,) = diff(before, after)
    return interpret(change, default_policy("m"))


def test_what_asks_for_a_promotion_and_what_takes_it_back() -> None:
    nothing, asked = ModelView("m"), ModelView("m", {"to-production": "1"})
    moved = ModelView("m", {"to-production": "2"})
    assert (meaning(nothing, asked)[1] or pytest.fail()).environment == "production"
    withdrawal, ask = meaning(asked, moved)
    assert withdrawal is not None and withdrawal.version == "1"
    assert ask is not None and ask.version == "2"
    assert meaning(asked, nothing)[0] is not None
    assert meaning(nothing, ModelView("m", {"champion": "1"})) == (None, None)
    assert meaning(nothing, ModelView("m", {}, {"1": "Archived"})) == (None, None)
    staged = meaning(ModelView("m", {}, {"1": "Staging"}), ModelView("m", {}, {"1": "Production"}))
    assert staged[0] is not None and staged[0].environment == "staging"
    assert staged[1] is not None and staged[1].environment == "production"
    assert meaning(nothing, ModelView("m", {}, {}, {"1": "moon"})) == (None, None)


def tensor(*data: object, width: int = 1, name: str = "y") -> dict[str, object]:
    return {"name": name, "shape": [len(data) // width, width], "data": list(data)}


@pytest.mark.parametrize(
    ("expected", "served", "wrong"),
    [
        (tensor(1.0, 2.0), tensor(1.0, 2.0), 0),
        (tensor(1.0, 2.0), tensor(1.0, 2.1), 1),
        (tensor(100.0), tensor(100.005), 0),
        (tensor(1.0, 2.0, 3.0, 4.0, width=2), tensor(1.0, 9.0, 3.0, 9.0, width=2), 2),
        (tensor("a", "b"), tensor("a", "c"), 1),
        (tensor(1.0, 2.0), tensor(1.0), 2),
        (tensor(1.0, 2.0), tensor(1.0, 2.0, name="other"), 2),
        (tensor(math.nan, 1.0), tensor(math.nan, math.nan), 1),
        (tensor(1.0), tensor(None), 1),
    ],
)
def test_served_rows_are_compared_one_by_one(
    expected: dict[str, object], served: dict[str, object], wrong: int
) -> None:
    assert wrong_rows([expected], [served], rtol=1e-4, atol=1e-5)[0] == wrong
