"""Look up the labels of a dataset's locations.

Reads: `locations.parquet`; one raster, polygon file or table per target; `points.parquet`, where the
locations were drawn with their labels.
Writes: `labels.parquet`: `location_id` and one column per target. Whole numbers stay integers, with
-1 where missing; other numbers are floats, NaN where missing; text is "" where missing, a list of codes
None. Missing labels are counted in the log.
"""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from workflow_scripts.core.classes import CODE_MAPS
from workflow_scripts.core.polygons import locate, read_polygons
from workflow_scripts.core.rasters import raster_values
from workflow_scripts.core.stage import run_stage
from workflow_scripts.core.tables import read_table, write_table

logger = logging.getLogger(__name__)

REFERENCE_INDEX = "reference_index"
"""Source of all labels of a dataset: the index file published with the paper."""


def label_from_polygons(locations: pd.DataFrame, path: str, column: str) -> pd.Series:
    """Give the value of the polygon that holds each location, of several the lowest value."""
    polygons: gpd.GeoDataFrame = read_polygons(path, [column], key="labels")
    numbers = _numbers(polygons[column], path, column)
    order = np.argsort(numbers.to_numpy(float, na_value=np.inf), kind="stable")
    row = locate(locations["lon"], locations["lat"], polygons.iloc[order].reset_index(drop=True))
    values = numbers.iloc[order].take(np.maximum(row, 0)).reset_index(drop=True)
    return values.where(row >= 0)


def label_from_table(
    locations: pd.DataFrame, path: str, column: str, *, separator: str | None = None
) -> pd.Series:
    """Give the value of the table's row with the location's id: a number, text, or a list of codes.

    Parameters
    ----------
    separator : what stands between the codes of a text that is a list, as in ``oak; pine``
    """
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
    values = _values(table[column], path, column, separator).set_axis(ids)
    return values.reindex(locations["location_id"].astype(str)).reset_index(drop=True)


def _values(values: pd.Series, path: str, column: str, separator: str | None) -> pd.Series:
    """Give a column as nullable numbers, as text, or as lists of codes."""
    known = values.dropna()
    plain = [None if value is pd.NA else value for value in values]
    if len(known) and all(isinstance(value, list | np.ndarray) for value in known):
        lists = [None if value is None else [str(code) for code in value] for value in plain]
        return pd.Series(lists, dtype=object)
    if separator is not None:
        lists = [None if value is None else split_codes(str(value), separator) for value in plain]
        return pd.Series(lists, dtype=object)
    if len(known) and isinstance(known.iloc[0], str):
        return pd.Series([None if value is None else str(value).strip() for value in plain], dtype=object)
    return _numbers(values, path, column)


def split_codes(text: str, separator: str) -> list[str]:
    """Split a text into its codes, each once, in their order."""
    return list(dict.fromkeys(filter(None, (code.strip() for code in text.split(separator)))))


def map_codes(values: pd.Series, rule: str | Mapping[Any, Any]) -> pd.Series:
    """Replace raw codes by those of classes; a code that the rule does not name is missing.

    Parameters
    ----------
    rule : one of `CODE_MAPS`, or raw code → code
    """
    table = CODE_MAPS[rule] if isinstance(rule, str) else {int(k): int(v) for k, v in rule.items()}
    return values.astype("Int64").map(table, na_action="ignore").astype("Int64")


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
    if values.dtype == object:
        is_list = any(isinstance(value, list) for value in values)
        known = values.where(values.notna(), None)
        return (known if is_list else known.fillna("")).to_numpy(object)
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
            values = _look_up(locations, entry, target if column is None else column)
            if entry.get("map") is not None:
                values = map_codes(values, entry["map"])
        except (ValueError, FileNotFoundError) as error:
            raise type(error)(f"labels.{target}: {error}") from error
        result[target] = encode_missing(values, target)
        n_missing = int(values.isna().sum())
        logger.log(
            logging.WARNING if n_missing == len(values) else logging.INFO,
            "target %r: %d of %d locations without a value", target, n_missing, len(values),
        )  # fmt: skip
    return result


def _look_up(locations: pd.DataFrame, entry: Mapping[str, Any], column: str | int) -> pd.Series:
    """Give the values of one target."""
    if entry["source"] == "raster":
        band = column if isinstance(column, int) else None
        scaling = {"scale": entry.get("scale"), "offset": entry.get("offset")}
        return raster_values(locations, entry["path"], band, **scaling)
    if entry["source"] == "vector":
        return label_from_polygons(locations, entry["path"], str(column))
    return label_from_table(locations, entry["path"], str(column), separator=entry.get("separator"))


def with_files(
    labels: Mapping[str, Any], sources: Sequence[str], points: str | None
) -> dict[str, dict[str, Any]]:
    """Give each target the file that Snakemake gives for it (a copy where it lies in a bucket).

    Parameters
    ----------
    labels : section `labels` of a dataset, or its short form for a published index
    sources : the files of the targets that name a local one
    points : table of the drawn points, which has the labels of source `points`
    """
    if labels.get("source") == REFERENCE_INDEX:
        columns = [name for name in pq.read_schema(points).names if name not in ("location_id", "lon", "lat")]
        labels = {name: {"source": "points"} for name in columns}
    given, result = iter(sources), {}
    for target, entry in labels.items():
        if entry["source"] == "maps":  # read by the probes, where it lies
            continue
        is_local = entry["source"] != "points" and "://" not in entry["path"]
        path = next(given) if is_local else entry.get("path")
        if entry["source"] == "points" and points is None:
            raise ValueError(f"labels.{target}: source 'points' needs the section `points`, which draws them")
        result[target] = {**entry, "path": points if entry["source"] == "points" else path}
    return result


def main(job: Any) -> None:
    """Write `labels.parquet` of one dataset."""
    locations = read_table(job.input.locations, "locations", ["location_id", "lon", "lat"])
    points = str(job.input.points) if job.input.points else None
    labels = with_files(job.params.labels, list(job.input.sources), points)
    write_table(label(locations, labels), job.output.labels, "labels")


if "snakemake" in globals():
    run_stage(main, snakemake)  # noqa: F821
