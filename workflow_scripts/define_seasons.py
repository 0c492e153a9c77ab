"""Give each location a window and a target day for each season label.

Reads
-----
locations.parquet
phenology_cycles.parquet : strategy `phenology`
a table with a date per location : strategy `dates`

Writes
------
seasons.parquet : one row per location and label, in the order of locations.parquet and of
`seasons.names`. Windows are half-open [start, end), on the circle of the year or in absolute
dates; the target is the middle of their sunlit part (`sunlit_days` 0: none).

Strategies: `phenology` (between transitions of the location's usual year; a location without
one takes all windows from the nearest location that has; with `both_cycles` a second cycle has
windows of its own, labels with `_2`), `calendar` (around the
equinoxes and solstices), `fixed` (a table of days), `dates` (around each location's own date).

References
----------
SSL4Eco, section A-1 and table A-1 (seasons from transitions, filling); Wang et al. 2023,
doi:10.1109/MGRS.2023.3281651 (SSL4EO-S12: calendar seasons).
"""

import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from workflow_scripts.core.config import SECOND_CYCLE
from workflow_scripts.core.seasons import (
    SEASONS,
    TRANSITIONS,
    window_length,
    window_middle,
    wrap_doy,
)
from workflow_scripts.core.stage import run_stage
from workflow_scripts.core.tables import COLUMNS, read_table, write_table
from workflow_scripts.phenology.climatology import nearest_donors, usual_year
from workflow_scripts.phenology.sunlight import aim_at_sunlight
from workflow_scripts.phenology.windows import cycle_windows

logger = logging.getLogger(__name__)

EMPTY_WINTER_DAYS = 5.25
"""A winter shorter than this counts as empty: dormancy comes more than 360 days after greenup."""
CALENDAR_DOY: Mapping[str, float] = {"spring": 79, "summer": 172, "autumn": 265, "winter": 355}
"""20 March, 21 June, 22 September, 21 December, in both hemispheres (SSL4EO-S12)."""


# ---- between transitions ---------------------------------------------------------------------


def phenology_seasons(
    locations: pd.DataFrame,
    cycles: pd.DataFrame,
    *,
    names: Sequence[str] = SEASONS,
    both_cycles: bool = False,
    min_years: int = 3,
    group_days: float = 60.0,
    min_window_days: float = 16.0,
    max_fill_distance_km: float | None = None,
    fill_same: str | None = None,
) -> pd.DataFrame:
    """Define seasons between the transitions of each location's usual year.

    Spring lasts from greenup to maturity, summer to senescence, autumn to dormancy, winter to the
    next greenup. A location with fewer than `min_years` cycles takes all windows together from the
    nearest location that has enough.

    Parameters
    ----------
    locations : `location_id`, `lon`, `lat`, and the column `fill_same`
    cycles : table `cycles`
    names : labels wanted, of the four seasons
    both_cycles : a second cycle has windows of its own, labels ``spring_2`` and so on; then each
        winter ends with the next greenup of either cycle
    min_years, group_days : as `usual_year`
    min_window_days : shorter windows are widened to it (one composite)
    max_fill_distance_km : farthest donor; None: no bound
    fill_same : column of the locations; donors with the same value go first

    Returns
    -------
    DataFrame in the layout of table `seasons`. `source` is ``observed``, ``filled`` (`donor_id` and
    `donor_distance_km` say from where; `n_years` and `spread_days` are the donor's) or ``none``.
    """
    unknown = [name for name in names if name not in SEASONS]
    if unknown:
        raise ValueError(
            f"seasons.names: {unknown} cannot be had from strategy 'phenology', which knows {list(SEASONS)}. "
            "Take strategy 'fixed' or 'dates' for other labels."
        )
    if fill_same is not None and fill_same not in locations:
        raise ValueError(
            f"seasons.fill_same = {fill_same!r} is no column of locations.parquet ({', '.join(locations.columns)})"
        )
    ids = pd.Index(locations["location_id"].astype(str))
    row = ids.get_indexer(cycles["location_id"].astype(str))
    known = row >= 0
    days = np.stack(
        [cycles[name].to_numpy("datetime64[D]").astype(np.int64)[known] for name in TRANSITIONS], axis=1
    )
    usual = usual_year(
        row[known],
        days,
        cycles["amplitude"].to_numpy(float)[known],
        n_locations=ids.size,
        min_years=min_years,
        group_days=group_days,
    )
    donor, distance = nearest_donors(
        locations["lon"].to_numpy(),
        locations["lat"].to_numpy(),
        np.isfinite(usual.doy[:, 0]),
        max_distance_km=max_fill_distance_km,
        kind=None if fill_same is None else locations[fill_same].to_numpy(),
    )
    start, end, length = cycle_windows(usual, min_days=min_window_days, both_cycles=both_cycles)
    has, giver = donor >= 0, np.where(donor >= 0, donor, 0)
    is_filled = has & (donor != np.arange(ids.size))
    ranks = [
        (usual.n_years, usual.spread_days, ""),
        (usual.second_n_years, usual.second_spread_days, SECOND_CYCLE),
    ]
    parts = []
    for rank, (n_years, spread, ending) in enumerate(ranks[: 1 + both_cycles]):
        there = has & np.isfinite(start[giver, 4 * rank])
        source = np.where(there, np.where(is_filled, "filled", "observed"), "none")
        common = {
            "source": source,
            "donor_id": np.where(there & is_filled, ids.to_numpy()[giver], ""),
            "donor_distance_km": np.where(there & is_filled, distance, np.nan),
            "n_years": np.where(there, n_years[giver], n_years),
            "spread_days": np.where(there, spread[giver], np.nan),
        }
        for name in names:
            i = 4 * rank + SEASONS.index(name)
            bounds = (np.where(there, side[giver, i], np.nan) for side in (start, end))
            parts.append(_circular_rows(ids, name + ending, *bounds, **common))
        if rank == 0:
            _log_sources(ids, usual.n_groups, source, distance)
        else:
            logger.info("%d locations have windows of a second cycle", int(there.sum()))
    _log_widened(length, min_window_days)
    return _assemble(parts)


