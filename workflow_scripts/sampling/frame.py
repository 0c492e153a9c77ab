"""The sampling frame: cells of the grid on land in a region, their areas, ecoregions and strata."""

import itertools
import logging
import math
from collections.abc import Callable

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from workflow_scripts.core import grid
from workflow_scripts.core.polygons import boxes, locate, nearest, split_box

logger = logging.getLogger(__name__)

ECOREGION_COLUMNS = {
    "ECO_ID": "eco_id",
    "ECO_NAME": "eco_name",
    "BIOME_NUM": "biome_num",
    "BIOME_NAME": "biome_name",
    "REALM": "realm",
}
"""Columns of RESOLVE Ecoregions 2017 and what they are called in locations.parquet."""
UNASSIGNED = "unassigned"
"""Stratum of a location without ecoregion."""
WHOLE = "all"
"""Stratum of every location where no ecoregions are given."""
BAND_DEGREES = 5
"""Cells are made and tested in bands of this height, which bounds the memory."""
MAX_CELLS = 200_000_000
"""More cells than this are refused before they are made: the spacing is then a mistake."""
CELLS_PER_LOCATION = 4
"""Where `stratified` derives its spacing from n_locations: cells to choose from per location."""

_WGS84_A_M = 6_378_137.0
_WGS84_E2 = 0.00669437999014


def cell_area_km2(frame: pd.DataFrame) -> np.ndarray:
    """Give the true area of cells on the WGS 84 ellipsoid (closed form, Snyder 1987, eq. 3-12)."""

    def authalic(lat: pd.Series) -> np.ndarray:
        sine = np.sin(np.radians(lat.to_numpy()))
        e = math.sqrt(_WGS84_E2)
        return (1 - _WGS84_E2) * (sine / (1 - _WGS84_E2 * sine**2) + np.arctanh(e * sine) / e)

    height = authalic(frame["south"] + frame["dlat"]) - authalic(frame["south"])
    return _WGS84_A_M**2 / 2 * np.radians(frame["dlon"].to_numpy()) * height / 1e6


def region_boxes(region: list[float] | gpd.GeoDataFrame | None) -> np.ndarray:
    """Give boxes in degrees, (n, 4), that hold the region (a box, polygons, or the whole Earth)."""
    if region is None:
        return np.array([[-180.0, -90.0, 180.0, 90.0]])
    if isinstance(region, gpd.GeoDataFrame):
        return boxes(region)
    west, south, east, north = region
    if not (abs(west) <= 180 and abs(east) <= 180 and -90 <= south < north <= 90) or west == east:
        raise ValueError(
            f"locations.region = {region!r} is not [west, south, east, north] in degrees "
            "(south < north; west may exceed east: the box then crosses the antimeridian)"
        )
    return split_box(region)


def land_cells(
    spacing_m: float, *, land: gpd.GeoDataFrame, region: list[float] | gpd.GeoDataFrame | None
) -> pd.DataFrame:
    """List the cells whose center lies on land and in the region, sorted by row and column.

    Returns
    -------
    DataFrame as `grid.cells`
    """
    windows = _merged(_intersections(boxes(land), region_boxes(region)))
    n_cells = sum(_n_cells(window, spacing_m) for window in windows)
    if n_cells > MAX_CELLS:
        raise ValueError(
            f"locations.spacing_m = {spacing_m:g} m gives about {n_cells:.2g} cells over the land's "
            f"bounding boxes, above {MAX_CELLS}. Raise spacing_m or name a smaller region."
        )
    kept = []
    for west, south, east, north in windows:
        edges = np.append(np.arange(south, north, BAND_DEGREES), north)
        for low, high in itertools.pairwise(edges):
            cells = grid.cells(spacing_m, bounds=(west, low, east, high))
            if isinstance(region, gpd.GeoDataFrame):
                cells = cells[locate(cells["lon"], cells["lat"], region) >= 0]
            kept.append(cells[locate(cells["lon"], cells["lat"], land) >= 0])
    if not any(len(cells) for cells in kept):
        return grid.cells(spacing_m, bounds=(0.0, -90.0, 0.0, -90.0))
    cells = pd.concat(kept, ignore_index=True)
    return cells.drop_duplicates(["row", "col"]).sort_values(["row", "col"]).reset_index(drop=True)


def _n_cells(window: np.ndarray, spacing_m: float) -> float:
    west, south, east, north = np.radians(window)
    area_m2 = grid.EARTH_RADIUS_M**2 * (east - west) * (math.sin(north) - math.sin(south))
    return area_m2 / spacing_m**2


