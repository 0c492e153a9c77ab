"""Parquet tables that stages hand to each other: columns, types, reading and atomic writing.

Times are naive UTC. A missing string is "", a missing time NaT, a missing number NaN or, for
integers, -1 (0 for EPSG codes).
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import shapely
from pyproj import CRS

from workflow_scripts.core.seasons import TRANSITIONS
from workflow_scripts.core.stage import atomic_path

_TEXT, _TIME, _BOOL = pa.string(), pa.timestamp("ns"), pa.bool_()
_F4, _F8 = pa.float32(), pa.float64()
_I1, _I2, _I4 = pa.int8(), pa.int16(), pa.int32()
_GEOMETRY = pa.binary()

_SCENE = {
    "item_id": _TEXT,
    "collection": _TEXT,
    "catalog": _TEXT,
    "datetime": _TIME,
}

_RETRIEVED = {
    "location_id": _TEXT,
    "location": _I4,
    "season": _TEXT,
    "status": _TEXT,
    "reason": _TEXT,
    **_SCENE,
    "target_date": _TIME,
    "days_from_target": _I2,
    "rank": _I2,
    "scene_cloud_cover": _F4,
    "cloud_fraction": _F4,
    "valid_fraction": _F4,
    "sun_zenith": _F4,
    "mgrs_tile": _TEXT,
    "epsg": _I4,
    "origin_x": _F8,
    "origin_y": _F8,
    "baseline": _TEXT,
    "dn_offset": _I2,
    "offset_source": _TEXT,
    "failover_from": _TEXT,
    "checksum": _TEXT,
}

COLUMNS = MappingProxyType(
    {
        "locations": {
            "location_id": _TEXT,
            "lon": _F8,
            "lat": _F8,
            "shard": _I4,
            "eco_id": _I4,
            "eco_name": _TEXT,
            "biome_num": _I2,
            "biome_name": _TEXT,
            "realm": _TEXT,
            "stratum": _TEXT,
            "inclusion_probability": _F8,
            "is_mountain": _BOOL,
            "split": _TEXT,
            "distance_to_evaluation_km": _F8,
            "geometry": _GEOMETRY,
        },
        "labels": {"location_id": _TEXT},
        "samples": {
            "location_id": _TEXT,
            "location": _I4,
            "season": _TEXT,
            "path": _TEXT,
            "datetime": _TIME,
        },
        "greenness": {
            "location_id": _TEXT,
            "date": _TIME,
            "index": _F4,
            "reliability": _I1,
            "composite": _TIME,
        },
        "cycles": {
            "location_id": _TEXT,
            "year": _I2,
            "cycle": _I1,
            **dict.fromkeys(TRANSITIONS, _TIME),
            "amplitude": _F4,
            "minimum": _F4,
            "r2": _F4,
            "n_observations": _I2,
            "max_gap_days": _F4,
            "snow_fraction": _F4,
            "qa": _I1,
            "qa_detailed": _I4,
        },
        "seasons": {
            "location_id": _TEXT,
            "season": _TEXT,
            "start_doy": _F4,
            "end_doy": _F4,
            "start_date": _TIME,
            "end_date": _TIME,
            "target_doy": _F4,
            "target_date": _TIME,
            "length_days": _F4,
            "sunlit_days": _F4,
            "source": _TEXT,
            "donor_id": _TEXT,
            "donor_distance_km": _F4,
            "n_years": _I2,
            "spread_days": _F4,
        },
        "items": {
            **_SCENE,
            "mgrs_tile": _TEXT,
            "epsg": _I4,
            "cloud_cover": _F4,
            "nodata": _F4,
            "sun_zenith": _F4,
            "baseline": _TEXT,
            "dn_offset": _I2,
            "offset_source": _TEXT,
            "datatake": _TEXT,
            "created": _TIME,
            "origin_x": _F8,
            "origin_y": _F8,
            "width_m": _F8,
            "height_m": _F8,
            "hrefs": _TEXT,
            "geometry": _GEOMETRY,
        },
        "scenes": {
            "location_id": _TEXT,
            "location": _I4,
            "season": _TEXT,
            "rank": _I2,
            "reason": _TEXT,
            "n": _I4,
            **_SCENE,
            "days_from_target": _I2,
            "cloud_cover": _F4,
            "nodata": _F4,
            "sun_zenith": _F4,
            "mgrs_tile": _TEXT,
            "epsg": _I4,
            "baseline": _TEXT,
            "dn_offset": _I2,
            "offset_source": _TEXT,
            "hrefs": _TEXT,
        },
        "retrieved": {**_RETRIEVED, "screened": _TEXT},
        "patches": {
            **_RETRIEVED,
            "lon": _F8,
            "lat": _F8,
            "is_complete": _BOOL,
            "geometry": _GEOMETRY,
        },
        "weights": {
            "location_id": _TEXT,
            "weight": _F8,
            "is_non_vegetated": _BOOL,
            "is_mountain": _BOOL,
            "mean_ndvi_max": _F4,
        },
    }
)
"""Columns and types of each table; `labels` has further ones, one per target."""


def _column(values: pd.Series, kind: pa.DataType, where: str) -> pa.Array:
    try:
        if pa.types.is_string(kind):
            return pa.array(values.fillna("").astype(str), kind)
        if pa.types.is_timestamp(kind):
            times = pd.to_datetime(values)
            if getattr(times.dt, "tz", None) is not None:
                times = times.dt.tz_convert("UTC").dt.tz_localize(None)
            return pa.array(times.astype("datetime64[ns]"), kind)
        if pa.types.is_floating(kind):
            numbers = pd.to_numeric(values).to_numpy(float, na_value=np.nan)
            return pa.array(numbers.astype(kind.to_pandas_dtype()), kind)
        return pa.array(values.to_numpy(), kind)
    except (TypeError, ValueError, pa.ArrowException) as error:
        raise ValueError(f"{where}: cannot be stored as {kind} ({error})") from None


def write_table(frame: pd.DataFrame, path: str | os.PathLike, name: str) -> None:
    """Write a table atomically, after checking its columns.

    Parameters
    ----------
    frame : DataFrame, or GeoDataFrame where the table has a geometry
    path : Parquet file
    name : key of `COLUMNS`

    Raises
    ------
    ValueError
        If a column is missing or unknown, has another type, or ids of a table that has one row per
        location are repeated.
    """
    columns = COLUMNS[name]
    missing = [column for column in columns if column not in frame.columns]
    extra = [column for column in frame.columns if column not in columns]
    if missing or (extra and name != "labels"):
        raise ValueError(f"table {name!r} ({path}): missing columns {missing}, unknown {extra}")
    if name in ("locations", "labels", "weights"):
        repeated = frame["location_id"][frame["location_id"].duplicated()].unique()
        if repeated.size:
            raise ValueError(f"table {name!r} ({path}): location_id repeated: {list(repeated[:5])}")
    if name == "locations":
        _check_ids(frame["location_id"].astype(str), path)
    with atomic_path(path) as temporary:
        if "geometry" in columns and frame.empty:  # without rows pandas would lose the types
            pq.write_table(arrow_schema(name).empty_table(), temporary)
            return
        if "geometry" in columns:
            _write_geoparquet(frame, columns, temporary, str(path))
            return
        arrays = {c: _column(frame[c], columns[c], f"{path}: column {c!r}") for c in columns}
        arrays |= {c: pa.array(frame[c]) for c in extra}
        pq.write_table(pa.table(arrays), temporary, compression="zstd")


@contextmanager
def write_in_parts(path: str | os.PathLike, name: str) -> Iterator[Callable[[pa.Table], None]]:
    """Write a large GeoParquet table part by part; it appears whole or not at all.

    Parameters
    ----------
    path : Parquet file
    name : key of `COLUMNS`

    Yields
    ------
    function that appends a table of `arrow_schema`, as a group of rows
    """
    with (
        atomic_path(path) as temporary,
        pq.ParquetWriter(temporary, arrow_schema(name), compression="zstd") as writer,
    ):
        yield writer.write_table


def arrow_schema(name: str) -> pa.Schema:
    """Give the schema of a table with a geometry (WKB, EPSG:4326), as GeoParquet 1.0 marks it."""
    column = {"encoding": "WKB", "geometry_types": [], "crs": CRS.from_epsg(4326).to_json_dict()}
    geo = {"version": "1.0.0", "primary_column": "geometry", "columns": {"geometry": column}}
    return pa.schema(list(COLUMNS[name].items()), metadata={"geo": json.dumps(geo)})


def arrow_table(frame: pd.DataFrame, name: str) -> pa.Table:
    """Check the columns of a table with a geometry, and convert them."""
    arrays = [
        pa.array(shapely.to_wkb(np.asarray(frame[c], object)), kind)
        if c == "geometry"
        else _column(frame[c], kind, f"table {name!r}: column {c!r}")
        for c, kind in COLUMNS[name].items()
    ]
    return pa.Table.from_arrays(arrays, schema=arrow_schema(name))


def _check_ids(ids: pd.Series, path: str | os.PathLike) -> None:
    """Refuse ids that are no names of files: patches are exported under them."""
    wrong = ids[ids.str.contains(r"[/\\\0]") | ids.isin(["", ".", ".."])]
    if len(wrong):
        raise ValueError(
            f"table 'locations' ({path}): location_id {wrong.iloc[0]!r} cannot be the name of a file "
            f"({len(wrong)} of {len(ids)} such). Use ids without slashes."
        )


def _write_geoparquet(frame: pd.DataFrame, columns: dict, temporary: Path, where: str) -> None:
    arrays = {
        c: _column(frame[c], kind, f"{where}: column {c!r}").to_pandas()
        for c, kind in columns.items()
        if c != "geometry"
    }
    plain = pd.DataFrame(arrays)
    for column, kind in columns.items():
        if column != "geometry" and not pa.types.is_string(kind) and not pa.types.is_timestamp(kind):
            plain[column] = plain[column].astype(kind.to_pandas_dtype())
    geometry = gpd.GeoSeries(frame["geometry"].to_numpy(), crs=4326)
    result = gpd.GeoDataFrame(plain, geometry=geometry, crs=4326)
    result.to_parquet(temporary, compression="zstd", index=False, write_covering_bbox=True)


def read_table(
    path: str | os.PathLike,
    name: str,
    columns: Iterable[str] | None = None,
    *,
    filters: Sequence[tuple[str, str, Any]] | None = None,
) -> pd.DataFrame | gpd.GeoDataFrame:
    """Read a table that a stage wrote.

    Parameters
    ----------
    path : Parquet file
    name : key of `COLUMNS`
    columns : the columns wanted; all by default
    filters : conditions (column, operator, value) that rows must fulfil

    Returns
    -------
    DataFrame; GeoDataFrame (EPSG:4326) if the geometry is among the columns

    Raises
    ------
    FileNotFoundError, ValueError
        If the file is missing, is no Parquet file, or lacks a column.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing: run the stage that makes table {name!r} first")
    try:
        present = pq.read_schema(path).names
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{path}: not a readable Parquet file ({error}). Delete it, run again.") from None
    wanted = list(columns) if columns is not None else [c for c in present if c != "bbox"]
    needed = wanted if columns is not None else list(COLUMNS[name])
    missing = [column for column in needed if column not in present]
    if missing:
        raise ValueError(f"{path}: table {name!r} lacks columns {missing}; it has {present}")
    if "geometry" in wanted:
        return gpd.read_parquet(path, columns=wanted, filters=filters)
    return pd.read_parquet(path, columns=wanted, filters=filters)


def dataset_digest(patches: pd.DataFrame) -> str:
    """Digest which patches a dataset holds, 16 hexadecimal digits, whatever the order of rows.

    Parameters
    ----------
    patches : columns `location_id`, `season`, `status`, `checksum` of table `patches`
    """
    stored = patches.loc[patches["status"] == "ok", ["location_id", "season", "checksum"]]
    lines = sorted(map("\t".join, stored.astype(str).itertuples(index=False, name=None)))
    return hashlib.blake2b("\n".join(lines).encode(), digest_size=8).hexdigest()
