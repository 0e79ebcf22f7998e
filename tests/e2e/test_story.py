"""The main story as the demo plays it, on real rows and real parts."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from examples.airbnb.demo import play


@pytest.mark.filterwarnings("ignore::pandas.errors.Pandas4Warning")  # MLflow 3.17 calls pandas 3 in the old way
def test_the_main_story_comes_true(backing: Callable[[], dict[str, str]], airbnb: Path | None, tmp_path: Path) -> None:
    # Given a fresh installation and four versions of the Airbnb model, when they are promoted one after the other,
    good = play(airbnb, tmp_path / "demo", backing())
    # then each ends as it deserves, and the summary says so.
    summary = json.loads((tmp_path / "demo" / "summary.json").read_text())
    assert [name for name, true in summary["checks"].items() if not true] == []
    assert good
    ended = {row["version"]: row["state"] for row in summary["promotions"]}
    assert ended == {"1": "LIVE", "2": "LIVE", "3": "REJECTED", "4": "ROLLED_BACK"}
    assert summary["parity"]["2"]["default"] > 0
    assert list(summary["parity"]["2"].values())[-1] == 0
    assert summary["requests"]["failed"] == 0 < summary["requests"]["sent"]
    assert summary["audit"]["verified"] and summary["audit"]["tamper_found"]
    assert summary["serving"]["release"].startswith("2@")
