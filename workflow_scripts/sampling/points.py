"""Points the user brings: the locations of design `file`, and places to keep away from."""

import os
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
from scipy.spatial import cKDTree

from workflow_scripts.core import grid
from workflow_scripts.core.polygons import read_vector


def read_points(path: str | os.PathLike, *, key: str, need_ids: bool = True) -> pd.DataFrame:
    """Read points from CSV, Parquet or a vector file.

    Columns `lon` and `lat` (degrees, WGS 84) are taken where they exist, else the geometry, brought
    to WGS 84. Other columns are ignored.

    Parameters
    ----------
    path : .csv, .parquet (plain or GeoParquet), .geojson, .gpkg, .shp
    key : config key that names the file, for messages
    need_ids : ask for a `location_id` that is unique

    Returns
    -------
    DataFrame with `location_id` (str; where `need_ids`), `lon`, `lat`, in file order

    Raises
    ------
    FileNotFoundError, ValueError
        If the file is missing, empty, lacks a column, repeats an id, or a point is not on the Earth.
    """
    frame = _read_frame(path, key=key)
    wanted = (["location_id"] if need_ids else []) + ["lon", "lat"]
    missing = [name for name in wanted if name not in frame.columns]
    if missing:
        raise ValueError(
            f"{key}: {str(path)!r} lacks the column(s) {missing!r}; it has "
            f"{[str(name) for name in frame.columns]!r}. Rename its columns."
        )
    if frame.empty:
        raise ValueError(f"{key}: {str(path)!r} holds no points")
    frame = frame[wanted].reset_index(drop=True)
    if need_ids:
        frame["location_id"] = _check_ids(frame["location_id"], path, key)
    ids = frame["location_id"] if need_ids else frame.index.to_series().astype(str)
    for name in ("lon", "lat"):
        numbers = pd.to_numeric(frame[name], errors="coerce").astype(float)
        wrong = np.flatnonzero(~np.isfinite(numbers))
        if wrong.size:
            listed = ", ".join(f"{ids[i]}: {frame[name][i]!r}" for i in wrong[:5])
            raise ValueError(
                f"{key}: {str(path)!r} has {wrong.size} value(s) of {name!r} that are no number of "
                f"degrees ({listed})"
            )
        frame[name] = numbers
    try:
        grid.check_coordinates(frame["lon"], frame["lat"], ids)
    except ValueError as error:
        raise ValueError(f"{key}: {str(path)!r}: {error}") from None
    return frame


def _read_frame(path: str | os.PathLike, *, key: str) -> pd.DataFrame:
    if not Path(path).exists():
        raise FileNotFoundError(f"{key}: no file {str(path)!r}. Correct the path in config.yaml.")
    suffix = Path(path).suffix.lower()
    if suffix in (".csv", ".txt", ".parquet"):
        try:
            if suffix == ".parquet":
                frame = pd.read_parquet(path)
                return frame if {"lon", "lat"} <= set(frame.columns) else _with_geometry(path, key)
            return pd.read_csv(path, dtype={"location_id": str}, keep_default_na=False)
        except pd.errors.EmptyDataError:
            raise ValueError(f"{key}: {str(path)!r} is empty") from None
        except (pd.errors.ParserError, UnicodeDecodeError, OSError) as error:
            raise ValueError(f"{key}: cannot read {str(path)!r}: {error}") from error
    return _with_geometry(path, key)


def _with_geometry(path: str | os.PathLike, key: str) -> pd.DataFrame:
    frame: gpd.GeoDataFrame = read_vector(path, key=key)
    if {"lon", "lat"} <= set(frame.columns):
        return pd.DataFrame(frame.drop(columns=frame.geometry.name))
    if frame.crs is None or not (frame.geometry.geom_type == "Point").all():
        raise ValueError(
            f"{key}: {str(path)!r} needs columns 'lon' and 'lat', or point geometries in a named CRS"
        )
    points = frame.geometry.to_crs(4326)
    frame = pd.DataFrame(frame.drop(columns=frame.geometry.name))
    return frame.assign(lon=points.x, lat=points.y)


def _check_ids(values: pd.Series, path: str | os.PathLike, key: str) -> pd.Series:
    ids = values.map(lambda value: "" if pd.isna(value) else str(value).strip()).astype(object)
    if (ids == "").any():
        raise ValueError(f"{key}: {str(path)!r} has {(ids == '').sum()} row(s) without a location_id")
    repeated = ids[ids.duplicated()].unique()
    if repeated.size:
        raise ValueError(
            f"{key}: {str(path)!r} repeats {repeated.size} location_id(s): "
            f"{', '.join(map(repr, repeated[:5]))}. Each location needs its own id."
        )
    return ids


def distance_to_points_km(frame: pd.DataFrame, points: pd.DataFrame) -> np.ndarray:
    """Give the great-circle distance of each row of `frame` to the nearest of `points`, in km."""
    tree = cKDTree(grid.sphere_xyz(points["lon"], points["lat"]))
    chord, _ = tree.query(grid.sphere_xyz(frame["lon"], frame["lat"]))
    return 2 * grid.MEAN_RADIUS_KM * np.arcsin(np.clip(chord / 2, 0, 1))