def _log_sources(ids: pd.Index, n_groups: np.ndarray, source: np.ndarray, distance: np.ndarray) -> None:
    """Count what was observed, filled and missing."""
    counts = {name: int((source == name).sum()) for name in ("observed", "filled", "none")}
    logger.info("%d locations: %s", ids.size, counts)
    logger.info("%d locations have two or more cycles in a usual year", int((n_groups >= 2).sum()))
    if counts["filled"]:
        far = np.nanmax(np.where(source == "filled", distance, np.nan))
        logger.info("farthest donor: %.0f km", far)
    if counts["none"]:
        logger.warning(
            "%d of %d locations have no season and no donor (first: %s): they get no patches",
            counts["none"],
            ids.size,
            ", ".join(map(repr, ids[source == "none"][:5])),
        )


def _log_widened(length: np.ndarray, min_days: float) -> None:
    """Count the windows that were too short, by season."""
    labels = [*SEASONS, *(name + SECOND_CYCLE for name in SEASONS)]
    short = (length < min_days).sum(axis=0)
    n_empty = int((length[:, [3, 7]] < EMPTY_WINTER_DAYS).any(axis=1).sum())
    if short.any():
        listed = ", ".join(f"{name} {n}" for name, n in zip(labels, short, strict=True) if n)
        logger.warning(
            "windows shorter than %g days were widened to it at the expense of their neighbors: %s; "
            "winter was empty (shorter than %g days before) at %d locations",
            min_days,
            listed,
            EMPTY_WINTER_DAYS,
            n_empty,
        )


# ---- calendar, fixed, dates ------------------------------------------------------------------


