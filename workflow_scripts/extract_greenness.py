"""Merge the vegetation-index series of all locations into one store.

Reads
-----
locations.parquet
greenness/{tile}.parquet of all tiles, or the user's own series (CSV, Parquet or Zarr):
`location_id`, `date` (ISO), the index (column `evi`, `ndvi` or `index`, -0.2 to 1) and optionally
`reliability` (0 good, 1 marginal, 2 snow, 3 cloud; all good where the column is absent)

Writes
------
greenness.zarr : dims (location, time), the order of locations.parquet; `index` int16 (scale
1e-4), `date` int32 (days since 1970-01-01), `reliability` int8, `n_usable` per location. `time` is
a position only: each location's observations in order of date, the rest missing.

The store is made beside its place and moved there whole: a killed job leaves none.
"""

import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import zarr
from zarr.codecs import BloscCodec

from workflow_scripts.core import grid
from workflow_scripts.core.objects import new_group, parent
from workflow_scripts.core.stage import run_stage
from workflow_scripts.core.tables import read_table
from workflow_scripts.phenology.user_series import NO_RELIABILITY, RELIABILITY_CODES, SCALE, series_blocks

logger = logging.getLogger(__name__)

MISSING_INDEX = -32768
MISSING_DATE = -2147483648
USABLE = (0, 1, 2)
LOCATIONS_PER_CHUNK = 8192


@dataclass(frozen=True)
class Series:
    """Observations of some locations, padded to the longest, sorted by location and date."""

    row: np.ndarray
    """Positions in locations.parquet, shape (n,)."""
    index: np.ndarray
    """int16 × 1e-4, shape (n, time)."""
    date: np.ndarray
    """int32 days since 1970-01-01."""
    reliability: np.ndarray
    """int8."""


# ---- long tables to padded arrays ------------------------------------------------------------


def pad_series(
    table: pd.DataFrame, location_ids: pd.Index, where: str, *, repeats: int = logging.WARNING
) -> Series:
    """Turn a long table into arrays, one row per location it holds.

    Rows without date or value are left out; of several rows of one location and day the most
    reliable one stays (the first of equals); rows of unknown locations are left out. All are
    counted in the log.

    Parameters
    ----------
    table : `location_id`, `date`, `index`, `reliability`
    location_ids : those of locations.parquet, in order
    where : file name for messages
    repeats : level of the message about repeated days
    """
    number, names = pd.factorize(table["location_id"])
    known_row = location_ids.get_indexer(pd.Index(names))
    row = known_row[number] if number.size else np.empty(0, np.int64)
    unknown = np.asarray(names)[known_row < 0]
    if unknown.size:
        logger.warning(
            "%s: %d locations with %d rows are not in locations.parquet and are left out (%s)",
            where,
            unknown.size,
            int((row < 0).sum()),
            ", ".join(map(repr, unknown[:5])),
        )
    date = table["date"].to_numpy("datetime64[D]")
    value = table["index"].to_numpy(float)
    keep = np.flatnonzero((row >= 0) & ~np.isnat(date) & np.isfinite(value))
    row, day = row[keep], date[keep].astype(np.int64)
    reliability = table["reliability"].to_numpy(np.int8)[keep]
    rank = np.where(reliability < 0, len(RELIABILITY_CODES), reliability)
    order = np.lexsort((rank, day, row))
    row, day = row[order], day[order]
    first = np.ones(row.size, bool)
    first[1:] = (row[1:] != row[:-1]) | (day[1:] != day[:-1])
    if not first.all():
        logger.log(
            repeats,
            "%s: %d rows repeat a location's day; the most reliable one of each day is kept",
            where,
            int((~first).sum()),
        )
    row, day, kept = row[first], day[first], keep[order][first]
    present, start, count = np.unique(row, return_index=True, return_counts=True)
    shape = (present.size, int(count.max(initial=0)))
    position = np.arange(row.size) - np.repeat(start, count)
    cell = (np.repeat(np.arange(present.size), count), position)
    index = np.full(shape, MISSING_INDEX, np.int16)
    dates = np.full(shape, MISSING_DATE, np.int32)
    codes = np.full(shape, NO_RELIABILITY, np.int8)
    index[cell] = np.round(value[kept] / SCALE).astype(np.int16)
    dates[cell] = day
    codes[cell] = table["reliability"].to_numpy(np.int8)[kept]
    return Series(present, index, dates, codes)


def merge_series(parts: Iterable[Series], n_locations: int) -> Series:
    """Put the series of all tiles into arrays with one row per location, missing where none is."""
    parts = list(parts)
    n_times = max((part.index.shape[1] for part in parts), default=0)
    shape = (n_locations, max(1, n_times))
    merged = Series(
        np.arange(n_locations),
        np.full(shape, MISSING_INDEX, np.int16),
        np.full(shape, MISSING_DATE, np.int32),
        np.full(shape, NO_RELIABILITY, np.int8),
    )
    for part in parts:
        columns = slice(0, part.index.shape[1])
        merged.index[part.row, columns] = part.index
        merged.date[part.row, columns] = part.date
        merged.reliability[part.row, columns] = part.reliability
    return merged


# ---- the store -------------------------------------------------------------------------------