def _intersections(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Intersect two sets of boxes pairwise."""
    some = shapely.STRtree(shapely.box(*left.T)).query(shapely.box(*right.T))
    a, b = left[some[1]], right[some[0]]
    return np.column_stack([np.maximum(a[:, 0:2], b[:, 0:2]), np.minimum(a[:, 2:4], b[:, 2:4])])


def _merged(windows: np.ndarray) -> np.ndarray:
    """Replace boxes that touch by the box around them until none do; sorted."""
    while len(windows) > 1:
        shapes = shapely.box(*windows.T)
        left, right = shapely.STRtree(shapes).query(shapes, predicate="intersects")
        graph = coo_array((np.ones(len(left)), (left, right)), shape=(len(windows),) * 2)
        n_groups, group = connected_components(graph, directed=False)
        if n_groups == len(windows):
            break
        by_group = pd.DataFrame(windows).groupby(group)
        low, high = by_group.min().to_numpy(), by_group.max().to_numpy()
        windows = np.column_stack([low[:, 0:2], high[:, 2:4]])
    return windows[np.lexsort(windows.T)] if len(windows) else windows


def spacing_for(n: int, count: Callable[[float], int], *, minimum_m: float) -> float:
    """Find the spacing in whole meters that gives nearest to `n` cells.

    Parameters
    ----------
    n : cells wanted
    count : gives the number of cells at a spacing in meters
    minimum_m : smallest spacing (the size of a patch: a smaller one makes patches overlap)

    Raises
    ------
    ValueError
        If even `minimum_m` gives no cell, or the spacing found lies below it.
    """
    spacing, tried = 200_000.0, {}
    while len(tried) < 30 and spacing not in tried:
        tried[spacing] = count(spacing)
        if tried[spacing] == n:
            break
        step = math.sqrt(tried[spacing] / n) if tried[spacing] >= min(n, 8) else 0.5
        if spacing * step < minimum_m and spacing == minimum_m:
            break
        spacing = float(np.clip(round(spacing * step), minimum_m, 2_000_000))
    best = min(tried, key=lambda spacing: (abs(tried[spacing] - n), spacing))
    if tried[best] == 0 or (best == minimum_m and tried[best] < 0.9 * n):
        raise ValueError(
            f"locations.n_locations = {n}: the region's land holds only {tried[best]} cells at "
            f"{minimum_m:g} m, the size of a patch; closer cells overlap. Lower n_locations "
            "or enlarge the region."
        )
    return best


def add_ecoregions(
    frame: pd.DataFrame,
    ecoregions: gpd.GeoDataFrame | None,
    *,
    strata: str,
    max_gap_km: float,
    is_land: np.ndarray | None,
) -> pd.DataFrame:
    """Add the ecoregion columns and the stratum to points.

    A point in two polygons goes to the one with the lowest ECO_ID. A point on land in a gap (along
    simplified coasts) goes to the nearest polygon within `max_gap_km`.

    Parameters
    ----------
    frame : `lon`, `lat`
    ecoregions : polygons with the columns of `ECOREGION_COLUMNS` and `strata`, sorted by ECO_ID
    strata : column that names the stratum, of the file or as in `ECOREGION_COLUMNS`
    is_land : where gaps may be filled; None where the land is not known (then nowhere)
    """
    if ecoregions is None:
        missing = {"eco_id": -1, "eco_name": "", "biome_num": -1, "biome_name": "", "realm": ""}
        return frame.assign(**missing, stratum=WHOLE)
    row = locate(frame["lon"], frame["lat"], ecoregions)
    gap = np.flatnonzero((row < 0) & (is_land if is_land is not None else False))
    filled, distance = nearest(
        frame["lon"].to_numpy()[gap], frame["lat"].to_numpy()[gap], ecoregions, max_km=max_gap_km
    )
    row[gap] = filled
    n_filled, n_none = int((filled >= 0).sum()), int((row < 0).sum())
    logger.info(
        "ecoregions: %d of %d points inside a polygon, %d from the nearest one within %g km "
        "(farthest %.1f km), %d unassigned",
        len(row) - n_filled - n_none, len(row), n_filled, max_gap_km,
        np.nanmax(distance) if n_filled else 0.0, n_none,
    )  # fmt: skip
    columns = {}
    for source, name in ECOREGION_COLUMNS.items():
        if name in ("eco_id", "biome_num"):
            values, none = pd.to_numeric(ecoregions[source]).fillna(-1).to_numpy(int), -1
        else:
            values, none = ecoregions[source].fillna("").astype(str).to_numpy(object), ""
        columns[name] = np.where(row >= 0, values[np.maximum(row, 0)], none)
    labels = ecoregions[stratum_column(strata)].map(stratum_label).to_numpy(object)
    stratum = np.where(row >= 0, labels[np.maximum(row, 0)], UNASSIGNED)
    return frame.assign(**columns, stratum=stratum)


def stratum_column(strata: str) -> str:
    """Give the polygons' column for the `strata` option: `eco_id` means `ECO_ID`."""
    names = {ours: source for source, ours in ECOREGION_COLUMNS.items()}
    return names.get(strata.lower(), strata)


def stratum_label(value: object) -> str:
    """Name a stratum: whole numbers without decimals, missing values as unassigned."""
    if pd.isna(value):
        return UNASSIGNED
    if isinstance(value, float | np.floating) and float(value).is_integer():
        return str(int(value))
    return str(value)
