"""Estimate the seven transition dates of every vegetation cycle from a greenness series.

Reads
-----
greenness.zarr : index, day of observation and reliability, location × time

Writes
------
phenology_cycles.parquet : one row per location, calendar year of the peak and cycle

Method: the definitions of MCD12Q2 on an irregular series. Quality weights; snow replaced by a
floor; one natural cubic smoothing spline per location with its parameter in day³; daily curve,
clamped at the floor; cycles from peaks processed in increasing height; dates where the curve
crosses shares of the amplitude. These are not MCD12Q2's own dates: the input is another one.

References
----------
Gray, Sulla-Menashe and Friedl, user guide of MCD12Q2 collection 6; Bolton et al. 2020,
doi:10.1016/j.rse.2020.111685 (reach, thresholds); Reinsch 1967, doi:10.1007/BF02162161;
Green and Silverman 1994, section 2.3 (the spline as a banded system).
"""

import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from workflow_scripts.core.objects import open_folder, parent
from workflow_scripts.core.seasons import TRANSITIONS
from workflow_scripts.core.stage import progress, run_stage
from workflow_scripts.core.tables import write_table
from workflow_scripts.phenology import kernels
from workflow_scripts.phenology.curve import PhenologyOptions, fit_curve

logger = logging.getLogger(__name__)

LARGEST_INDEX = 2.0
"""A vegetation index beyond this is no reflectance index: wrong scale."""
BLOCK = 8192
"""Locations per unit of work: a chunk of greenness.zarr; about 40 MB at 8 years of 16-day data."""


# ---- xarray in, table out --------------------------------------------------------------------


