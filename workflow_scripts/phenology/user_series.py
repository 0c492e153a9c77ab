"""A user's own vegetation-index series: CSV, Parquet or Zarr, checked before anything is made of it."""

import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

logger = logging.getLogger(__name__)

NO_RELIABILITY = -1
SCALE = 1e-4
"""Resolution of the stored index: that of MOD13."""
VALID_INDEX = (-0.2, 1.0)
"""Valid range of EVI and NDVI (MOD13 user guide); beyond it lie fill values and water."""
WRONG_SCALE = 2.0
RELIABILITY_CODES = (0, 1, 2, 3, -1)
LOCATIONS_PER_BLOCK = 8192
"""Locations of a Zarr store that are read at a time."""
_BLANK = ["", "NA", "N/A", "NaN", "nan", "null", "None"]
_CLOCK_WITH_ZONE = re.compile(r"\d\d:\d\d.*(?:[zZ]|[+-]\d\d:?\d\d)\s*$")


def series_blocks(path: str | os.PathLike, index: str) -> Iterator[pd.DataFrame]:
    """Read a user's series, whole tables at once and Zarr stores some locations at a time.

    Parameters
    ----------
    path : CSV, Parquet or Zarr
    index : name of the index: the column or array of that name is taken, else `index`

    Yields
    ------
    DataFrame as `read_series` gives it

    Raises
    ------
    FileNotFoundError, ValueError
        As `read_series`; for a Zarr store also if its arrays have other dimensions.
    """
    path = Path(path)
    if not path.is_dir():
        yield read_series(path, index)
        return
    with _open_zarr(path) as store:
        name = index if index in store else "index"
        _check_arrays(store, path, name)
        ids = pd.Series(np.asarray(store["location_id"].values, object))
        if ids.duplicated().any():
            raise ValueError(f"{path}: location_id repeated: {ids[ids.duplicated()].iloc[0]!r}")
        for start in range(0, ids.size, LOCATIONS_PER_BLOCK):
            part = store.isel(location=slice(start, start + LOCATIONS_PER_BLOCK))
            yield check_series(_unfold(part, name), path, index)


def _open_zarr(path: Path) -> xr.Dataset:
    try:
        return xr.open_zarr(path, chunks=None, consolidated=False)
    except Exception as error:  # zarr raises errors of many kinds for a broken store
        raise ValueError(f"greenness.path: {path} is no Zarr store that can be read ({error})") from None


def _check_arrays(store: xr.Dataset, path: Path, name: str) -> None:
    missing = [wanted for wanted in ("location_id", name) if wanted not in store.variables]
    if "date" not in store.variables and "time" not in store.variables:
        missing.append("date")
    if missing:
        raise ValueError(
            f"{path} lacks the arrays {missing}; it has {list(map(str, store.variables))}. Expected location_id "
            f"(location), {name} (location, time), date (location, time) or time (time), and optionally reliability."
        )
    if set(store[name].dims) != {"location", "time"}:
        raise ValueError(f"{path}: {name!r} has dims {store[name].dims!r}, expected (location, time)")


def _unfold(part: xr.Dataset, name: str) -> pd.DataFrame:
    """Turn arrays (location, time) into a long table, missing values left out."""
    values = part[name].transpose("location", "time")
    date = (part["date"] if "date" in part.variables else part["time"]).broadcast_like(values)
    row, column = np.nonzero(np.isfinite(values.values))
    ids = np.asarray(part["location_id"].values, object)
    table = {
        "location_id": ids[row],
        "date": date.transpose("location", "time").values[row, column],
        "index": values.values[row, column],
    }
    if "reliability" in part:
        codes = part["reliability"].broadcast_like(values).transpose("location", "time").values
        table["reliability"] = codes[row, column]
    return pd.DataFrame(table)


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
    return check_series(_read_columns(path, index), path, index)


def check_series(table: pd.DataFrame, path: Path, index: str) -> pd.DataFrame:
    """Check a table of series and bring its columns to one form; see `read_series`."""
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
            raise ValueError(f"greenness.path: {path} is neither .csv, .csv.gz, .parquet nor a Zarr folder")
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
