"""Freeze windows: when nothing may be moved, in the wall-clock time of a zone, across its changes of summer time."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Literal
from zoneinfo import ZoneInfo

Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
DAYS: tuple[Day, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
MOST = 400
"""After so many windows that follow each other without a gap, no end is looked for any more."""
_DAY = timedelta(days=1)


@dataclass(frozen=True)
class Freeze:
    """When nothing may be moved. `start` and `end` are times of day (`HH:MM`, the end also `24:00`) in the `zone`, an
    IANA name.

    With `days`, each of these days (from `first` to `last`, where given) has a window of its own, which goes on into
    the next day where `end` is not after `start`. Without `days` there is one: `start` on `first` to `end` on `last`.
    """

    reason: str
    zone: str = "UTC"
    days: tuple[Day, ...] = ()
    first: date | None = None
    last: date | None = None
    start: str = "00:00"
    end: str = "24:00"


@dataclass(frozen=True)
class Frozen:
    """Why nothing may be moved now, and until when (UTC); None: no end is in sight."""

    reason: str
    until: datetime | None


def minutes(clock: str) -> int:
    """Minutes since midnight of `HH:MM`."""
    hours, _, rest = clock.partition(":")
    return int(hours) * 60 + int(rest)


def frozen(windows: Sequence[Freeze], now: datetime) -> Frozen | None:
    """The freeze that covers `now`, and when all that follow it without a gap are over; None where nothing is frozen.

    A window begins the first time that its zone's clocks show `start` or more, and ends the last time that they show
    less than `end`: an hour that comes twice is frozen twice, and one that never comes moves no other.
    """
    reason, until = "", now
    for _ in range(MOST):
        covering = [(end, window.reason) for window in windows for end in _ends(window, until)]
        if not covering:
            return Frozen(reason, until.astimezone(UTC)) if reason else None
        until, last = max(covering)
        reason = reason or last
    return Frozen(reason, None)


def _ends(window: Freeze, now: datetime) -> Iterator[datetime]:
    """When those of the window's stretches end that `now` lies in."""
    zone = ZoneInfo(window.zone)
    for first, last in _stretches(window, now.astimezone(zone).date()):
        if _begin(first, zone) <= now < (end := _end(last, zone)):
            yield end


def _stretches(window: Freeze, today: date) -> Iterator[tuple[datetime, datetime]]:
    """The window's stretches around a day: from and to, as that zone's clocks show it."""
    start, end = minutes(window.start), minutes(window.end)
    if not window.days:
        if window.first is not None and window.last is not None:
            yield _clock(window.first, start), _clock(window.last, end)
        return
    # A day before, for windows over midnight; one more on each side, for days that a zone has skipped or had twice.
    for day in (today + shift * _DAY for shift in (-2, -1, 0, 1)):
        in_time = (window.first is None or window.first <= day) and (window.last is None or day <= window.last)
        if in_time and DAYS[day.weekday()] in window.days:
            yield _clock(day, start), _clock(day if end > start else day + _DAY, end)


def _clock(day: date, minute: int) -> datetime:
    return datetime(day.year, day.month, day.day) + timedelta(minutes=minute)  # noqa: DTZ001 -- what clocks show; the zone is applied by who asks


def _begin(shown: datetime, zone: ZoneInfo) -> datetime:
    """The first moment at which the zone's clocks show this or more."""
    earlier, later = _readings(shown, zone)
    return min(earlier, later) if earlier <= later else _jump(later, earlier, zone)


def _end(shown: datetime, zone: ZoneInfo) -> datetime:
    """The moment after the last one at which the zone's clocks show less."""
    earlier, later = _readings(shown, zone)
    return max(earlier, later) if earlier <= later else _jump(later, earlier, zone)


def _readings(shown: datetime, zone: ZoneInfo) -> tuple[datetime, datetime]:
    """What it means by the offset before a change of clocks and by the one after it; else twice the same. Where clocks
    went forward past it, the first lies after the second."""
    one, two = (shown.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1))
    return one, two


def _jump(before: datetime, after: datetime, zone: ZoneInfo) -> datetime:
    """The moment between two at which the zone's clocks went forward."""
    old = before.astimezone(zone).utcoffset()
    low, high = 0, round((after - before).total_seconds())
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if _offset(before, middle, zone) == old else (low, middle)
    return before + timedelta(seconds=high)


def _offset(since: datetime, seconds: int, zone: ZoneInfo) -> timedelta | None:
    return (since + timedelta(seconds=seconds)).astimezone(zone).utcoffset()