def estimate_cycles(
    greenness: xr.Dataset, *, options: PhenologyOptions | None = None, threads: int = 1
) -> pd.DataFrame:
    """Estimate the transition dates of all vegetation cycles of all locations.

    A year's cycles are those whose peak lies in it. Years at the ends of the record (less than
    `margin_days` of data beyond them), years with too few observations and cycles with too long
    a gap give no row; neither does a location without a cycle of sufficient amplitude.

    Parameters
    ----------
    greenness : Dataset with dims (location, time)
        `index` : vegetation index, -0.2 to 1, NaN missing;
        `date` : day of observation, datetime64 (NaT missing) or days since 1970-01-01;
        `reliability` : 0 good, 1 marginal, 2 snow, 3 cloud, -1 none; absent means all good;
        `location_id` : coordinate on location, optional (else the position names it).
        Loaded block by block, so it may be larger than memory. Times need no order.
    options : parameters of the method
    threads : blocks computed at a time

    Returns
    -------
    DataFrame sorted by location and date
        `location_id`, `year`, `cycle` (1, 2, ... by date in the year); the seven dates
        (datetime64, whole days); `amplitude` and `minimum` of the rise; `r2` of the curve on the
        cycle's observations; `n_observations` in the cycle; `max_gap_days` in it;
        `snow_fraction` of its days; `qa` 0 best to 3 poor; `qa_detailed` the same for each date,
        2 bits each from bit 0 in order of the dates.

    Raises
    ------
    ValueError
        If a variable or dimension is missing, index values lie beyond ±2, or a reliability code is
        unknown.
    """
    _check_layout(greenness)
    options = options or PhenologyOptions()
    names = _location_names(greenness)
    n_threads = max(1, int(threads))
    frames = []
    with ThreadPoolExecutor(n_threads) as pool:
        n_blocks = -(-greenness.sizes["location"] // BLOCK)
        blocks = _ordered(pool, greenness, options, n_threads)
        for start, rows in progress(blocks, n_blocks, what=f"blocks of {BLOCK} locations"):
            frames.append(_cycle_table(rows, names[start : start + BLOCK]))
    if not frames:
        return _cycle_table(np.empty((0, kernels.N_COLUMNS)), names)
    return pd.concat(frames, ignore_index=True)


def transition_dates(
    greenness: xr.Dataset, *, options: PhenologyOptions | None = None, threads: int = 1
) -> xr.Dataset:
    """Estimate the transition dates as arrays: what `estimate_cycles` gives, unfolded.

    Parameters
    ----------
    greenness, options, threads : as `estimate_cycles`

    Returns
    -------
    Dataset, dims (location, year, cycle)
        `greenup mid_greenup maturity peak senescence mid_greendown dormancy` datetime64, NaT
        where there is no such cycle; `amplitude` NaN; `qa` -1
    """
    cycles = estimate_cycles(greenness, options=options, threads=threads)
    names = _location_names(greenness)
    years = np.arange(cycles["year"].min(), cycles["year"].max() + 1) if len(cycles) else []
    numbers = np.arange(1, cycles["cycle"].max() + 1) if len(cycles) else []
    shape = (names.size, len(years), len(numbers))
    row_of = pd.Series(np.arange(names.size), index=names)
    where = (
        row_of.loc[cycles["location_id"]].to_numpy(),
        cycles["year"].to_numpy(int) - (years[0] if len(years) else 0),
        cycles["cycle"].to_numpy(int) - 1,
    )
    missing = dict.fromkeys(TRANSITIONS, np.datetime64("NaT", "ns")) | {"amplitude": np.nan, "qa": -1}
    result = {}
    for name, fill in missing.items():
        values = np.full(shape, fill, dtype=cycles[name].dtype)
        values[where] = cycles[name].to_numpy()
        result[name] = (("location", "year", "cycle"), values)
    return xr.Dataset(result, coords={"location_id": ("location", names), "year": years, "cycle": numbers})


def daily_curve(greenness: xr.Dataset, *, options: PhenologyOptions | None = None) -> pd.DataFrame:
    """Give the daily curve of one location from which the dates are taken, for pictures.

    Parameters
    ----------
    greenness : as `estimate_cycles`, a single location (dimension of length 1 or selected away)
    options : parameters of the method

    Returns
    -------
    DataFrame with `date`, `curve` (index units) and `floor`; empty with fewer than 3 usable
    observations
    """
    options = options or PhenologyOptions()
    if "location" not in greenness.dims:
        greenness = greenness.expand_dims("location")
    _check_layout(greenness)
    date, index, reliability = _load_block(greenness, 0)
    day, curve, floor = fit_curve(date[0], index[0], reliability[0], options)
    dates = day.astype("datetime64[D]").astype("datetime64[ns]")
    return pd.DataFrame({"date": dates, "curve": curve, "floor": floor})


def _check_layout(greenness: xr.Dataset) -> None:
    missing = [name for name in ("index", "date") if name not in greenness]
    if missing:
        raise ValueError(
            f"greenness lacks {', '.join(missing)}; it has {', '.join(map(str, greenness.variables))}"
        )
    for name in ("index", "date"):
        if set(greenness[name].dims) != {"location", "time"}:
            raise ValueError(
                f"greenness: {name!r} has dims {greenness[name].dims!r}, expected (location, time)"
            )


def _location_names(greenness: xr.Dataset) -> np.ndarray:
    if "location_id" in greenness.variables:
        return np.atleast_1d(greenness["location_id"].values).astype(object)
    return np.arange(greenness.sizes["location"]).astype(str).astype(object)


def _load_block(greenness: xr.Dataset, start: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Load `BLOCK` locations as day numbers, float32 index and int8 reliability."""
    part = greenness.isel(location=slice(start, start + BLOCK)).transpose("location", "time", ...)
    index = np.ascontiguousarray(part["index"].values, np.float32)
    date = part["date"].values
    if date.dtype.kind == "M":
        day = date.astype("datetime64[D]").astype(np.int64)  # NaT becomes the smallest integer
    else:
        known = np.isfinite(date) if date.dtype.kind == "f" else date > np.iinfo(np.int32).min
        day = np.where(known, date, 0).astype(np.int64)
        day[~known] = kernels.MISSING_DAY
    reliability = _known_codes(part) if "reliability" in part else np.zeros(index.shape, np.int8)
    if np.nanmax(np.abs(index), initial=0) > LARGEST_INDEX:
        row, column = np.unravel_index(np.nanargmax(np.abs(index)), index.shape)
        name = _location_names(part)[row]
        raise ValueError(
            f"location {name!r}: index value {float(index[row, column])!r} is beyond "
            f"±{LARGEST_INDEX:g}. Expected -0.2 to 1: divide MODIS integers by 10,000."
        )
    return np.ascontiguousarray(day), index, reliability


def _known_codes(part: xr.Dataset) -> np.ndarray:
    """Reliability as int8, NaN and the fill value 255 as none; refuse codes that mean nothing."""
    codes = part["reliability"].values
    if codes.dtype != np.int8:
        codes = np.nan_to_num(codes.astype(np.float32), nan=kernels.NONE)
        codes[codes == 255] = kernels.NONE
    is_unknown = (codes < kernels.NONE) | (codes > kernels.CLOUD)
    if codes.dtype.kind == "f":
        is_unknown |= codes != np.floor(codes)
    if is_unknown.any():
        row, column = np.argwhere(is_unknown)[0]
        raise ValueError(
            f"location {_location_names(part)[row]!r}: reliability code {codes[row, column].item():g} is unknown "
            f"({int(is_unknown.sum())} in this block). Expected 0 good, 1 marginal, 2 snow, 3 cloud, -1 none."
        )
    return np.ascontiguousarray(codes, np.int8)


def _block_rows(
    day: np.ndarray, index: np.ndarray, reliability: np.ndarray, options: PhenologyOptions
) -> np.ndarray:
    """Run the kernel on one block, for the calendar years its dates touch."""
    first, last = kernels.day_span(day)
    if first > last:
        return np.empty((0, kernels.N_COLUMNS))
    span = np.array([first, last]).astype("datetime64[D]").astype("datetime64[Y]")
    years = np.arange(span[0], span[1] + 2)
    return kernels.estimate_block(
        day,
        index,
        reliability,
        int(years[0].astype(int)) + 1970,
        years.astype("datetime64[D]").astype(np.int64),
        np.array([options.low, options.mid, options.high]),
        float(options.lambda_day3),
        float(options.min_amplitude),
        float(options.relative_amplitude),
        int(options.reach_days),
        int(options.margin_days),
        int(options.min_observations),
        float(options.max_gap_days),
        float(options.floor_quantile),
        options.lower_bound,
        float(options.marginal_weight),
        float(options.snow_weight),
    )


def _ordered(
    pool: ThreadPoolExecutor, greenness: xr.Dataset, options: PhenologyOptions, n_threads: int
) -> Iterator[tuple[int, np.ndarray]]:
    """Give the rows of each block in order, with no more than two blocks per thread in memory."""
    starts = range(0, greenness.sizes["location"], BLOCK)
    waiting = []
    for start in starts:
        arrays = _load_block(greenness, start)
        waiting.append((start, pool.submit(_block_rows, *arrays, options)))
        if len(waiting) >= 2 * n_threads:
            first, future = waiting.pop(0)
            yield first, future.result()
    for first, future in waiting:
        yield first, future.result()


def _cycle_table(rows: np.ndarray, names: np.ndarray) -> pd.DataFrame:
    """Turn result rows into the table's columns, days before the peak rounded up, after it down."""
    columns: dict[str, Any] = {
        "location_id": names[rows[:, kernels.LOCATION].astype(int)],
        "year": rows[:, kernels.YEAR].astype(np.int16),
        "cycle": rows[:, kernels.CYCLE].astype(np.int8),
    }
    for k, name in enumerate(TRANSITIONS):
        crossing = rows[:, kernels.DATES + k]
        whole = np.ceil(crossing) if k < kernels.N_RISE else np.floor(crossing)
        columns[name] = whole.astype(np.int64).astype("datetime64[D]").astype("datetime64[ns]")
    columns |= {
        "amplitude": rows[:, kernels.AMPLITUDE].astype(np.float32),
        "minimum": rows[:, kernels.MINIMUM].astype(np.float32),
        "r2": rows[:, kernels.R2].astype(np.float32),
        "n_observations": rows[:, kernels.N_OBSERVATIONS].astype(np.int16),
        "max_gap_days": rows[:, kernels.MAX_GAP].astype(np.float32),
        "snow_fraction": rows[:, kernels.SNOW_FRACTION].astype(np.float32),
        "qa": rows[:, kernels.QA].astype(np.int8),
        "qa_detailed": rows[:, kernels.QA_DETAILED].astype(np.int32),
    }
    return pd.DataFrame(columns)


def main(job: Any) -> None:
    """Estimate the cycles of one dataset."""
    options = PhenologyOptions(**job.params.settings)
    store = open_folder(parent(job.input.greenness)).zarr_store()
    with xr.open_zarr(store, chunks=None) as greenness:
        cycles = estimate_cycles(greenness, options=options, threads=job.threads)
        n_locations = greenness.sizes["location"]
    counts = cycles.groupby("location_id").size()
    logger.info(
        "%d cycles at %d of %d locations; poor quality: %d",
        len(cycles),
        len(counts),
        n_locations,
        int((cycles["qa"] == kernels.POOR).sum()),
    )
    if cycles.empty:
        logger.warning(
            "no vegetation cycle at any of %d locations: is the record longer than a year plus "
            "2 × %d days, and its amplitude above %g?",
            n_locations,
            options.margin_days,
            options.min_amplitude,
        )
    write_table(cycles, job.output.cycles, "cycles")


if "snakemake" in globals():
    run_stage(main, snakemake)  # noqa: F821