def calendar_seasons(
    locations: pd.DataFrame,
    *,
    names: Sequence[str] = SEASONS,
    days: float = 15,
    lengths: pd.DataFrame | None = None,
    random_shift: bool = False,
    seed: int = 0,
) -> pd.DataFrame:
    """Define seasons around the equinoxes and solstices, the same in both hemispheres.

    Parameters
    ----------
    locations : `location_id`
    names : labels wanted, of the four seasons
    days : half the length of a window
    lengths : windows of the same locations (`location_id`, `season`, `length_days`) whose lengths are taken over, so
        that both kinds compare; where there is none, `days` stands
    random_shift : move all windows of a location by the same 0 to 364 days, as the published code of
        SSL4EO-S12 does. The shift follows from `seed` and the location's id alone.
    seed : for the shifts
    """
    unknown = [name for name in names if name not in CALENDAR_DOY]
    if unknown:
        raise ValueError(
            f"seasons.names: {unknown} are not in the calendar, which knows {list(CALENDAR_DOY)}. Take "
            "strategy 'fixed' for other labels."
        )
    ids = pd.Index(locations["location_id"].astype(str))
    shift = np.array([_shift(seed, name) for name in ids]) if random_shift else np.zeros(ids.size)
    parts = []
    for name in names:
        center, half = CALENDAR_DOY[name] + shift, np.full(ids.size, float(days))
        if lengths is not None:
            of = lengths[lengths["season"] == name].set_index("location_id")["length_days"].reindex(ids)
            half = np.where(of.to_numpy(float) > 0, of.to_numpy(float) / 2, half)
        parts.append(_circular_rows(ids, name, center - half, center + half, source="calendar"))
    return _assemble(parts)


def _shift(seed: int, location_id: str) -> int:
    digest = hashlib.blake2b(f"{seed}:{location_id}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") % 365


def parse_day(value: float | str) -> float:
    """Give the day of the year of a number (1 to 366) or of a text such as ``"07-15"``."""
    if isinstance(value, str):
        try:
            date = np.datetime64(f"2001-{value}", "D")  # a year without leap day
            if np.isnat(date):
                raise ValueError
        except ValueError:
            raise ValueError(f"seasons.table: {value!r} is not a day such as '07-15'") from None
        return float((date - np.datetime64("2001-01-01", "D")).astype(int) + 1)
    if not 1 <= value <= 366:
        raise ValueError(f"seasons.table: day of the year {value!r} is outside 1 to 366")
    return float(value)


def parse_window(window: Sequence | Mapping[str, Any]) -> tuple[float, float]:
    """Give start and end of ``[start, end]`` or ``{center: day, days: half length}``."""
    if isinstance(window, Mapping):
        center, days = parse_day(window["center"]), float(window["days"])
        return center - days, center + days
    start, end = map(parse_day, window)
    if start == end:
        raise ValueError(f"seasons.table: window {list(window)!r} is empty")
    return start, end


def _is_window(entry: Any) -> bool:
    return not isinstance(entry, Mapping) or "center" in entry


def fixed_seasons(
    locations: pd.DataFrame, table: Mapping[str, Any], *, names: Sequence[str], by: str = "hemisphere"
) -> pd.DataFrame:
    """Define seasons by a table of days.

    Parameters
    ----------
    locations : `location_id`, `lat`, and the column `by`
    table : for each label a window (``[start, end]`` or ``{center, days}``, as days of the year or
        ``"MM-DD"``) for all locations, or a mapping from values of `by` to windows; the key
        ``other`` serves the values not named. Locations without window get source ``none``.
    names : labels wanted
    by : ``hemisphere`` (north from the equator on, south) or a column of locations.parquet
    """
    missing = [name for name in names if name not in table]
    if missing:
        raise ValueError(f"seasons.table has no window for {missing}; it has {list(table)}")
    ids = pd.Index(locations["location_id"].astype(str))
    if by == "hemisphere":
        value = np.where(locations["lat"].to_numpy() >= 0, "north", "south")
    elif by in locations.columns:
        value = locations[by].astype(str).to_numpy()
    else:
        raise ValueError(
            f"seasons.by = {by!r} is neither 'hemisphere' nor a column of locations.parquet "
            f"({', '.join(locations.columns)})"
        )
    parts = []
    for name in names:
        entry = table[name]
        choices = {"other": entry} if _is_window(entry) else {str(k): v for k, v in entry.items()}
        start, end = np.full(ids.size, np.nan), np.full(ids.size, np.nan)
        for key, window in choices.items():
            here = ~np.isin(value, list(choices)) if key == "other" else value == key
            start[here], end[here] = parse_window(window)
        source = np.where(np.isfinite(start), "fixed", "none")
        if (source == "none").any():
            left = sorted(set(value[source == "none"]))[:5]
            logger.warning(
                "season %r: %d locations have no window (%s %s)", name, (source == "none").sum(), by, left
            )
        parts.append(_circular_rows(ids, name, start, end, source=source))
    return _assemble(parts)


