"""Freeze windows: against clocks that are read minute by minute, in zones that change theirs in every way."""

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from functools import cache
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.freeze import DAYS, Freeze, Frozen, frozen, minutes

# In Berlin clocks change at 1:00 UTC, on Lord Howe by half an hour, in Beirut and Santiago at midnight, in Apia a day
# was left out, in Kathmandu they never change and are 45 minutes off.
ZONES = [
    "UTC",
    "Europe/Berlin",
    "Australia/Lord_Howe",
    "Asia/Beirut",
    "America/Santiago",
    "Asia/Kathmandu",
    "Pacific/Apia",
]
MIDDLES = [date(2026, 3, 29), date(2026, 10, 25), date(2026, 4, 5), date(2026, 9, 6), date(2011, 12, 30)]
AROUND = 4
CLOCKS = st.builds(lambda minute: f"{minute // 60:02}:{minute % 60:02}", st.integers(0, 1439))


@cache
def shown(zone: str, middle: date) -> list[tuple[datetime, datetime]]:
    """Each minute of some days, and what the zone's clocks show then."""
    begin = datetime(middle.year, middle.month, middle.day, tzinfo=UTC) - timedelta(days=AROUND)
    moments = [begin + timedelta(minutes=minute) for minute in range(2 * AROUND * 1440)]
    return [(moment, moment.astimezone(ZoneInfo(zone)).replace(tzinfo=None)) for moment in moments]


def by_minutes(window: Freeze, zone: str, middle: date) -> set[datetime]:
    """The frozen minutes, found by looking at clocks alone."""
    found = set[datetime]()
    for day in (middle + timedelta(days=shift) for shift in range(-AROUND - 2, AROUND + 2)):
        if DAYS[day.weekday()] not in window.days:
            continue
        midnight = datetime(day.year, day.month, day.day)  # noqa: DTZ001 -- what clocks show
        first = midnight + timedelta(minutes=minutes(window.start))
        last = midnight + timedelta(minutes=minutes(window.end), days=minutes(window.end) <= minutes(window.start))
        rows = shown(zone, middle)
        begin = next((moment for moment, clock in rows if clock >= first), None)
        final = next((moment for moment, clock in reversed(rows) if clock < last), None)
        if begin is not None and final is not None:
            found |= {moment for moment, _ in rows if begin <= moment <= final}
    return found


@given(
    zone=st.sampled_from(ZONES),
    middle=st.sampled_from(MIDDLES),
    days=st.sets(st.sampled_from(DAYS), min_size=1),
    start=CLOCKS,
    end=st.one_of(CLOCKS, st.just("24:00")),
    data=st.data(),
)
def test_a_window_covers_just_the_minutes_that_clocks_say(
    zone: str, middle: date, days: set[str], start: str, end: str, data: st.DataObject
) -> None:
    window = Freeze("why", zone, tuple(day for day in DAYS if day in days), start=start, end=end)
    expected = by_minutes(window, zone, middle)
    # The first and last days are not looked at: what the clocks showed before them is not known.
    inner = [moment for moment, _ in shown(zone, middle)][2 * 1440 : -2 * 1440]
    edges = [m for m in inner if (m in expected) != (m - timedelta(minutes=1) in expected)]
    for moment in [*edges, *(edge - timedelta(minutes=1) for edge in edges), data.draw(st.sampled_from(inner))]:
        assert (frozen([window], moment) is not None) == (moment in expected), moment


@given(
    st.lists(
        st.builds(
            Freeze,
            st.just("why"),
            st.sampled_from(ZONES),
            st.lists(st.sampled_from(DAYS), min_size=1, max_size=6, unique=True).map(tuple),
            start=CLOCKS,
            end=CLOCKS,
        ),
        max_size=4,
    ),
    st.sampled_from(MIDDLES),
    st.integers(0, 10_000),
)
def test_it_is_over_when_it_says(windows: Sequence[Freeze], day: date, minute: int) -> None:
    now = datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(minutes=minute)
    found = frozen(windows, now)
    if found is None or found.until is None:
        return
    assert found.until > now
    assert frozen(windows, found.until) is None
    assert frozen(windows, found.until - timedelta(seconds=1)) is not None


def at(text: str) -> datetime:
    return datetime.fromisoformat(text)


@pytest.mark.parametrize(
    ("moment", "until"),
    [
        ("2026-11-20T15:59:00+01:00", None),
        ("2026-11-20T16:00:00+01:00", "2026-11-23T08:00:00+01:00"),  # Friday afternoon, until Monday morning
        ("2026-11-22T12:00:00+01:00", "2026-11-23T08:00:00+01:00"),
        ("2026-11-23T08:00:00+01:00", None),
    ],
)
def test_windows_that_touch_are_one_weekend(moment: str, until: str | None) -> None:
    night = Freeze("nobody is there", "Europe/Berlin", ("fri", "sat", "sun"), start="16:00", end="08:00")
    day = Freeze("nobody is there", "Europe/Berlin", ("sat", "sun"))
    assert frozen([night, day], at(moment)) == (Frozen("nobody is there", at(until)) if until else None)


def test_a_holiday_is_one_window() -> None:
    holiday = Freeze("the holidays", "Europe/Berlin", (), date(2026, 12, 20), date(2027, 1, 2), "16:00", "08:00")
    until = at("2027-01-02T08:00:00+01:00")
    assert frozen([holiday], at("2026-12-20T15:59:59+01:00")) is None
    for moment in ("2026-12-20T16:00:00+01:00", "2026-12-28T12:00:00+01:00", "2027-01-02T07:59:59+01:00"):
        assert frozen([holiday], at(moment)) == Frozen("the holidays", until)
    assert frozen([holiday], until) is None


def test_days_within_dates() -> None:
    window = Freeze("december's fridays", "UTC", ("fri",), date(2026, 12, 1), date(2026, 12, 31))
    assert frozen([window], at("2026-11-27T12:00:00+00:00")) is None
    assert frozen([window], at("2026-12-04T12:00:00+00:00")) == Frozen(window.reason, at("2026-12-05T00:00:00+00:00"))


def test_an_hour_that_comes_twice_is_frozen_twice() -> None:
    window = Freeze("the clocks change", "Europe/Berlin", ("sun",), start="02:15", end="02:45")
    assert frozen([window], at("2026-10-25T02:14:59+02:00")) is None
    until = at("2026-10-25T02:45:00+01:00")
    for moment in ("2026-10-25T02:15:00+02:00", "2026-10-25T02:50:00+02:00", "2026-10-25T02:44:59+01:00"):
        assert frozen([window], at(moment)) == Frozen("the clocks change", until)
    assert frozen([window], until) is None


def test_a_window_in_an_hour_that_never_comes_is_none() -> None:
    window = Freeze("the clocks change", "Europe/Berlin", ("sun",), start="02:15", end="02:45")
    for minute in range(180):
        assert frozen([window], at("2026-03-29T00:00:00+00:00") + timedelta(minutes=minute)) is None


def test_what_never_ends_says_so() -> None:
    assert frozen([Freeze("for good", "UTC", DAYS)], at("2026-01-01T00:00:00+00:00")) == Frozen("for good", None)