def write_store(
    path: str | os.PathLike,
    locations: pd.DataFrame,
    series: Series,
    *,
    index: str,
    source: str,
    counts: Mapping[str, int] | None = None,
) -> None:
    """Write greenness.zarr: beside its place first, then moved there whole.

    Parameters
    ----------
    path : the store's folder
    locations : `location_id`, `lon`, `lat`
    series : one row per location
    index : name of the vegetation index
    source : where the series came from, for the attributes
    counts : further attributes of the store
    """
    known = series.date[series.date != MISSING_DATE]
    span = np.array([known.min(), known.max()]).astype("datetime64[D]").astype("datetime64[Y]")
    usable = np.isin(series.reliability, USABLE).sum(axis=1)
    both = ("location", "time")
    packed = {"_FillValue": MISSING_INDEX, "scale_factor": SCALE, "add_offset": 0.0}
    days = {"_FillValue": MISSING_DATE, "units": "days since 1970-01-01", "calendar": "proleptic_gregorian"}
    # no _FillValue: codes stay integers when opened with xarray
    meanings = {
        "flag_values": list(RELIABILITY_CODES),
        "flag_meanings": "good marginal snow_or_ice cloud none",
    }
    arrays = {
        "index": (both, series.index, MISSING_INDEX, {"long_name": index, "units": "1", **packed}),
        "date": (both, series.date, MISSING_DATE, {"long_name": "day of observation", **days}),
        "reliability": (
            both,
            series.reliability,
            NO_RELIABILITY,
            {"long_name": "pixel reliability", **meanings},
        ),
        "n_usable": (
            ("location",),
            usable.astype(np.int32),
            0,
            {"long_name": "observations of good, marginal or snow reliability; 0: no series"},
        ),
        "lon": (("location",), locations["lon"].to_numpy(float), np.nan, {"units": "degrees_east"}),
        "lat": (("location",), locations["lat"].to_numpy(float), np.nan, {"units": "degrees_north"}),
        "location_id": (
            ("location",),
            locations["location_id"].to_numpy(object),
            "",
            {"long_name": "location id"},
        ),
    }
    with new_group(path) as root:
        for name, (dims, values, fill, attributes) in arrays.items():
            _write_array(root, name, dims, values, fill, attributes)
        root.attrs.update(
            {
                "title": "Vegetation-index series per location",
                "coordinates": "location_id lon lat",
                "index": index,
                "source": source,
                "years": [int(year.astype(int)) + 1970 for year in span],
                "n_locations_without_series": int((usable == 0).sum()),
                **(counts or {}),
            }
        )


def _write_array(
    root: zarr.Group, name: str, dims: tuple[str, ...], values: np.ndarray, fill: Any, attributes: dict
) -> None:
    text = values.dtype == object
    array = root.create_array(
        name,
        shape=values.shape,
        chunks=(min(LOCATIONS_PER_CHUNK, max(1, values.shape[0])), *values.shape[1:]),
        dtype=str if text else values.dtype,
        fill_value=fill,
        dimension_names=dims,
        attributes=attributes,
        compressors=[BloscCodec(cname="zstd", clevel=3, shuffle="noshuffle" if text else "shuffle")],
    )
    array[:] = values


def count_composites(n_found: Sequence[int], settings: Mapping[str, Any]) -> dict[str, int]:
    """Count the composites that the years asked for have on all tiles, and those the catalog lacked.

    Parameters
    ----------
    n_found : composites of each tile (Terra's and Aqua's begin on different days)
    settings : section `greenness`: `years`, `platforms`
    """
    years, platforms = settings["years"], settings.get("platforms", ["terra"])
    per_tile = grid.MODIS_COMPOSITES_PER_YEAR * len(platforms) * (years[-1] - years[0] + 1)
    n_composites = per_tile * len(n_found)
    return {"n_composites": n_composites, "n_composites_missing": n_composites - sum(n_found)}


def main(job: Any) -> None:
    """Merge the series of one dataset."""
    settings = job.params.settings
    locations = read_table(job.input.locations, "locations", ["location_id", "lon", "lat"])
    ids = pd.Index(locations["location_id"].astype(str))
    if settings["source"] == "file":
        path = str(job.input.series)
        parts = [pad_series(table, ids, path) for table in series_blocks(path, settings["index"])]
        source, composites = f"file {path}", {}
    else:
        parts, n_found = [], []
        for path in sorted(map(str, job.input.tiles)):
            table = read_table(path, "greenness")
            # a year's last composite reaches into the next year's first: the same day twice is normal
            parts.append(pad_series(table, ids, path, repeats=logging.INFO))
            n_found.append(table["composite"].nunique())
        composites = count_composites(n_found, settings)
        logger.info("%(n_composites_missing)d of %(n_composites)d composites are missing", composites)
        source = f"catalog {settings['catalog']}, collection {settings['collection']}"
    merged = merge_series(parts, len(locations))
    usable = np.isin(merged.reliability, USABLE).any(axis=1)
    if not usable.any():
        raise ValueError(
            f"no location has a usable value of {settings['index']!r}: {len(locations)} locations, {source}. "
            "Check that the ids agree with locations.parquet, and greenness.years and collection."
        )
    if not usable.all():
        without = locations["location_id"].to_numpy()[~usable]
        logger.warning(
            "%d of %d locations have no series (first: %s)",
            without.size,
            len(locations),
            ", ".join(map(repr, without[:5])),
        )
    store = parent(str(job.output.store))
    write_store(store, locations, merged, index=settings["index"], source=source, counts=composites)
    logger.info("%d locations, up to %d observations each, %s", *merged.index.shape, source)


if "snakemake" in globals():
    run_stage(main, snakemake)  # noqa: F821
