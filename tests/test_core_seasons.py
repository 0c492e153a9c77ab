"""Circular days of the year."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workflow_scripts.core import seasons

DOY = st.floats(1, 366, allow_nan=False)


@given(DOY, DOY)
def test_difference_is_the_short_way_round(a, b):
    difference = float(seasons.circular_difference(a, b))
    assert -182.625 <= difference <= 182.625
    assert seasons.wrap_doy(b + difference) == pytest.approx(float(seasons.wrap_doy(a)), abs=1e-6) or (
        abs(abs(float(seasons.wrap_doy(b + difference)) - a) - seasons.YEAR_DAYS) < 1e-6
    )


@given(DOY, DOY)
def test_middle_lies_in_the_window(start, end):
    if seasons.window_length(start, end) > 1e-6:
        assert seasons.in_window(seasons.window_middle(start, end), start, end)


def test_window_over_new_year():
    assert seasons.in_window([350, 10, 40, 200], 340, 40).tolist() == [True, True, False, False]
    assert seasons.window_length(340, 40) == pytest.approx(65.25)


def test_circular_median_over_new_year():
    assert seasons.circular_median([360, 364, 3, 5, np.nan]) == pytest.approx(0.875 + 365.25, abs=1) or (
        seasons.circular_median([360, 364, 3, 5, np.nan]) <= 3
    )
    assert seasons.circular_median([100, 110, 120]) == 110
    assert np.isnan(seasons.circular_median([np.nan]))


@given(st.lists(st.integers(1, 365), min_size=1, max_size=9), st.integers(0, 364))
def test_circular_median_turns_with_the_days(days, shift):
    def cost(day):
        return np.abs(seasons.circular_difference(day, days)).sum()

    median = seasons.circular_median(days)
    # no other day of the year is nearer to all of them
    assert cost(median) <= min(cost(day) for day in np.arange(1, 366.25, 0.25)) + 1e-6
    turned = seasons.circular_median(seasons.wrap_doy(np.array(days) + shift))
    expected = np.abs(seasons.circular_difference(turned, np.array(days) + shift)).sum()
    assert expected == pytest.approx(cost(median), abs=1e-6)
