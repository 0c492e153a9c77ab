"""Seasons and transition dates, and arithmetic with circular days of the year.

A day of the year (DOY) runs from 1 (1 January) to 366; on the circle the year has 365.25 days.
A window is the half-open interval [start, end) and may cross New Year.
"""

import numpy as np
from numpy.typing import ArrayLike

TRANSITIONS = (
    "greenup",
    "mid_greenup",
    "maturity",
    "peak",
    "senescence",
    "mid_greendown",
    "dormancy",
)
"""The seven dates of a vegetation cycle, in order (MCD12Q2)."""

SEASONS = ("spring", "summer", "autumn", "winter")
YEAR_DAYS = 365.25


def wrap_doy(doy: ArrayLike) -> np.ndarray:
    """Bring any day count into the circle [1, 366.25)."""
    return np.mod(np.asarray(doy, float) - 1, YEAR_DAYS) + 1


def circular_difference(a: ArrayLike, b: ArrayLike) -> np.ndarray:
    """Days from `b` to `a` the short way round, in [-182.625, 182.625)."""
    return np.mod(np.asarray(a, float) - b + YEAR_DAYS / 2, YEAR_DAYS) - YEAR_DAYS / 2


def window_length(start: ArrayLike, end: ArrayLike) -> np.ndarray:
    """Days from `start` on to `end`, in [0, 365.25)."""
    return np.mod(np.asarray(end, float) - start, YEAR_DAYS)


def in_window(doy: ArrayLike, start: ArrayLike, end: ArrayLike) -> np.ndarray:
    """Tell whether a day lies in [start, end), which may cross New Year."""
    return window_length(start, doy) < window_length(start, end)


def window_middle(start: ArrayLike, end: ArrayLike) -> np.ndarray:
    """Day of the year halfway through a window."""
    return wrap_doy(np.asarray(start, float) + window_length(start, end) / 2)


def circular_median(doys: ArrayLike) -> float:
    """Give the day with the smallest sum of circular distances to the given days.

    Parameters
    ----------
    doys : 1-D array of days of the year; NaN are left out

    Returns
    -------
    one of the days, or the middle of two that tie; NaN without any day
    """
    days = np.asarray(doys, float)
    days = wrap_doy(days[np.isfinite(days)])
    if days.size == 0:
        return float("nan")
    cost = np.abs(circular_difference(days[:, None], days[None, :])).sum(axis=1)
    best = days[np.isclose(cost, cost.min())]
    return float(wrap_doy(best[0] + np.median(circular_difference(best, best[0]))))
