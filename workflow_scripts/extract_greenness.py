"""Merge the vegetation-index series of all locations into one store.

Reads
-----
locations.parquet
greenness/{tile}.parquet of all tiles, or the user's own table of series: `location_id`, `date`
(ISO), the index (column `evi`, `ndvi` or `index`, -0.2 to 1) and optionally `reliability`
(0 good, 1 marginal, 2 snow, 3 cloud; all good where the column is absent)

Writes
------
greenness.zarr : dims (location, time), the order of locations.parquet; `index` int16 (scale
1e-4), `date` int32 (days since 1970-01-01), `reliability` int8, `n_usable` per location. `time` is
a position only: each location's observations in order of date, the rest missing.

The store is made beside its place and moved there whole: a killed job leaves none.
"""

import logging
import os
import re
import shutil
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import zarr
from zarr.codecs import BloscCodec

from workflow_scripts.core.stage import run_stage
from workflow_scripts.core.tables import read_table

logger = logging.getLogger(__name__)

MISSING_INDEX = -32768
MISSING_DATE = -2147483648
NO_RELIABILITY = -1
SCALE = 1e-4
"""Resolution of the stored index: that of MOD13."""
VALID_INDEX = (-0.2, 1.0)
"""Valid range of EVI and NDVI (MOD13 user guide); beyond it lie fill values and water."""
WRONG_SCALE = 2.0
RELIABILITY_CODES = (0, 1, 2, 3, -1)
USABLE = (0, 1, 2)
LOCATIONS_PER_CHUNK = 8192
_BLANK = ["", "NA", "N/A", "NaN", "nan", "null", "None"]
_CLOCK_WITH_ZONE = re.compile(r"\d\d:\d\d.*(?:[zZ]|[+-]\d\d:?\d\d)\s*$")


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


# ---- the user's own series -------------------------------------------------------------------


def read_series(path: str | os.PathLike, index: str) -> pd.DataFrame:
    """Read a table of series and check it.

    Parameters
    ----------
    path : CSV or Parquet file
    index : name of the index: the column of that name is taken, else `index`

    Returns
    -------
    DataFrame with `location_id` (str), `date` (datetime64, UTC day, NaT where blank), `index` (float, NaN missing
    or outside the valid range) and `reliability` (int8)

    Raises
    ------
    FileNotFoundError, ValueError
        If the file or a column is missing, a date or number cannot be read, a reliability code is
        unknown, or the values are in another scale.
    """
    path = Path(path)
    table = _read_columns(path, index)
    table["location_id"] = _ids(table["location_id"], path)
    table["date"] = _dates(table["date"], table["location_id"], path)
    values = _numbers(table["index"], table["location_id"], path, index)
    _check_scale(values, table, path, index)
    outside = values.notna() & ~values.between(VALID_INDEX[0] - SCALE / 2, VALID_INDEX[1] + SCALE / 2)
    if outside.any():
        logger.warning(
            "%s: %d values of %r lie outside %g to %g and count as missing (first: %s)",
            path,
            int(outside.sum()),
            index,
            *VALID_INDEX,
            _places(table, values, outside.to_numpy(), limit=3),
        )
    table["index"] = values.mask(outside)
    table["reliability"] = _reliability(table, path)
    return table[["location_id", "date", "index", "reliability"]]


