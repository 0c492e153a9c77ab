"""Polygon files and the points that lie in them.

Points are brought to the polygons' own CRS and never the other way round, so polygons around a
pole or across the antimeridian need no cutting, and straight edges stay straight.
"""

import logging
import os
import zipfile
from collections.abc import Sequence
from pathlib import Path

import geopandas as gpd
import numpy as np
import pyproj
import shapely
from numpy.typing import ArrayLike

from workflow_scripts.core import grid
from workflow_scripts.core.scanlines import scan

logger = logging.getLogger(__name__)

WGS84 = pyproj.CRS(4326)
FEW_POINTS = 50
"""So many points are sooner tested than a polygon is prepared for them."""


def read_vector(path: str | os.PathLike, *, key: str) -> gpd.GeoDataFrame:
    """Read a GeoParquet, GeoJSON, GeoPackage or (zipped) shapefile.

    Parameters
    ----------
    path : the file
    key : config key that names it, for messages

    Raises
    ------
    FileNotFoundError, ValueError
        If the file is missing, unreadable, empty or without geometry.
    """
    if not Path(path).exists():
        raise FileNotFoundError(f"{key}: no file {str(path)!r}. Correct the path in config.yaml.")
    try:
        if Path(path).suffix in (".parquet", ".geoparquet"):
            frame = gpd.read_parquet(path)
        else:
            frame = gpd.read_file(_inner_shapefile(path))
    except (ValueError, OSError, RuntimeError) as error:
        raise ValueError(
            f"{key}: cannot read {str(path)!r} as GeoParquet, GeoJSON, GeoPackage or shapefile: {error}"
        ) from error
    if not isinstance(frame, gpd.GeoDataFrame) or frame.empty:
        raise ValueError(f"{key}: {str(path)!r} holds no features with a geometry")
    return frame


def _inner_shapefile(path: str | os.PathLike) -> str:
    """Give the address of the one shapefile in a zip, also in a folder of it, where GDAL does not look."""
    if not zipfile.is_zipfile(path):
        return str(path)
    with zipfile.ZipFile(path) as archive:
        inner = [name for name in archive.namelist() if name.lower().endswith(".shp")]
    return f"/vsizip/{Path(path).resolve()}/{inner[0]}" if len(inner) == 1 else str(path)


def read_polygons(path: str | os.PathLike, columns: Sequence[str] = (), *, key: str) -> gpd.GeoDataFrame:
    """Read polygons, valid and in the file's own CRS.

    Self-intersecting rings are repaired (`make_valid`); features without area are dropped.

    Parameters
    ----------
    path : GeoParquet, GeoJSON, GeoPackage or (zipped) shapefile
    columns : needed columns, in any case; they come back named as asked for
    key : config key that names the file, for messages

    Raises
    ------
    FileNotFoundError, ValueError
        If the file is missing or unreadable, has no CRS, no polygon or lacks a column, or if its
        coordinates are not those of its CRS.
    """
    frame = read_vector(path, key=key)
    if frame.crs is None:
        raise ValueError(
            f"{key}: {str(path)!r} names no coordinate reference system. "
            "Write it into the file (for a shapefile, its .prj)."
        )
    found = {str(name).lower(): name for name in frame.columns}
    missing = [name for name in columns if name.lower() not in found]
    if missing:
        raise ValueError(
            f"{key}: {str(path)!r} lacks the column(s) {missing!r}; it has "
            f"{[str(name) for name in frame.columns if name != frame.geometry.name]!r}"
        )
    frame = frame.rename(columns={found[name.lower()]: name for name in columns})
    frame = frame.set_geometry(_polygonal(frame.geometry.to_numpy()), crs=frame.crs)
    is_flat = (frame.geometry.isna() | frame.geometry.is_empty).to_numpy()
    if is_flat.all():
        raise ValueError(f"{key}: {str(path)!r} holds no polygons")
    if is_flat.any():
        logger.warning(
            "%s: %d of %d features of %r have no area and are left out: %r",
            key, is_flat.sum(), len(frame), str(path),
            frame.loc[is_flat, list(columns)].head(5).to_dict("records"),
        )  # fmt: skip
    frame = frame[~is_flat].reset_index(drop=True)
    west, south, east, north = frame.total_bounds
    if frame.crs.is_geographic and (west < -360 or east > 360 or south < -90.01 or north > 90.01):
        raise ValueError(
            f"{key}: {str(path)!r} says its CRS is {frame.crs.name!r} (degrees) but its coordinates "
            f"reach from {west:g}, {south:g} to {east:g}, {north:g}. Correct the file's CRS."
        )
    return frame


def _polygonal(geometries: np.ndarray) -> np.ndarray:
    """Repair invalid rings and keep only what has an area."""
    geometries = shapely.force_2d(geometries)
    invalid = ~shapely.is_valid(geometries) & ~shapely.is_missing(geometries)
    if invalid.any():
        logger.info("made %d of %d polygons valid", invalid.sum(), len(geometries))
        geometries[invalid] = shapely.make_valid(geometries[invalid])
    mixed = np.flatnonzero(~np.isin(shapely.get_type_id(geometries), (-1, 3, 6)))
    for i in mixed:
        parts = shapely.get_parts(shapely.get_parts(geometries[i]))
        geometries[i] = shapely.union_all(parts[shapely.get_type_id(parts) == 3])
    return geometries


