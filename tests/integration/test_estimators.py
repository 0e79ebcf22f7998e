"""scikit-learn's own estimators through the real conversion: how many convert, and that none is silently wrong."""

from collections import Counter
from pathlib import Path

import pytest

from ci.bench.estimators import Outcome, attempt, trials


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> list[Outcome]:
    folder: Path = tmp_path_factory.mktemp("estimators")
    return [attempt(trial, folder / "one") for trial in trials()]


def test_none_that_is_kept_answers_unseen_rows_wrongly(outcomes: list[Outcome]) -> None:
    assert {outcome.trial.name: outcome.wrong for outcome in outcomes if outcome.wrong} == {}


def test_nearly_all_convert_and_the_others_say_why(outcomes: list[Outcome]) -> None:
    alone = Counter(outcome.word for outcome in outcomes if outcome.trial.is_alone)
    all_of_them = Counter(outcome.word for outcome in outcomes)

    assert alone["converted"] >= 84
    assert all_of_them["converted"] >= 98
    assert [outcome.trial.name for outcome in outcomes if outcome.rung is None and not outcome.reason] == []
