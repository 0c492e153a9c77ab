"""What a draw chooses from: ecoregions and strata of places, and the spacing that gives enough of them."""

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass

import geopandas as gpd
import numpy as np
import pandas as pd

from workflow_scripts.core.boundaries import nearest
from workflow_scripts.core.polygons import locate
from workflow_scripts.core.rasters import raster_values

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
CELLS_PER_LOCATION = 4
"""Where `stratified` derives its spacing from n_locations: cells to choose from per location."""


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


@dataclass(frozen=True)
class Strata:
    """What names the stratum of a place: a column of polygons, or a raster's band."""

    column: str
    """Column of the polygons; for a raster the number of its band."""
    polygons: gpd.GeoDataFrame | None = None
    """Sorted so that of two overlapping polygons the first one wins."""
    raster: str | None = None

    def labels(self) -> np.ndarray:
        """Name the stratum of each polygon."""
        return self.polygons[stratum_column(self.column)].map(stratum_label).to_numpy(object)


def add_ecoregions(
    places: pd.DataFrame,
    ecoregions: gpd.GeoDataFrame | None,
    strata: Strata | None,
    *,
    max_gap_km: float,
    is_land: np.ndarray | None,
) -> pd.DataFrame:
    """Add the ecoregion columns and the stratum to places.

    A place in two polygons goes to the one that comes first. A place on land in a gap (along
    simplified coasts) goes to the nearest polygon within `max_gap_km`.

    Parameters
    ----------
    places : `lon`, `lat`
    ecoregions : polygons with the columns of `ECOREGION_COLUMNS`, sorted by ECO_ID; or None
    strata : what names the stratum; None: all places are one
    is_land : where gaps may be filled; None where the land is not known (then nowhere)
    """
    gaps = {"max_gap_km": max_gap_km, "is_land": is_land}
    row = np.full(len(places), -1)
    if ecoregions is not None:
        row = _rows_of(places, ecoregions, what="ecoregions", **gaps)
    columns = {}
    for source, name in ECOREGION_COLUMNS.items():
        is_number = name in ("eco_id", "biome_num")
        if ecoregions is None:
            columns[name] = -1 if is_number else ""
        elif is_number:
            values = pd.to_numeric(ecoregions[source]).fillna(-1).to_numpy(int)
            columns[name] = np.where(row >= 0, values[np.maximum(row, 0)], -1)
        else:
            values = ecoregions[source].fillna("").astype(str).to_numpy(object)
            columns[name] = np.where(row >= 0, values[np.maximum(row, 0)], "")
    if strata is None:
        return places.assign(**columns, stratum=WHOLE)
    if strata.raster is not None:
        values = raster_values(places, strata.raster, int(strata.column))
        stratum = values.astype(object).map(stratum_label).to_numpy(object)
        return places.assign(**columns, stratum=stratum)
    if strata.polygons is not ecoregions:
        row = _rows_of(places, strata.polygons, what="strata", **gaps)
    return places.assign(
        **columns, stratum=np.where(row >= 0, strata.labels()[np.maximum(row, 0)], UNASSIGNED)
    )


def _rows_of(
    places: pd.DataFrame,
    polygons: gpd.GeoDataFrame,
    *,
    what: str,
    max_gap_km: float,
    is_land: np.ndarray | None,
) -> np.ndarray:
    """Give the row of each place's polygon, the nearest one in gaps on land, else -1."""
    row = locate(places["lon"], places["lat"], polygons)
    gap = np.flatnonzero((row < 0) & (is_land if is_land is not None else False))
    filled, distance = nearest(
        places["lon"].to_numpy()[gap], places["lat"].to_numpy()[gap], polygons, max_km=max_gap_km
    )
    row[gap] = filled
    n_filled, n_none = int((filled >= 0).sum()), int((row < 0).sum())
    logger.info(
        "%s: %d of %d points inside a polygon, %d from the nearest one within %g km "
        "(farthest %.1f km), %d unassigned",
        what, len(row) - n_filled - n_none, len(row), n_filled, max_gap_km,
        np.nanmax(distance) if n_filled else 0.0, n_none,
    )  # fmt: skip
    return row


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