def _read_columns(path: Path, index: str) -> pd.DataFrame:
    if not path.exists():
        raise FileNotFoundError(f"greenness.path: {path} does not exist")
    try:
        if path.suffix == ".parquet":
            table = pd.read_parquet(path)
        elif path.name.endswith((".csv", ".csv.gz")):
            table = pd.read_csv(
                path,
                dtype={"location_id": str, "date": str},
                keep_default_na=False,  # an id may be "NA"
                na_values=dict.fromkeys((index, "index", "reliability"), _BLANK),
                low_memory=False,
            )
        else:
            raise ValueError(f"greenness.path: {path} is neither .csv, .csv.gz nor .parquet")
    except (OSError, pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise ValueError(f"greenness.path: {path} cannot be read ({error})") from None
    name = index if index in table.columns else "index"
    needed = ("location_id", "date", name)
    missing = [column for column in needed if column not in table.columns]
    if missing:
        raise ValueError(
            f"{path} lacks the columns {missing}; it has {list(map(str, table.columns))}. Expected "
            f"location_id, date, {index} (or index), and optionally reliability."
        )
    kept = [*needed, *(["reliability"] if "reliability" in table.columns else [])]
    return table[kept].rename(columns={name: "index"}).reset_index(drop=True)


def _ids(ids: pd.Series, path: Path) -> pd.Series:
    blank = ids.isna() | (ids.astype(str).str.strip() == "")
    if blank.any():
        raise ValueError(
            f"{path}: {int(blank.sum())} rows without location_id (first in data row {int(blank.idxmax()) + 1})"
        )
    if pd.api.types.is_float_dtype(ids):
        ids = ids.astype(np.int64)
    return ids.astype(str)


def _dates(dates: pd.Series, ids: pd.Series, path: Path) -> pd.Series:
    """Dates as naive UTC days, NaT where blank."""
    if pd.api.types.is_numeric_dtype(dates):
        raise ValueError(
            f"{path}: `date` holds numbers (first {_plain(dates.iloc[0])!r}), expected ISO dates such as 2019-05-17"
        )
    if pd.api.types.is_datetime64_any_dtype(dates):
        parsed = dates
        zoned = len(dates) if getattr(dates.dt, "tz", None) is not None else 0
        parsed = parsed.dt.tz_convert("UTC").dt.tz_localize(None) if zoned else parsed
    else:
        text = dates.astype("string").str.strip()
        unique = text.drop_duplicates()
        days = pd.to_datetime(unique, format="ISO8601", utc=True, errors="coerce").dt.tz_localize(None)
        parsed = text.map(pd.Series(days.to_numpy(), index=unique.to_numpy()))
        zoned_text = unique[unique.str.contains(_CLOCK_WITH_ZONE, na=False)]
        zoned = int(text.isin(zoned_text).sum())
    blank = dates.isna() | (dates.astype(str).str.strip() == "")
    bad = np.flatnonzero(parsed.isna() & ~blank)
    if bad.size:
        listed = ", ".join(f"data row {i + 1}, location {ids.iloc[i]!r}: {dates.iloc[i]!r}" for i in bad[:3])
        raise ValueError(
            f"{path}: {bad.size} of {len(dates)} dates cannot be read ({listed}). Expected ISO dates "
            "such as 2019-05-17."
        )
    if blank.any():
        logger.warning("%s: %d rows without a date are left out", path, int(blank.sum()))
    if zoned:
        logger.warning("%s: %d dates carry a time zone; their UTC day is taken", path, zoned)
    return pd.Series(parsed.to_numpy("datetime64[ns]"), index=dates.index).dt.normalize()


def _numbers(values: pd.Series, ids: pd.Series, path: Path, index: str) -> pd.Series:
    numbers = pd.to_numeric(values, errors="coerce").astype(float)
    bad = np.flatnonzero(numbers.isna() & values.notna() & (values.astype(str).str.strip() != ""))
    if bad.size:
        listed = ", ".join(f"data row {i + 1}, location {ids.iloc[i]!r}: {values.iloc[i]!r}" for i in bad[:3])
        raise ValueError(f"{path}: {bad.size} values of {index!r} are no numbers ({listed})")
    return numbers.replace([np.inf, -np.inf], np.nan)


def _check_scale(values: pd.Series, table: pd.DataFrame, path: Path, index: str) -> None:
    """Refuse values in another scale; single fill values such as -3000 pass and count as missing."""
    given = values.notna()
    large = given & (values.abs() > WRONG_SCALE)
    if large.sum() * 2 > given.sum():
        raise ValueError(
            f"{path}: {int(large.sum())} of {int(given.sum())} values of {index!r} lie beyond "
            f"±{WRONG_SCALE:g} ({_places(table, values, large.to_numpy(), limit=2)}). Expected an index of "
            f"{VALID_INDEX[0]:g} to {VALID_INDEX[1]:g}: divide MODIS integers by 10,000, percent by 100."
        )


def _reliability(table: pd.DataFrame, path: Path) -> pd.Series:
    if "reliability" not in table.columns:
        return pd.Series(0, index=table.index, dtype=np.int8)
    codes = pd.to_numeric(table["reliability"], errors="coerce")
    unreadable = (
        codes.isna() & table["reliability"].notna() & (table["reliability"].astype(str).str.strip() != "")
    )
    codes = codes.where(~unreadable, 1e9).fillna(NO_RELIABILITY).replace(255, NO_RELIABILITY)
    unknown = (~codes.isin(RELIABILITY_CODES)).to_numpy()
    if unknown.any():
        raise ValueError(
            f"{path}: {int(unknown.sum())} unknown reliability codes "
            f"({_places(table, table['reliability'], unknown, limit=3)}). Expected 0 good, 1 marginal, "
            "2 snow or ice, 3 cloud, -1 (or empty) no data."
        )
    return codes.astype(np.int8)


def _plain(value: Any) -> Any:
    """A value without its numpy type, for messages."""
    return value.item() if isinstance(value, np.generic) else value


def _places(table: pd.DataFrame, values: pd.Series, where: np.ndarray, *, limit: int) -> str:
    """First offenders, for messages."""
    rows = np.flatnonzero(where)[:limit]
    names, dates = table["location_id"], table["date"]
    return ", ".join(
        f"location {names.iloc[i]!r} on {str(dates.iloc[i])[:10]}: {_plain(values.iloc[i])!r}" for i in rows
    )


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
    path: str | os.PathLike, locations: pd.DataFrame, series: Series, *, index: str, source: str
) -> None:
    """Write greenness.zarr: beside its place first, then moved there whole.

    Parameters
    ----------
    path : the store's folder
    locations : `location_id`, `lon`, `lat`
    series : one row per location
    index : name of the vegetation index
    source : where the series came from, for the attributes
    """
    path = Path(path)
    partial = path.with_name(f".{path.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    root = zarr.open_group(partial, mode="w", zarr_format=3)
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
        }
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Consolidated metadata")
        zarr.consolidate_metadata(root.store)
    shutil.rmtree(path, ignore_errors=True)
    os.replace(partial, path)


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


def main(job: Any) -> None:
    """Merge the series of one dataset."""
    settings = job.params.settings
    locations = read_table(job.input.locations, "locations", ["location_id", "lon", "lat"])
    ids = pd.Index(locations["location_id"].astype(str))
    if settings["source"] == "file":
        path = str(job.input.series)
        parts = [pad_series(read_series(path, settings["index"]), ids, path)]
        source = f"file {path}"
    else:
        tiles = sorted(map(str, job.input.tiles))
        # a year's last composite reaches into the next year's first: the same day twice is normal
        parts = [pad_series(read_table(path, "greenness"), ids, path, repeats=logging.INFO) for path in tiles]
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
    store = Path(str(job.output.store)).parent
    write_store(store, locations, merged, index=settings["index"], source=source)
    logger.info("%d locations, up to %d observations each, %s", *merged.index.shape, source)


if "snakemake" in globals():
    run_stage(main, snakemake)  # noqa: F821
