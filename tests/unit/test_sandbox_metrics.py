"""Metrics of the sandbox against scikit-learn's own, and the percentiles of latencies."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score, mean_absolute_error, r2_score, root_mean_squared_error

from workers.sandbox.measure import KEPT_SAMPLES, p99, thin
from workers.sandbox.metrics import score
from workers.sandbox.refusal import Refused

numbers = st.floats(-1e3, 1e3, width=32)


@settings(deadline=None)
@given(st.lists(st.tuples(numbers, numbers), min_size=2, max_size=30))
def test_regression_is_what_scikit_learn_says(pairs: list[tuple[float, float]]) -> None:
    predicted, actual = (np.array([pair[side] for pair in pairs]) for side in (0, 1))
    metrics = score(predicted.reshape(-1, 1), [repr(float(value)) for value in actual])

    assert metrics["rmse"] == pytest.approx(root_mean_squared_error(actual, predicted), abs=1e-9)
    assert metrics["mae"] == pytest.approx(mean_absolute_error(actual, predicted), abs=1e-9)
    if "r2" in metrics:
        assert metrics["r2"] == pytest.approx(r2_score(actual, predicted), rel=1e-6, abs=1e-6)


words = st.sampled_from(["cat", "dog", "eel"])


@settings(deadline=None)
@given(st.lists(st.tuples(words, words), min_size=1, max_size=30))
def test_classification_is_what_scikit_learn_says(pairs: list[tuple[str, str]]) -> None:
    predicted, actual = ([pair[side] for pair in pairs] for side in (0, 1))
    metrics = score(np.array(predicted, dtype=object), actual)

    assert metrics["accuracy"] == pytest.approx(accuracy_score(actual, predicted))
    assert metrics["f1_macro"] == pytest.approx(f1_score(actual, predicted, average="macro"))


@pytest.mark.parametrize("labels", [["1", "0", "1"], ["1.0", "0.0", "1.0"], ["true", "False", "TRUE"]])
def test_labels_are_the_same_class_however_they_are_written(labels: list[str]) -> None:
    assert score(np.array([1, 0, 1]), labels) == {"accuracy": 1.0, "f1_macro": 1.0}


def test_a_label_that_is_no_number_is_refused() -> None:
    with pytest.raises(Refused, match="not a number"):
        score(np.array([[1.0]]), ["cheap"])


def test_predictions_that_are_not_finite_are_refused() -> None:
    with pytest.raises(Refused, match="finite"):
        score(np.array([[np.nan]]), ["1"])


@settings(deadline=None)
@given(st.lists(st.floats(0, 1e3), min_size=1, max_size=3000))
def test_p99_is_a_sample_that_at_most_one_in_a_hundred_exceeds(samples: list[float]) -> None:
    value = p99(samples)

    assert value in samples
    assert sum(sample > value for sample in samples) <= len(samples) / 100
    assert len(thin(samples)) <= KEPT_SAMPLES
