"""Boundaries of polygons, and the nearest one to a point that lies in none."""

import geopandas as gpd
import numpy as np
import pandas as pd
import pyproj
import shapely
from numpy.typing import ArrayLike

KM_PER_DEGREE = 111.195
"""Length of one degree of a great circle on a sphere of 6371.0088 km."""
POINTS_PER_QUERY = 1000
"""Points compared with their nearby boundary segments at once; bounds the memory."""


def nearest(
    lon: ArrayLike, lat: ArrayLike, polygons: gpd.GeoDataFrame, *, max_km: float
) -> tuple[np.ndarray, np.ndarray]:
    """Give the row of the nearest polygon around points that lie in none.

    The distance to a polygon's boundary is measured in a local plane around the point (good to
    0.1 % up to 25 km below 80 degrees of latitude), across the antimeridian too.

    Parameters
    ----------
    lon, lat : degrees, outside all polygons
    polygons : any CRS; of two polygons at the same distance the first row wins
    max_km : farthest distance that counts

    Returns
    -------
    row : int array, -1 where no polygon is within `max_km`
    distance_km : float array, NaN there
    """
    lon, lat = np.atleast_1d(np.asarray(lon, float)), np.atleast_1d(np.asarray(lat, float))
    row, distance_km = np.full(lon.shape, -1), np.full(lon.shape, np.nan)
    if lon.size == 0 or max_km <= 0:
        return row, distance_km
    reach = np.column_stack(_reach(lat, max_km))
    start, end, owner = _segments_near(polygons, lon, lat, reach)
    tree = shapely.STRtree(shapely.linestrings(np.stack([start, end], axis=1)))
    for begin in range(0, lon.size, POINTS_PER_QUERY):
        some = slice(begin, begin + POINTS_PER_QUERY)
        found = _nearest_segment(lon[some], lat[some], reach[some], tree, start, end, owner)
        found = found[found["km"] <= max_km]
        row[begin + found["point"].to_numpy()] = found["owner"]
        distance_km[begin + found["point"].to_numpy()] = found["km"]
    return row, distance_km


def _reach(lat: np.ndarray, max_km: float) -> tuple[np.ndarray, np.ndarray]:
    """Half width and half height in degrees of a box that holds all within `max_km`."""
    dlat = np.full(lat.shape, max_km / KM_PER_DEGREE * 1.01)
    return np.minimum(dlat / np.cos(np.radians(np.minimum(np.abs(lat) + dlat, 89.9))), 180), dlat


def boundary_segments(polygons: gpd.GeoDataFrame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Give the pieces that the boundaries are made of.

    Returns
    -------
    start, end : float arrays (n, 2), degrees; a piece across the antimeridian ends beyond ±180
    owner : int array (n,), position of the polygon's row
    """
    parts, part_owner = shapely.get_parts(polygons.geometry.to_numpy(), return_index=True)
    rings, ring_part = shapely.get_rings(parts, return_index=True)
    coordinates, ring = shapely.get_coordinates(rings, return_index=True)
    transformer = pyproj.Transformer.from_crs(polygons.crs, 4326, always_xy=True)
    coordinates = np.column_stack(transformer.transform(coordinates[:, 0], coordinates[:, 1]))
    same_ring = ring[1:] == ring[:-1]
    start, end = coordinates[:-1][same_ring], coordinates[1:][same_ring].copy()
    end[:, 0] -= 360 * np.round((end[:, 0] - start[:, 0]) / 360)
    return start, end, part_owner[ring_part[ring[:-1][same_ring]]]


def _segments_near(
    polygons: gpd.GeoDataFrame, lon: np.ndarray, lat: np.ndarray, reach: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Boundary segments (start, end in degrees; row) that pass within a degree of a point's box."""
    start, end, owner = boundary_segments(polygons)
    wanted = np.zeros((180, 360), bool)
    for x, y, (dx, dy) in zip(lon, lat, reach, strict=True):
        columns = np.arange(np.floor(x - dx), np.floor(x + dx) + 1).astype(int) + 180
        rows = np.arange(np.floor(y - dy), np.floor(y + dy) + 1).astype(int) + 90
        wanted[np.ix_(np.clip(rows, 0, 179), columns % 360)] = True

    def is_wanted(points: np.ndarray) -> np.ndarray:
        points = np.nan_to_num(np.floor(points)).astype(int)
        return wanted[np.clip(points[:, 1] + 90, 0, 179), (points[:, 0] + 180) % 360]

    is_long = (np.abs(end - start) > 1).any(axis=1)
    kept = (is_wanted(start) | is_wanted(end) | is_long) & np.isfinite(start + end).all(axis=1)
    return start[kept], end[kept], owner[kept]


def _nearest_segment(
    lon: np.ndarray,
    lat: np.ndarray,
    reach: np.ndarray,
    tree: shapely.STRtree,
    start: np.ndarray,
    end: np.ndarray,
    owner: np.ndarray,
) -> pd.DataFrame:
    """Nearest segment of each point: columns point, owner, km; points without any are left out."""
    pairs = []
    for turn in (-360.0, 0.0, 360.0):
        box = shapely.box(
            lon + turn - reach[:, 0], lat - reach[:, 1], lon + turn + reach[:, 0], lat + reach[:, 1]
        )
        point, segment = tree.query(box)
        if point.size == 0:
            continue
        scale = np.cos(np.radians(lat[point]))[:, None] * [1.0, 0.0] + [0.0, 1.0]
        here = np.column_stack([lon[point] + turn, lat[point]])
        a, b = (start[segment] - here) * scale, (end[segment] - here) * scale
        along = b - a
        length = np.maximum((along**2).sum(axis=1), 1e-30)
        share = np.clip(-(a * along).sum(axis=1) / length, 0, 1)[:, None]
        km = np.hypot(*(a + share * along).T) * KM_PER_DEGREE
        pairs.append(pd.DataFrame({"point": point, "owner": owner[segment], "km": km}))
    if not pairs:
        return pd.DataFrame({"point": np.zeros(0, int), "owner": np.zeros(0, int), "km": np.zeros(0)})
    found = pd.concat(pairs)
    found["rounded"] = found["km"].round(6)
    return found.sort_values(["point", "rounded", "owner"]).drop_duplicates("point")
