"""Where locations may lie: land in a region, without what is excluded; and the cells of the grid there."""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely
from numpy.typing import ArrayLike
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from workflow_scripts.core import grid
from workflow_scripts.core.boundaries import KM_PER_DEGREE, boundary_segments
from workflow_scripts.core.polygons import boxes, locate, read_polygons

BAND_CELLS = 300_000
"""Cells are made and tested in bands of about this many, which bounds the memory."""
MAX_CELLS = 200_000_000
"""More cells than this are refused before they are made: the spacing is then a mistake."""
LATTICE = 32
"""Points per side of a footprint on which its land fraction is counted, where a coast crosses it."""
FOOTPRINT_REACH = 0.6
"""Half side of a box along the parallels that holds a footprint of side 1, turned by up to 10 degrees."""


@dataclass(frozen=True)
class Ground:
    """Where locations may lie."""

    land: gpd.GeoDataFrame
    region: gpd.GeoDataFrame | None = None
    """None: the whole Earth."""
    exclude: tuple[gpd.GeoDataFrame, ...] = ()
    """Lakes, ice, Antarctica: polygons that do not count as land."""

    def is_land(self, lon: np.ndarray, lat: np.ndarray) -> np.ndarray:
        """Tell which points lie on land that is not excluded."""
        found = locate(lon, lat, self.land) >= 0
        for polygons in self.exclude:
            rows = np.flatnonzero(found)
            found[rows] = locate(lon[rows], lat[rows], polygons) < 0
        return found

    def in_region(self, lon: np.ndarray, lat: np.ndarray) -> np.ndarray:
        """Tell which points lie in the region."""
        return np.ones(lon.shape, bool) if self.region is None else locate(lon, lat, self.region) >= 0


def read_ground(
    land: str | None, region: str | None, exclude: Sequence[str], *, settings: Mapping[str, Any]
) -> Ground | None:
    """Read where locations may lie.

    Parameters
    ----------
    land, region : files, None where not configured
    exclude : the files among the entries of `locations.exclude`, in their order
    settings : section `locations`: boxes and filters of `region` and `exclude`

    Returns
    -------
    Ground; None without land
    """
    if land is None:
        return None
    files = iter(exclude)
    areas = [
        read_area(None if _is_box(entry) else next(files), entry, key=f"locations.exclude[{i}]")
        for i, entry in enumerate(settings["exclude"])
    ]
    return Ground(
        land=read_polygons(land, key="locations.land"),
        region=None
        if settings["region"] is None
        else read_area(region, settings["region"], key="locations.region"),
        exclude=tuple(areas),
    )


def _is_box(entry: object) -> bool:
    return isinstance(entry, list | tuple)


def read_area(path: str | None, entry: Any, *, key: str) -> gpd.GeoDataFrame:
    """Read an area given as a box, a polygon file, or the features of one with given attributes.

    Parameters
    ----------
    path : the file; None for a box
    entry : [west, south, east, north], a path, or {path, where: {column: value or values}}
    key : config key, for messages

    Raises
    ------
    ValueError
        If no feature has the attributes; the values there are named.
    """
    if _is_box(entry):
        return box_polygon(entry, key=key)
    where = entry.get("where") or {} if isinstance(entry, Mapping) else {}
    polygons = read_polygons(path, list(where), key=key)
    for column, wanted in where.items():
        wanted = wanted if isinstance(wanted, list) else [wanted]
        present = polygons[column]
        chosen = present.isin(wanted) | present.astype(str).isin([str(value) for value in wanted])
        if not chosen.any():
            examples = sorted(present.dropna().astype(str).unique())
            listed = ", ".join(map(repr, examples[:12])) + (", …" if len(examples) > 12 else "")
            raise ValueError(
                f"{key}.where: no feature of {str(path)!r} has {column} = {wanted!r}. It holds: {listed}"
            )
        polygons = polygons[chosen].reset_index(drop=True)
    return polygons


def box_polygon(box: Sequence[float], *, key: str) -> gpd.GeoDataFrame:
    """Give [west, south, east, north] in degrees as a polygon; west above east crosses ±180.

    Parameters
    ----------
    box : degrees
    key : config key, for messages
    """
    west, south, east, north = box
    if not (abs(west) <= 180 and abs(east) <= 180 and -90 <= south < north <= 90) or west == east:
        raise ValueError(
            f"{key} = {list(box)!r} is not [west, south, east, north] in degrees "
            "(south < north; west may exceed east: the box then crosses the antimeridian)"
        )
    return gpd.GeoDataFrame(geometry=[shapely.box(west, south, east + 360 * (east < west), north)], crs=4326)


