"""Outlines of land for the map, simplified so that they weigh little."""

from collections.abc import Iterable

import geopandas as gpd
import numpy as np
from shapely.geometry import LinearRing, Polygon

TOLERANCE = 1 / 3000
"""Of the extent of all: less than a pixel of a map as wide as a screen."""
OWN_TOLERANCE = 1 / 150
"""Of a polygon's own extent: small islands keep a shape that one can zoom in to."""
DIGITS = 3
"""Decimal places of a degree: 0.001 is about 100 m."""
MAX_POINTS = 60_000
"""Beyond, the smallest polygons are left out."""


def land_rings(paths: Iterable[str]) -> list[list[list[list[float]]]]:
    """Read land polygons and simplify them to what a map of their extent can show.

    Parameters
    ----------
    paths : polygon files

    Returns
    -------
    polygons, each a list of rings (the outer one first), each a list of [lon, lat] in degrees
    """
    found = []
    for path in dict.fromkeys(paths):
        land = gpd.read_parquet(path) if str(path).endswith(".parquet") else gpd.read_file(path)
        parts = land.geometry.to_crs("EPSG:4326").explode(index_parts=False)
        west, south, east, north = parts.total_bounds
        coarse = max(east - west, north - south) * TOLERANCE
        found += [_simplified(part, coarse) for part in parts if isinstance(part, Polygon)]
    found.sort(key=lambda polygon: -polygon.area)
    rings, n_points = [], 0
    for polygon in found:
        n_points += len(polygon.exterior.coords)
        if n_points > MAX_POINTS:
            break
        rings.append([_ring(part) for part in (polygon.exterior, *polygon.interiors)])
    return rings


def _simplified(polygon: Polygon, coarse: float) -> Polygon:
    west, south, east, north = polygon.bounds
    own = max(east - west, north - south) * OWN_TOLERANCE
    return polygon.simplify(max(min(coarse, own), 10**-DIGITS))


def _ring(ring: LinearRing) -> list[list[float]]:
    return np.round(np.asarray(ring.coords)[:-1, :2], DIGITS).tolist()
