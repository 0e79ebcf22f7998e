"""When a step that failed runs again: each kind of failure is counted by itself."""

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from app.domain.retry import LIMITS, Again, GiveUp, Kind, backoff, counts, decide, note

KINDS = st.sampled_from(Kind)
HISTORIES = st.lists(KINDS, max_size=120)


def record(history: list[Kind]) -> dict[str, object] | None:
    failures = None
    for number, kind in enumerate(history):
        failures = note(failures, kind, f"2026-01-01T00:00:{number:02}", f"worker-{number % 9}", f"error {number}")
    return failures


@given(HISTORIES, KINDS)
def test_a_kind_is_given_up_after_its_own_limit_whatever_else_happened(history: list[Kind], kind: Kind) -> None:
    found = counts(record([*history, kind]))
    times = [*history, kind].count(kind)
    assert found[kind] == times
    assert isinstance(decide(kind, found), GiveUp) == (times >= LIMITS[kind])


@given(HISTORIES, KINDS)
def test_other_kinds_change_neither_the_pause_nor_the_end(history: list[Kind], kind: Kind) -> None:
    alone = [one for one in history if one is kind]
    assert decide(kind, counts(record([*history, kind]))) == decide(kind, counts(record([*alone, kind])))


@given(st.integers(1, 10**6))
def test_pauses_grow_up_to_a_minute(times: int) -> None:
    assert timedelta(seconds=1) <= backoff(times) <= backoff(times + 1) <= timedelta(minutes=1)


@given(HISTORIES)
def test_a_record_keeps_the_first_and_the_last_of_each_kind(history: list[Kind]) -> None:
    found = record(history) or {}
    assert {Kind(kind) for kind in found} == set(history)
    for kind in set(history):
        numbers = [number for number, one in enumerate(history) if one is kind]
        entry = found[kind.value]
        assert isinstance(entry, dict)
        assert entry["times"] == len(numbers)
        assert entry["first_at"] == f"2026-01-01T00:00:{numbers[0]:02}"
        assert entry["last_at"] == f"2026-01-01T00:00:{numbers[-1]:02}"
        assert entry["error"] == f"error {numbers[-1]}"
        assert entry["workers"][-1] == f"worker-{numbers[-1] % 9}"
        assert len(entry["workers"]) == len(set(entry["workers"])) <= 5


def test_an_outside_part_may_be_away_for_about_an_hour() -> None:
    pauses = []
    for times in range(1, LIMITS[Kind.TRANSIENT]):
        answer = decide(Kind.TRANSIENT, {Kind.TRANSIENT: times})
        assert isinstance(answer, Again)
        pauses.append(answer.pause)
    assert timedelta(minutes=55) <= sum(pauses, timedelta()) <= timedelta(minutes=65)


def test_eleven_times_away_and_one_fault_is_no_end() -> None:
    assert decide(Kind.FAULT, {Kind.TRANSIENT: 11, Kind.FAULT: 1, Kind.CRASH: 3}) == Again(timedelta(seconds=1))
    assert decide(Kind.FAULT, {Kind.FAULT: 3}) == GiveUp("given up after 3 tries")
    assert decide(Kind.CRASH, {Kind.CRASH: 3}) == Again(timedelta(0))
    assert isinstance(decide(Kind.CRASH, {Kind.CRASH: 4}), GiveUp)
