"""Row-by-row comparison: what counts as wrong, and how far."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workers.sandbox.parity import NOT_COMPARABLE, compare

RTOL, ATOL = 1e-4, 1e-5
floats = st.floats(width=64, allow_nan=True, allow_infinity=True)
columns = st.lists(floats, min_size=1, max_size=20)


@settings(deadline=None)
@given(columns)
def test_everything_agrees_with_itself(values: list[float]) -> None:
    array = np.array(values).reshape(-1, 1)
    result = compare([array], [array.copy()], RTOL, ATOL)

    assert (result.rows, result.wrong_rows, result.largest_error) == (len(values), 0, 0.0)


@settings(deadline=None)
@given(st.lists(st.tuples(floats, floats), min_size=1, max_size=20))
def test_a_row_is_wrong_exactly_where_the_formula_says(pairs: list[tuple[float, float]]) -> None:
    native, other = (np.array([pair[side] for pair in pairs]).reshape(-1, 1) for side in (0, 1))

    def is_wrong(b: float, a: float) -> bool:
        if a == b or (math.isnan(a) and math.isnan(b)):
            return False
        if not (math.isfinite(a) and math.isfinite(b)):
            return True
        return abs(a - b) > ATOL + RTOL * abs(b)

    result = compare([native], [other], RTOL, ATOL)

    assert result.wrong.tolist() == [is_wrong(b, a) for b, a in pairs]
    assert math.isfinite(result.largest_error)


@settings(deadline=None)
@given(st.floats(0.1, 1e6), st.floats(0, 0.9))
def test_what_lies_within_the_tolerance_is_right(value: float, share: float) -> None:
    allowed = (ATOL + RTOL * value) * share
    result = compare([np.array([[value]])], [np.array([[value + allowed]])], RTOL, ATOL)

    assert result.wrong_rows == 0


def test_one_wrong_value_makes_its_row_wrong_once() -> None:
    native = [np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]), np.array(["a", "b", "c"], dtype=object)]
    other = [np.array([[1.1, 2.1], [3.0, 4.0], [5.0, 6.0]]), np.array(["x", "b", "y"], dtype=object)]

    result = compare(native, other, RTOL, ATOL)

    assert result.wrong.tolist() == [True, False, True]
    assert result.largest_error == NOT_COMPARABLE


def test_nan_is_wrong_against_a_number_but_not_against_nan() -> None:
    nan = float("nan")
    result = compare([np.array([[nan], [nan], [1.0]])], [np.array([[nan], [1.0], [nan]])], RTOL, ATOL)

    assert result.wrong.tolist() == [False, True, True]


@pytest.mark.parametrize("other", [[], [np.zeros((3, 1))], [np.zeros((2, 2))], [np.zeros((2, 1)), np.zeros((2, 1))]])
def test_outputs_that_cannot_be_compared_raise(other: list[np.ndarray]) -> None:
    with pytest.raises(ValueError, match="native"):
        compare([np.zeros((2, 1))], other, RTOL, ATOL)
