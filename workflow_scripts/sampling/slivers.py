"""Places for islands and strata that hold no location of the grid.

Such a place is the center of the largest circle inside the polygon, where a patch holds most of it.
It is named after the cell it lies in; the second place of a cell is called `229U_27R_2`.
"""

import logging

import geopandas as gpd
import numpy as np
import pandas as pd
import pyproj
import shapely

from workflow_scripts.core import grid
from workflow_scripts.core.land import Coasts, Ground
from workflow_scripts.core.polygons import areas_km2, locate
from workflow_scripts.sampling.frame import Strata

logger = logging.getLogger(__name__)


def island_places(
    cells: pd.DataFrame, ground: Ground, *, spacing_m: float, size_m: float, land_fraction: float | None
) -> pd.DataFrame:
    """Give a place on each island that holds no location, where its cell holds none either.

    Parameters
    ----------
    cells : locations of the grid: `cell_id`, `lon`, `lat`
    ground : where locations may lie
    spacing_m : side of a cell; of several islands in a cell the largest is taken
    size_m, land_fraction : islands that fill less than this share of their footprint are left out

    Returns
    -------
    DataFrame with `cell_id`, `lon`, `lat`, `area_km2` (of the island)
    """
    parts = gpd.GeoDataFrame(geometry=shapely.get_parts(ground.land.geometry.to_numpy()), crs=ground.land.crs)
    missed = np.setdiff1d(np.arange(len(parts)), locate(cells["lon"], cells["lat"], parts))
    places = _inner_places(parts.iloc[missed], spacing_m=spacing_m)
    lon, lat = places["lon"].to_numpy(), places["lat"].to_numpy()
    is_free = ~places["cell_id"].isin(set(cells["cell_id"])) & ground.in_region(lon, lat)
    is_free &= (is_land := ground.is_land(lon, lat))
    if land_fraction is not None:
        is_free &= Coasts(ground).land_fraction(lon, lat, is_land, size_m=size_m) >= land_fraction
    places = places[is_free].sort_values(["area_km2", "cell_id"], ascending=[False, True], kind="stable")
    places = places.drop_duplicates("cell_id").reset_index(drop=True)
    logger.info(
        "place: polygon: %d islands (%.0f km2) without a location of the grid get one of their own",
        len(places), places["area_km2"].sum(),
    )  # fmt: skip
    return places


def missed_strata(cells: pd.DataFrame, strata: Strata, ground: Ground) -> gpd.GeoDataFrame:
    """List the strata that hold no location, though they reach into the region.

    Returns
    -------
    GeoDataFrame with `stratum`, `area_km2` (of its polygons in the region, without what is excluded)
    and the polygons' part on land; all of them where the land polygons lack it
    """
    labels = strata.labels()
    lacking = sorted(set(labels) - set(cells["stratum"]))
    crs = strata.polygons.crs
    layers = {"land": [ground.land], "exclude": list(ground.exclude)}
    layers["region"] = [] if ground.region is None else [ground.region]
    layers = {name: [_Layer(polygons.to_crs(crs)) for polygons in some] for name, some in layers.items()}
    rows = []
    for label in lacking:
        shape = shapely.union_all(strata.polygons.geometry.to_numpy()[labels == label])
        for layer in layers["region"]:
            shape = shape & layer.around(shape)
        for layer in layers["exclude"]:
            shape = shape - layer.around(shape)
        on_land = shape & layers["land"][0].around(shape)
        rows.append((label, shape, shape if on_land.is_empty else on_land))
    whole = gpd.GeoDataFrame(
        {"stratum": [row[0] for row in rows]}, geometry=[row[1] for row in rows], crs=crs
    )
    whole["area_km2"] = areas_km2(whole)
    whole = whole.set_geometry([row[2] for row in rows], crs=crs)
    return whole[whole["area_km2"] > 0].reset_index(drop=True)


class _Layer:
    """Polygons of which a small part is needed again and again."""

    def __init__(self, polygons: gpd.GeoDataFrame) -> None:
        self.parts = shapely.get_parts(polygons.geometry.to_numpy())
        self.tree = shapely.STRtree(self.parts)

    def around(self, shape: shapely.Geometry) -> shapely.Geometry:
        """Give the part within the shape's bounding box."""
        if shape.is_empty:
            return shape
        near = self.parts[np.sort(self.tree.query(shape))]
        box = shapely.box(*shape.bounds)
        return shapely.union_all(shapely.make_valid(shapely.intersection(near, box)))


def stratum_places(missed: gpd.GeoDataFrame, taken: set[str], *, spacing_m: float) -> pd.DataFrame:
    """Give places inside strata that hold no location of the grid, one per cell and polygon part.

    Parameters
    ----------
    missed : as from `missed_strata`
    taken : ids that other locations bear
    spacing_m : side of a cell

    Returns
    -------
    DataFrame with `cell_id` (unique), `lon`, `lat`, `area_km2` (of the part), `stratum`
    """
    shapes, owner = shapely.get_parts(missed.geometry.to_numpy(), return_index=True)
    is_area = shapely.get_type_id(shapes) == 3
    parts = gpd.GeoDataFrame(geometry=shapes[is_area], crs=missed.crs)
    places = _inner_places(parts, spacing_m=spacing_m)
    places["stratum"] = missed["stratum"].to_numpy(object)[owner[is_area]][places["part"]]
    places = places.sort_values(["stratum", "area_km2", "part"], ascending=[True, False, True])
    places = places.drop_duplicates(["stratum", "cell_id"]).reset_index(drop=True)
    taken, ids = set(taken), []
    for cell in places["cell_id"]:
        name, k = cell, 1
        while name in taken:
            k += 1
            name = f"{cell}_{k}"
        taken.add(name)
        ids.append(name)
    return places.assign(cell_id=ids).drop(columns="part")


def _inner_places(parts: gpd.GeoDataFrame, *, spacing_m: float) -> pd.DataFrame:
    """Give the middle of the largest circle in each polygon; polygons beyond the grid are left out."""
    shapes = parts.geometry.to_numpy()
    circles = shapely.maximum_inscribed_circle(shapes) if len(shapes) else np.zeros(0, object)
    middles = shapely.get_point(circles, 0)
    inside = shapely.intersects(middles, shapes)
    middles = np.where(inside, middles, shapely.point_on_surface(shapes))
    transformer = pyproj.Transformer.from_crs(parts.crs, 4326, always_xy=True)
    lon, lat = transformer.transform(shapely.get_x(middles), shapely.get_y(middles))
    lon = (np.asarray(lon, float) + 180) % 360 - 180
    places = pd.DataFrame({"lon": lon, "lat": np.asarray(lat, float), "area_km2": areas_km2(parts)})
    places["part"] = np.arange(len(places))
    places.insert(0, "cell_id", grid.cell_at(places["lon"], places["lat"], spacing_m))
    return places[places["cell_id"] != ""].reset_index(drop=True)