def date_seasons(
    locations: pd.DataFrame,
    dates: pd.DataFrame,
    *,
    names: Sequence[str],
    column: str | Mapping[str, str] = "date",
    days: float = 15,
    before_only: bool = False,
) -> pd.DataFrame:
    """Define seasons around each location's own dates.

    Parameters
    ----------
    locations : `location_id`
    dates : `location_id` and the date columns
    names : labels; one if `column` is a name, else the keys of `column`
    column : the date column, or label -> column
    days : half the length of a window; with `before_only` its whole length
    before_only : the window ends before the date, against leakage from what happened on it

    Returns
    -------
    DataFrame in the layout of table `seasons`, absolute dates; source ``none`` without a date
    """
    columns = {names[0]: column} if isinstance(column, str) and len(names) == 1 else column
    if isinstance(columns, str):
        raise ValueError(
            f"seasons.names has {len(names)} labels but seasons.column names one column {column!r}. Give "
            "`column: {label: column, …}`."
        )
    wanted = [columns.get(name) for name in names]
    missing = [c for c in ["location_id", *wanted] if c not in dates.columns]
    if missing:
        raise ValueError(
            f"seasons.path lacks the columns {missing}; it has {list(map(str, dates.columns))}. Set "
            "seasons.column."
        )
    repeated = dates["location_id"].astype(str)[dates["location_id"].astype(str).duplicated()]
    if len(repeated):
        raise ValueError(f"seasons.path: location_id repeated: {sorted(set(repeated))[:5]}")
    ids = pd.Index(locations["location_id"].astype(str))
    by_id = dates.set_index(dates["location_id"].astype(str)).reindex(ids)
    span = np.timedelta64(round(days * 86_400), "s")
    parts = []
    for name, source_column in zip(names, wanted, strict=True):
        day = _to_days(by_id[source_column], name)
        start, end = day - span, day if before_only else day + span
        source = np.where(np.isnat(day), "none", "dates")
        parts.append(
            _rows(
                ids,
                name,
                start_date=start,
                end_date=end,
                target_date=start + (end - start) // 2,
                length_days=(end - start) / np.timedelta64(1, "D"),
                source=source,
            )
        )
        if (source == "none").any():
            logger.warning(
                "season %r: %d of %d locations have no date", name, (source == "none").sum(), ids.size
            )
    return _assemble(parts)


def _to_days(values: pd.Series, name: str) -> np.ndarray:
    """Whole UTC days; the first that cannot be read is named."""
    given = values.notna() & (values.astype(str).str.strip() != "")
    text = values.where(given)
    parsed = pd.to_datetime(text, utc=True, errors="coerce", format="ISO8601")
    bad = given & parsed.isna()
    if bad.any():
        raise ValueError(
            f"season {name!r}: location {values.index[bad.to_numpy()][0]!r} has the date "
            f"{values[bad].iloc[0]!r}, expected an ISO date such as 2019-05-17"
        )
    return parsed.dt.tz_localize(None).dt.normalize().to_numpy("datetime64[ns]")


# ---- rows of the table -----------------------------------------------------------------------


def _rows(ids: pd.Index, name: str, **columns: Any) -> pd.DataFrame:
    """Rows of one label; columns not given are missing."""
    empty: dict[str, Any] = {
        "start_date": np.datetime64("NaT", "ns"),
        "end_date": np.datetime64("NaT", "ns"),
        "target_date": np.datetime64("NaT", "ns"),
        "donor_id": "",
        "n_years": -1,
    }
    values = {column: columns.get(column, empty.get(column, np.nan)) for column in COLUMNS["seasons"]}
    return pd.DataFrame(values | {"location_id": ids.to_numpy(), "season": name}, index=range(ids.size))


