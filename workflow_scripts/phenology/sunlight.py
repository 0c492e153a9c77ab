"""When the sun stands high enough at the hour of Sentinel-2, and target days that follow from it."""

import numpy as np
import pandas as pd

from workflow_scripts.core.seasons import YEAR_DAYS, wrap_doy

OVERPASS_HOUR = 10.5
"""Mean local solar time of Sentinel-2's descending node (ESA, Sentinel-2 user handbook). At high latitudes the
true hour differs; the scenes' own zenith decides there, this only where they are looked for."""
_ROWS_AT_A_TIME = 20_000


def solar_declination(doy: np.ndarray) -> np.ndarray:
    """Give the sun's declination, degrees, by Spencer's series (error below 0.04°).

    Parameters
    ----------
    doy : day of the year, 1 to 366

    References
    ----------
    Spencer 1971, Fourier series representation of the position of the sun, Search 2(5), 172.
    """
    angle = 2 * np.pi * (np.asarray(doy, float) - 1) / YEAR_DAYS
    radians = (
        0.006918
        - 0.399912 * np.cos(angle)
        + 0.070257 * np.sin(angle)
        - 0.006758 * np.cos(2 * angle)
        + 0.000907 * np.sin(2 * angle)
        - 0.002697 * np.cos(3 * angle)
        + 0.00148 * np.sin(3 * angle)
    )
    return np.degrees(radians)


def sun_zenith(lat: np.ndarray, doy: np.ndarray) -> np.ndarray:
    """Give the sun's zenith angle at `OVERPASS_HOUR` local solar time, degrees."""
    phi, delta = np.radians(np.asarray(lat, float)), np.radians(solar_declination(doy))
    hour_angle = np.radians(15 * (OVERPASS_HOUR - 12))
    cosine = np.sin(phi) * np.sin(delta) + np.cos(phi) * np.cos(delta) * np.cos(hour_angle)
    return np.degrees(np.arccos(np.clip(cosine, -1, 1)))


def longest_run(is_true: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Find the longest run of true values in each row, the first of equals; length 0 without any.

    Returns
    -------
    begin, length : positions
    """
    count, best = np.zeros(len(is_true), np.int64), np.zeros(len(is_true), np.int64)
    last = np.zeros(len(is_true), np.int64)
    for i in range(is_true.shape[1]):
        count = np.where(is_true[:, i], count + 1, 0)
        last = np.where(count > best, i, last)
        best = np.maximum(best, count)
    return np.where(best > 0, last - best + 1, 0), best


def aim_at_sunlight(seasons: pd.DataFrame, lat: np.ndarray, max_sun_zenith: float) -> pd.DataFrame:
    """Move each target to the middle of the sunlit part of its window.

    Sunlit are the days on which the sun stands at most `max_sun_zenith` from the zenith at the hour of
    Sentinel-2; where the dark lies in the middle of a window, the longer part counts. A window without
    such a day keeps its middle as the target, and `sunlit_days` 0.

    Parameters
    ----------
    seasons : table `seasons` with targets in the middle of the windows
    lat : degrees, of each row
    max_sun_zenith : degrees

    Returns
    -------
    the table with `sunlit_days` (NaN without a window) and changed targets
    """
    lat, length = np.asarray(lat, float), seasons["length_days"].to_numpy(float)
    sunlit, shift = length.copy(), np.zeros(len(seasons))
    solstices = np.array([172.0, 355.0])
    lowest_sun = sun_zenith(lat[:, None], solstices[None, :]).max(axis=1)
    is_dated = seasons["start_date"].notna().to_numpy()
    first = np.where(is_dated, seasons["start_date"].dt.dayofyear, seasons["start_doy"]).astype(float)
    rows = np.flatnonzero((lowest_sun > max_sun_zenith - 0.1) & (length > 0))
    for begin in range(0, rows.size, _ROWS_AT_A_TIME):
        here = rows[begin : begin + _ROWS_AT_A_TIME]
        days = np.arange(int(np.ceil(length[here].max()))) + 0.5
        is_inside = days[None, :] < length[here, None]
        doy = wrap_doy(first[here, None] + days[None, :])
        is_lit = is_inside & (sun_zenith(lat[here, None], doy) <= max_sun_zenith)
        part, n_days = longest_run(is_lit)
        is_whole = is_lit.sum(axis=1) == is_inside.sum(axis=1)
        sunlit[here] = np.where(is_whole, length[here], is_lit.sum(axis=1))
        is_moved = ~is_whole & (n_days > 0)
        shift[here] = np.where(is_moved, part + n_days / 2 - length[here] / 2, 0)
    target = seasons["target_doy"].to_numpy(float)
    moved = np.where(shift != 0, wrap_doy(target + shift), target)
    dates = seasons["target_date"] + pd.to_timedelta(np.where(is_dated, np.round(shift), 0), unit="D")
    return seasons.assign(sunlit_days=sunlit, target_doy=moved, target_date=dates)
