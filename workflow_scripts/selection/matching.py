"""Which scenes may serve a patch: the tile, the footprint, the newest processing, the same product elsewhere."""

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely

from workflow_scripts.core import bands, grid

FOOTPRINT_TOLERANCE_M = 1.0
"""Footprints are published with rounded coordinates; a hole this narrow shows in the pixels."""


def newest_processing(items: pd.DataFrame) -> np.ndarray:
    """Tell which items are the newest processing of their data take on their tile.

    Items whose offset is undecided do not compete.

    Returns
    -------
    bool array in the order of the rows
    """
    baseline = items["baseline"].map(bands.baseline_number).fillna(-1).to_numpy(float)
    age = items.assign(number=baseline, usable=items["dn_offset"] >= 0, row=np.arange(len(items)))
    age = age.sort_values(["usable", "number", "created", "item_id"], na_position="first")
    last = age.drop_duplicates(["datatake", "mgrs_tile"], keep="last")["row"].to_numpy()
    is_newest = np.zeros(len(items), bool)
    is_newest[last] = True
    return is_newest


def pair_with_items(locations: pd.DataFrame, items: pd.DataFrame, size_m: int) -> pd.DataFrame:
    """Pair each location with the items that may see it.

    Items of a known tile by the tiles that hold the whole patch; items that tell no tile with
    every location (their footprint decides).

    Returns
    -------
    DataFrame with `location`, `item` (row number in `items`)
    """
    tiles = grid.mgrs_tiles(locations["lon"], locations["lat"], size_m)
    on_tile = pd.DataFrame({"location": locations["location"].to_numpy(), "mgrs_tile": tiles})
    on_tile = on_tile.explode("mgrs_tile").dropna()
    numbered = pd.DataFrame({"mgrs_tile": items["mgrs_tile"].to_numpy(), "item": np.arange(len(items))})
    known = on_tile.merge(numbered, on="mgrs_tile")[["location", "item"]]
    nowhere = numbered.loc[numbered["mgrs_tile"] == "", ["item"]]
    anywhere = locations[["location"]].merge(nowhere, how="cross")
    return pd.concat([known, anywhere], ignore_index=True).astype(np.int64)


def holds_patch(
    pairs: pd.DataFrame, locations: pd.DataFrame, items: gpd.GeoDataFrame, size_m: int
) -> np.ndarray:
    """Tell whether an item's footprint and files hold the whole patch.

    Parameters
    ----------
    pairs : `location`, `item`
    locations : `location`, `lon`, `lat`
    items : table `items`
    size_m : side of a patch
    """
    epsg = items["epsg"].to_numpy()[pairs["item"]]
    place = pairs[["location"]].assign(epsg=epsg).drop_duplicates()
    place = place[place["epsg"] > 0].merge(locations[["location", "lon", "lat"]], on="location")
    for code, group in place.groupby("epsg"):
        x, y = grid.project(group["lon"].to_numpy(), group["lat"].to_numpy(), code)
        left, top = grid.patch_origin(x, y, size_m)
        place.loc[group.index, "left"], place.loc[group.index, "top"] = left, top
    spot = pairs[["location"]].assign(epsg=epsg).merge(place, how="left", on=["location", "epsg"])
    left, top = (
        spot[name].to_numpy(float) if name in spot else np.full(len(pairs), np.nan)
        for name in ("left", "top")
    )
    of_item = {
        name: items[name].to_numpy(float)[pairs["item"]]
        for name in ("origin_x", "origin_y", "width_m", "height_m")
    }
    inside = np.isfinite(left)
    inside &= ~(left < of_item["origin_x"]) & ~(left + size_m > of_item["origin_x"] + of_item["width_m"])
    inside &= ~(top > of_item["origin_y"]) & ~(top - size_m < of_item["origin_y"] - of_item["height_m"])
    footprints = project_footprints(items)
    rows = np.flatnonzero(inside)
    margin = FOOTPRINT_TOLERANCE_M
    boxes = shapely.box(
        left[rows] + margin, top[rows] - size_m + margin, left[rows] + size_m - margin, top[rows] - margin
    )
    inside[rows] = shapely.covers(footprints[pairs["item"].to_numpy()[rows]], boxes)
    return inside


def project_footprints(items: gpd.GeoDataFrame) -> np.ndarray:
    """Project each footprint to the CRS of its scene, where a tile's edges are straight.

    There the parts of a footprint on both sides of the antimeridian meet again.
    """
    projected = np.full(len(items), shapely.Polygon(), object)
    codes = items["epsg"].to_numpy()
    geometry = items.geometry.to_numpy()
    for code in np.unique(codes[codes > 0]):
        rows = np.flatnonzero(codes == code)
        projected[rows] = shapely.transform(
            geometry[rows], lambda c, code=code: np.column_stack(grid.project(c[:, 0], c[:, 1], code))
        )
    several = shapely.get_type_id(projected) == shapely.GeometryType.MULTIPOLYGON
    projected[several] = shapely.buffer(projected[several], FOOTPRINT_TOLERANCE_M, join_style="mitre")
    shapely.prepare(projected)
    return projected


def same_products(
    kept: pd.DataFrame,
    items: gpd.GeoDataFrame,
    others: gpd.GeoDataFrame,
    locations: pd.DataFrame,
    size_m: int,
) -> pd.DataFrame:
    """Find each candidate's product in a second catalog.

    It is the item of the same data take and tile; of several, that of the same strip, then the newest
    processing. Its offset must be decided and it must hold the patch.

    Parameters
    ----------
    kept : candidates: `location`, `item` (row number in `items`) and further columns
    items, others : table `items` of the first and of the second catalog
    locations : `location`, `lon`, `lat`
    size_m : side of a patch

    Returns
    -------
    rows of `kept`, `item` being a row number in `others`
    """

    def keyed(table: pd.DataFrame, number: str) -> pd.DataFrame:
        take = table["datatake"].str.replace(r"_S\d{8}T\d{6}$", "", regex=True)
        return pd.DataFrame(
            {
                "take": take,
                "mgrs_tile": table["mgrs_tile"],
                f"strip_{number}": table["datatake"],
                number: range(len(table)),
            }
        )

    usable = keyed(others, "other")[(others["dn_offset"] >= 0).to_numpy()]
    twins = kept.merge(keyed(items, "item"), on="item").merge(usable, on=["take", "mgrs_tile"])
    twins["is_same"] = twins["strip_item"] == twins["strip_other"]
    twins["number"] = others["baseline"].map(bands.baseline_number).fillna(-1).to_numpy(float)[twins["other"]]
    twins["created"] = others["created"].to_numpy()[twins["other"]]
    twins["item"] = twins["other"]
    twins = twins[holds_patch(twins, locations, others, size_m)] if len(twins) else twins
    twins = twins.sort_values(["is_same", "number", "created"], na_position="first", kind="stable")
    twins = twins.drop_duplicates(["location", "season", "rank"], keep="last")
    return twins[list(kept.columns)].reset_index(drop=True)
