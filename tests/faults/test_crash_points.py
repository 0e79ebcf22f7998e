"""kill -9 at named points, a bounded campaign; `make faults` and `make faults-full` kill more."""

import pytest

from tests.crash.__main__ import campaign

KILLS = 40
SEED = 20261123


@pytest.mark.database
def test_nothing_is_lost_doubled_stuck_or_untrue(request: pytest.FixtureRequest) -> None:
    tally = campaign(request.config.getoption("--database"), KILLS, SEED, lanes=6)
    assert tally.broken == [], f"seed {SEED}"
    assert tally.total >= KILLS
    assert tally.live + tally.cancelled >= 6
    assert tally.unanswered == {}


def test_nor_where_releases_are_containers() -> None:
    tally = campaign("sqlite", KILLS // 2, SEED, lanes=3, docker=True)
    assert tally.broken == [], f"seed {SEED}"
    assert tally.total >= KILLS // 2
    assert tally.live + tally.cancelled >= 3
    assert tally.unanswered == {}