def _circular_rows(
    ids: pd.Index, name: str, start: np.ndarray, end: np.ndarray, **columns: Any
) -> pd.DataFrame:
    """Rows of one label with windows on the circle; `start` and `end` need not be wrapped."""
    length = window_length(start, end)
    return _rows(
        ids,
        name,
        start_doy=wrap_doy(start),
        end_doy=wrap_doy(end),
        target_doy=window_middle(start, end),
        length_days=length,
        **columns,
    )


def _assemble(parts: list[pd.DataFrame]) -> pd.DataFrame:
    """Put the labels' rows together, location by location."""
    n = len(parts[0])
    order = np.arange(n * len(parts)).reshape(len(parts), n).T.ravel()
    return pd.concat(parts, ignore_index=True).iloc[order].reset_index(drop=True)


# ---- stage -----------------------------------------------------------------------------------


def _read_dates(path: str) -> pd.DataFrame:
    """Read the table of strategy `dates`: CSV or Parquet."""
    if not Path(path).exists():
        raise FileNotFoundError(f"seasons.path: {path} does not exist")
    if path.endswith(".parquet"):
        return pd.read_parquet(path)
    return pd.read_csv(path, dtype=str, keep_default_na=False)


def _by_phenology(job: Any, locations: pd.DataFrame, settings: Mapping[str, Any]) -> pd.DataFrame:
    keys = ("both_cycles", "min_window_days", "max_fill_distance_km", "fill_same")
    optional = {key: settings[key] for key in keys if key in settings}
    cycles = read_table(str(job.input.cycles), "cycles", ["location_id", *TRANSITIONS, "amplitude"])
    return phenology_seasons(locations, cycles, names=settings["names"], **job.params.climatology, **optional)


def _by_calendar(job: Any, locations: pd.DataFrame, settings: Mapping[str, Any]) -> pd.DataFrame:
    return calendar_seasons(
        locations,
        names=settings["names"],
        days=settings.get("days", 15),
        lengths=_by_phenology(job, locations, settings) if settings.get("lengths") == "phenology" else None,
        random_shift=settings.get("random_shift", False),
        seed=job.params.seed,
    )


def _by_table(job: Any, locations: pd.DataFrame, settings: Mapping[str, Any]) -> pd.DataFrame:
    by = settings.get("by", "hemisphere")
    return fixed_seasons(locations, settings.get("table") or {}, names=settings["names"], by=by)


def _by_dates(job: Any, locations: pd.DataFrame, settings: Mapping[str, Any]) -> pd.DataFrame:
    return date_seasons(
        locations,
        _read_dates(str(job.input.dates)),
        names=settings["names"],
        column=settings.get("column", "date"),
        days=settings.get("days", 15),
        before_only=settings.get("before_only", False),
    )


STRATEGIES: Mapping[str, Callable[[Any, pd.DataFrame, Mapping[str, Any]], pd.DataFrame]] = {
    "phenology": _by_phenology,
    "calendar": _by_calendar,
    "fixed": _by_table,
    "dates": _by_dates,
}


def main(job: Any) -> None:
    """Define the seasons of one dataset."""
    settings = job.params.settings
    locations = pd.DataFrame(read_table(job.input.locations, "locations").drop(columns="geometry"))
    seasons = STRATEGIES[settings["strategy"]](job, locations, settings)
    lat = locations["lat"].to_numpy()[np.arange(len(seasons)) // (len(seasons) // len(locations))]
    seasons = aim_at_sunlight(seasons, lat, job.params.max_sun_zenith)
    dark = seasons["sunlit_days"] == 0
    if dark.any():
        logger.warning(
            "%d windows have no day with the sun within scenes.max_sun_zenith = %g° of the zenith (%s; first: "
            "%s): no scene will be found for them",
            int(dark.sum()),
            job.params.max_sun_zenith,
            seasons[dark].groupby("season", sort=False).size().to_dict(),
            ", ".join(map(repr, seasons["location_id"][dark].unique()[:5])),
        )
    write_table(seasons, job.output.seasons, "seasons")
    logger.info("%s", seasons.groupby(["season", "source"], sort=False).size().to_dict())


if "snakemake" in globals():
    run_stage(main, snakemake)  # noqa: F821