def land_cells(
    spacing_m: float,
    *,
    ground: Ground,
    offset: tuple[float, float] | None = None,
    land_fraction: float | None = None,
    size_m: float = 0,
) -> pd.DataFrame:
    """List the cells whose location lies on land and in the region, sorted by row and column.

    Parameters
    ----------
    spacing_m : side of a cell
    ground : where locations may lie
    offset : where in its cell a location lies, as shares (0 to 1) of the cell's width from the west and
        of its area from the south; None: the center
    land_fraction : take the cells of whose footprint at least this share is land, instead of those
        whose location is; the location itself must be in the region
    size_m : side of the footprint

    Returns
    -------
    DataFrame as `grid.cells`, `lon` and `lat` being those of the location
    """
    reach_m = (0 if offset is None else spacing_m) + (0 if land_fraction is None else size_m)
    land_boxes = _grown(boxes(ground.land), reach_m)
    region_boxes = _grown(boxes(ground.region), reach_m) if ground.region is not None else None
    whole = np.array([[-180.0, -90.0, 180.0, 90.0]])
    windows = _merged(_intersections(land_boxes, whole if region_boxes is None else region_boxes))
    n_cells = sum(_n_cells(window, spacing_m) for window in windows)
    if n_cells > MAX_CELLS:
        raise ValueError(
            f"locations.spacing_m = {spacing_m:g} m gives about {n_cells:.2g} cells over the land's "
            f"bounding boxes, above {MAX_CELLS}. Raise spacing_m or name a smaller region."
        )
    coasts = Coasts(ground) if land_fraction is not None else None
    kept = []
    for west, south, east, north in windows:
        n_bands = math.ceil(_n_cells((west, south, east, north), spacing_m) / BAND_CELLS)
        edges = np.linspace(south, north, max(n_bands, 1) + 1)
        for low, high in itertools.pairwise(edges):
            cells = _place(grid.cells(spacing_m, bounds=(west, low, east, high)), offset)
            cells = cells[ground.in_region(cells["lon"].to_numpy(), cells["lat"].to_numpy())]
            lon, lat = cells["lon"].to_numpy(), cells["lat"].to_numpy()
            is_kept = ground.is_land(lon, lat)
            if coasts is not None:
                is_kept = coasts.land_fraction(lon, lat, is_kept, size_m=size_m) >= land_fraction
            kept.append(cells[is_kept])
    if not any(len(cells) for cells in kept):
        return grid.cells(spacing_m, bounds=(0.0, -90.0, 0.0, -90.0))
    cells = pd.concat(kept, ignore_index=True)
    return cells.drop_duplicates(["row", "col"]).sort_values(["row", "col"]).reset_index(drop=True)


def _place(cells: pd.DataFrame, offset: tuple[float, float] | None) -> pd.DataFrame:
    """Move each location to the same place of its cell: by width, and by area from its south edge."""
    if offset is None:
        return cells
    lon = cells["west"] + offset[0] * cells["dlon"]
    south, north = (np.sin(np.radians(cells["south"] + cells["dlat"] * k)) for k in (0, 1))
    lat = np.degrees(np.arcsin(south + offset[1] * (north - south)))
    return cells.assign(lon=(lon + 180) % 360 - 180, lat=lat)


class Coasts:
    """The edges of land and excluded polygons, and how much of a footprint near them is land."""

    def __init__(self, ground: Ground) -> None:
        ends = [boundary_segments(polygons)[:2] for polygons in (ground.land, *ground.exclude)]
        start, end = (np.concatenate(points) for points in zip(*ends, strict=True))
        known = np.isfinite(start + end).all(axis=1)
        self.ground = ground
        self.tree = shapely.STRtree(shapely.linestrings(np.stack([start[known], end[known]], axis=1)))

    def land_fraction(
        self, lon: np.ndarray, lat: np.ndarray, is_land: np.ndarray, *, size_m: float
    ) -> np.ndarray:
        """Give the share of each footprint that is land; `is_land` tells it for the middle."""
        high = size_m * FOOTPRINT_REACH / 1000 / KM_PER_DEGREE
        wide = np.minimum(high / np.cos(np.radians(np.minimum(np.abs(lat) + high, 89.9))), 180)
        crossed = np.zeros(lon.shape, bool)
        for turn in (-360.0, 0.0, 360.0):
            near = np.flatnonzero(np.abs(lon + turn) <= 360)
            west, east = lon[near] + turn - wide[near], lon[near] + turn + wide[near]
            found, _ = self.tree.query(
                shapely.box(west, lat[near] - high, east, lat[near] + high), predicate="intersects"
            )
            crossed[near[found]] = True
        fraction = is_land.astype(float)
        rows = np.flatnonzero(crossed)
        step = (np.arange(LATTICE) + 0.5) / LATTICE - 0.5
        right, up = (values.ravel() * size_m for values in np.meshgrid(step, step))
        epsg = grid.utm_epsg(lon[rows], lat[rows])
        points = np.empty((2, rows.size, right.size))
        for code in np.unique(epsg):
            some = np.flatnonzero(epsg == code)
            x, y = grid.project(lon[rows[some]], lat[rows[some]], int(code))
            points[:, some] = grid.unproject(x[:, None] + right, y[:, None] + up, int(code))
        inside = self.ground.is_land(points[0].ravel(), points[1].ravel())
        fraction[rows] = inside.reshape(rows.size, right.size).mean(axis=1)
        return fraction


def _grown(windows: np.ndarray, reach_m: float) -> np.ndarray:
    """Enlarge boxes in degrees by meters on all sides, around the antimeridian too."""
    if reach_m == 0:
        return windows
    high = reach_m / 1000 / KM_PER_DEGREE * 1.02
    south, north = np.maximum(windows[:, 1] - high, -90), np.minimum(windows[:, 3] + high, 90)
    poleward = np.minimum(np.maximum(np.abs(south), np.abs(north)), 89.9)
    wide = high / np.cos(np.radians(poleward))
    west, east = windows[:, 0] - wide, windows[:, 2] + wide
    full = east - west >= 360
    parts = [np.column_stack([np.where(full, -180, np.maximum(west, -180)), south,
                              np.where(full, 180, np.minimum(east, 180)), north])]  # fmt: skip
    over, under = ~full & (east > 180), ~full & (west < -180)
    parts.append(np.column_stack([np.full(over.sum(), -180.0), south[over], east[over] - 360, north[over]]))
    parts.append(
        np.column_stack([west[under] + 360, south[under], np.full(under.sum(), 180.0), north[under]])
    )
    return np.concatenate(parts)


def _n_cells(window: ArrayLike, spacing_m: float) -> float:
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
