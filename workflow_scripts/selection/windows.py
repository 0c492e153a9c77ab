"""Which scenes lie in the window of a season, and how far from its target."""

import numpy as np
import pandas as pd

from workflow_scripts.core import seasons


def scenes_in_windows(pairs: pd.DataFrame, windows: pd.DataFrame, items: pd.DataFrame) -> pd.DataFrame:
    """Keep, per season, the pairs whose day lies in the season's window.

    Parameters
    ----------
    pairs : `location`, `item` and further columns, which are kept
    windows : table `seasons` with `location`
    items : table `items`

    Returns
    -------
    DataFrame with the columns of `pairs`, `season`, `days_from_target` (signed) and `cycle`
    (vegetation year, counted from the location's first season)
    """
    first_target = windows.drop_duplicates("location").set_index("location")["target_doy"]
    rows = pairs.merge(windows, on="location")
    day = items["datetime"].dt.normalize().to_numpy()[rows["item"]]
    doy = pd.DatetimeIndex(day).dayofyear.to_numpy(float)
    start, end = (rows[name].to_numpy(float) for name in ("start_doy", "end_doy"))
    inside = np.isfinite(start) & seasons.in_window(doy, start, end)
    inside |= (day >= rows["start_date"].to_numpy()) & (day < rows["end_date"].to_numpy())
    rows = rows.assign(days_from_target=days_from_target(rows, day))[inside]
    days = rows["days_from_target"].to_numpy().astype(int)
    target_day = pd.DatetimeIndex(day[inside] - days * np.timedelta64(1, "D"))
    begins = rows["location"].map(first_target).to_numpy(float)
    rows["cycle"] = target_day.year - (rows["target_doy"].to_numpy(float) < begins)
    return rows[[*pairs.columns, "season", "days_from_target", "cycle"]].reset_index(drop=True)


def days_from_target(rows: pd.DataFrame, day: np.ndarray) -> np.ndarray:
    """Give the signed days from the target of each row's window to a day; NaN without window.

    Parameters
    ----------
    rows : `target_doy` of circular windows, `target_date` of absolute ones
    day : datetime64, one per row
    """
    doy = pd.DatetimeIndex(day).dayofyear.to_numpy(float)
    target = rows["target_doy"].to_numpy(float)
    return np.where(
        np.isfinite(target),
        np.round(seasons.circular_difference(doy, target)),
        (day - rows["target_date"].to_numpy()) / np.timedelta64(1, "D"),
    )