def locate(lon: ArrayLike, lat: ArrayLike, polygons: gpd.GeoDataFrame) -> np.ndarray:
    """Give the row of the polygon that holds each point, edges included.

    Parameters
    ----------
    lon, lat : degrees
    polygons : any CRS; where polygons overlap the first row wins

    Returns
    -------
    int array, position of the row; -1 outside all polygons
    """
    lon, lat = np.atleast_1d(np.asarray(lon, float)), np.atleast_1d(np.asarray(lat, float))
    x, y, order = lon, lat, np.arange(lon.size)
    if not WGS84.equals(polygons.crs, ignore_axis_order=True):
        x, y = pyproj.Transformer.from_crs(WGS84, polygons.crs, always_xy=True).transform(lon, lat)
    if polygons.crs.is_geographic:
        x, y, order = _with_turns(x, y, order, polygons.total_bounds)
    finite = np.isfinite(x) & np.isfinite(y)
    if not finite.all():
        x, y, order = x[finite], y[finite], order[finite]
    parts, owner = shapely.get_parts(polygons.geometry.to_numpy(), return_index=True)
    part, is_sure = scan(x, y, parts)
    unsure = np.flatnonzero(~is_sure)
    part[unsure] = _first_around(x[unsure], y[unsure], parts)
    found = np.flatnonzero(part >= 0)
    row = np.full(lon.shape, len(polygons))
    np.minimum.at(row, order[found], owner[part[found]])
    return np.where(row < len(polygons), row, -1)


def _first_around(x: np.ndarray, y: np.ndarray, parts: np.ndarray) -> np.ndarray:
    """Give the first polygon that holds each point, edges included; -1 outside all."""
    order = np.argsort(y, kind="stable")
    x, y = x[order], y[order]
    bounds = shapely.bounds(parts)
    first = np.searchsorted(y, bounds[:, 1], side="left")
    last = np.searchsorted(y, bounds[:, 3], side="right")
    found = np.full(x.size, -1)
    for part in np.flatnonzero(first < last)[::-1]:
        in_rows = slice(first[part], last[part])
        near = (x[in_rows] >= bounds[part, 0]) & (x[in_rows] <= bounds[part, 2])
        near = np.flatnonzero(near) + first[part]
        if near.size:
            if near.size > FEW_POINTS:
                shapely.prepare(parts[part])
            inside = near[shapely.intersects_xy(parts[part], x[near], y[near])]
            found[order[inside]] = part
    return found


def _with_turns(
    x: np.ndarray, y: np.ndarray, order: np.ndarray, bounds: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Repeat points a turn to the east or west where polygons reach beyond ±180 degrees."""
    turns = [0.0] + [360.0] * int(bounds[2] > 180) + [-360.0] * int(bounds[0] < -180)
    if len(turns) == 1:
        return x, y, order
    return (
        np.concatenate([x + turn for turn in turns]),
        np.tile(y, len(turns)),
        np.tile(order, len(turns)),
    )


def boxes(polygons: gpd.GeoDataFrame) -> np.ndarray:
    """Give the bounding boxes of all parts in degrees, shape (n, 4): west, south, east, north.

    A part across the antimeridian gives two boxes.
    """
    parts = shapely.bounds(shapely.get_parts(polygons.geometry.to_numpy()))
    if polygons.crs.is_geographic:
        return split_box(parts)
    transformer = pyproj.Transformer.from_crs(polygons.crs, 4326, always_xy=True)
    degrees = np.array([transformer.transform_bounds(*part, densify_pts=51) for part in parts])
    return split_box(np.where(np.isfinite(degrees), degrees, [-180.0, -90.0, 180.0, 90.0]))


def split_box(bounds: ArrayLike) -> np.ndarray:
    """Cut boxes (west, south, east, north in degrees) at the antimeridian where they cross it."""
    bounds = np.atleast_2d(np.asarray(bounds, float))
    west, east = bounds[:, 0], bounds[:, 2]
    crossing = (west > east) | (west < -180) | (east > 180)
    left, right = bounds[crossing].copy(), bounds[crossing].copy()
    left[:, 0] = np.where(left[:, 0] < -180, left[:, 0] + 360, left[:, 0])
    left[:, 2] = 180
    right[:, 0] = -180
    right[:, 2] = np.where(right[:, 2] > 180, right[:, 2] - 360, right[:, 2])
    return np.concatenate([bounds[~crossing], left, right])


def areas_km2(polygons: gpd.GeoDataFrame) -> np.ndarray:
    """Give the true area of each row in km², on an equal-area cylinder around the ellipsoid.

    Edges are straight in the polygons' own coordinates; those in degrees are cut to half a degree first.
    """
    if not polygons.crs.is_geographic:
        return polygons.geometry.to_crs("ESRI:54034").area.to_numpy() / 1e6

    def flatten(degrees: np.ndarray) -> np.ndarray:
        x = np.radians(degrees[:, 0]) * grid.EARTH_RADIUS_M / 1000
        return np.column_stack([x, grid.equal_area_height_km(degrees[:, 1])])

    pieces = shapely.segmentize(polygons.geometry.to_numpy(), 0.5)
    return shapely.area(shapely.transform(pieces, flatten))
