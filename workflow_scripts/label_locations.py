"""Look up the labels of a dataset's locations.

Reads: `locations.parquet` and one raster, polygon file or table per target.
Writes: `labels.parquet`: `location_id` and one column per target. Whole numbers stay integers, with
-1 where missing; other numbers are floats, NaN where missing. Missing labels are counted in the log.
"""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd

from workflow_scripts.core.polygons import locate, read_polygons
from workflow_scripts.core.rasters import raster_values
from workflow_scripts.core.stage import run_stage
from workflow_scripts.core.tables import read_table, write_table

logger = logging.getLogger(__name__)


def label_from_polygons(locations: pd.DataFrame, path: str, column: str) -> pd.Series:
    """Give the value of the polygon that holds each location, of several the lowest value."""
    polygons: gpd.GeoDataFrame = read_polygons(path, [column], key="labels")
    numbers = _numbers(polygons[column], path, column)
    order = np.argsort(numbers.to_numpy(float, na_value=np.inf), kind="stable")
    row = locate(locations["lon"], locations["lat"], polygons.iloc[order].reset_index(drop=True))
    values = numbers.iloc[order].take(np.maximum(row, 0)).reset_index(drop=True)
    return values.where(row >= 0)


def label_from_table(locations: pd.DataFrame, path: str, column: str) -> pd.Series:
    """Give the value of the table's row with the location's id."""
    if not Path(path).exists():
        raise FileNotFoundError(f"no file {path!r}")
    if path.endswith(".parquet"):
        table = pd.read_parquet(path, dtype_backend="numpy_nullable")
    else:
        table = pd.read_csv(path, dtype={"location_id": str}, dtype_backend="numpy_nullable")
    missing = [name for name in ("location_id", column) if name not in table.columns]
    if missing:
        raise ValueError(f"{path!r} lacks the column(s) {missing!r}; it has {list(table.columns)!r}")
    ids = table["location_id"].astype(str).str.strip()
    repeated = ids[ids.duplicated()].unique()
    if len(repeated):
        raise ValueError(f"{path!r} repeats {len(repeated)} location_id(s): {list(map(str, repeated[:5]))!r}")
    numbers = _numbers(table[column], path, column).set_axis(ids)
    return numbers.reindex(locations["location_id"].astype(str)).reset_index(drop=True)


def _numbers(values: pd.Series, path: str, column: str) -> pd.Series:
    """Give a column as nullable numbers: integers, or floats; a text column is refused."""
    if pd.api.types.is_bool_dtype(values):
        return values.astype("Int64")
    if not pd.api.types.is_numeric_dtype(values):
        raise ValueError(
            f"{path!r}: column {column!r} holds text ({values.dropna().iloc[:1].tolist()!s}), "
            "but a label is a number. Name a column of codes."
        )
    if pd.api.types.is_integer_dtype(values):
        return values.astype("Int64")
    return values.astype("Float64").mask(
        lambda numbers: ~np.isfinite(numbers.to_numpy(float, na_value=np.nan))
    )


def encode_missing(values: pd.Series, target: str) -> np.ndarray:
    """Give integers with -1, or floats with NaN, for missing labels.

    Integers below 0 cannot be class codes (-1 means missing): they are stored as floats.
    """
    if pd.api.types.is_integer_dtype(values) and not (values < 0).any():
        return values.to_numpy("int64", na_value=-1)
    if pd.api.types.is_integer_dtype(values):
        logger.info("target %r has values below 0: stored as float", target)
    return values.to_numpy("float64", na_value=np.nan)


def label(locations: pd.DataFrame, labels: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """Look up every target.

    Parameters
    ----------
    locations : `location_id`, `lon`, `lat`
    labels : section `labels` of a dataset

    Returns
    -------
    DataFrame with `location_id` and one column per target, in the order of `locations`
    """
    result = pd.DataFrame({"location_id": locations["location_id"].to_numpy(object)})
    for target, entry in labels.items():
        column = entry.get("column")
        try:
            if entry["source"] == "raster":
                values = raster_values(locations, entry["path"], column)
            else:
                look_up = {"vector": label_from_polygons, "table": label_from_table}[entry["source"]]
                values = look_up(locations, entry["path"], target if column is None else str(column))
        except (ValueError, FileNotFoundError) as error:
            raise type(error)(f"labels.{target}: {error}") from error
        result[target] = encode_missing(values, target)
        n_missing = int(values.isna().sum())
        logger.log(
            logging.WARNING if n_missing == len(values) else logging.INFO,
            "target %r: %d of %d locations without a value", target, n_missing, len(values),
        )  # fmt: skip
    return result


def main(job: Any) -> None:
    """Write `labels.parquet` of one dataset."""
    locations = read_table(job.input.locations, "locations", ["location_id", "lon", "lat"])
    # the files Snakemake gives, copies where they lie in a bucket
    labels = {
        target: {**entry, "path": path}
        for (target, entry), path in zip(job.params.labels.items(), job.input.sources, strict=True)
    }
    write_table(label(locations, labels), job.output.labels, "labels")


if "snakemake" in globals():
    run_stage(main, snakemake)  # noqa: F821
