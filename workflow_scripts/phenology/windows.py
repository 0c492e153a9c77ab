"""Windows of the seasons from the transitions of a usual year with one cycle or two."""

import numpy as np

from workflow_scripts.core.seasons import TRANSITIONS, YEAR_DAYS
from workflow_scripts.phenology.climatology import Climatology

WINDOW_STARTS = ("greenup", "maturity", "senescence", "dormancy")
"""Transition at which each of the four seasons begins; it ends where the next one does."""
_EXCESS_DAYS = 1e-7
"""By how much a pair of windows is moved too far, so that the moving ends."""
_MAX_ROUNDS = 10_000


def partition_year(starts: np.ndarray, min_days: float) -> np.ndarray:
    """Move the starts of the year's windows apart so that each lasts at least `min_days`.

    A short window is widened to both sides alike, an overlap of neighbors is divided at its middle; this
    is repeated until no window is too short. Windows far from a short one stay as they are.

    Parameters
    ----------
    starts : shape (n, windows), days, increasing; the last window ends at the first start + 365.25
    min_days : less than the year divided by the number of windows

    Returns
    -------
    starts, shape (n, windows), increasing; the windows fill the year
    """
    starts = np.array(starts, float)
    n_windows = starts.shape[1]
    if n_windows * min_days >= YEAR_DAYS:
        raise ValueError(
            f"seasons.min_window_days = {min_days:g}: {n_windows} windows of this length do not fit into a year"
        )
    left = np.arange(len(starts))
    for _ in range(_MAX_ROUNDS):
        part = starts[left]
        is_short = np.zeros(left.size, bool)
        for i in range(n_windows):
            after, turn = (i + 1) % n_windows, YEAR_DAYS * (i + 1 == n_windows)
            need = min_days - (part[:, after] + turn - part[:, i])
            is_short |= need > 0
            move = np.where(need > 0, need / 2 + _EXCESS_DAYS, 0)
            part[:, i] -= move
            part[:, after] += move
        starts[left] = part
        left = left[is_short]
        if left.size == 0:
            break
    return starts


def cycle_windows(
    usual: Climatology, *, min_days: float, both_cycles: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Give start and end of the four windows of the main cycle, and of the second one.

    The winter of each cycle lasts until the next greenup, of whichever cycle.

    Parameters
    ----------
    usual : from `usual_year`
    min_days : shorter windows are widened
    both_cycles : whether the second cycle counts; else its windows are missing

    Returns
    -------
    start, end : shape (location, 8), days, not wrapped; NaN where there is no such window
    length : shape (location, 8), days before windows were widened; negative where they overlapped
    """
    columns = [TRANSITIONS.index(name) for name in WINDOW_STARTS]
    first, second = usual.doy[:, columns], usual.second_doy[:, columns]
    is_double = both_cycles & np.isfinite(second[:, 0])
    is_single = np.isfinite(first[:, 0]) & ~is_double
    second = second - YEAR_DAYS * np.floor((second[:, :1] - first[:, :1]) / YEAR_DAYS)
    start, end, length = (np.full((len(first), 8), np.nan) for _ in range(3))
    for here, given in ((is_single, first), (is_double, np.column_stack([first, second]))):
        n = given.shape[1]
        moved = partition_year(given[here], min_days)
        start[here, :n] = moved
        end[here, :n] = np.column_stack([moved[:, 1:], moved[:, :1] + YEAR_DAYS])
        length[here, :n] = np.diff(np.column_stack([given, given[:, :1] + YEAR_DAYS]), axis=1)[here]
    return start, end, length
