"""The three designs: every cell of the grid, a stratified draw of cells, the user's own points."""

import logging
from collections.abc import Mapping
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd

from workflow_scripts.core.polygons import locate
from workflow_scripts.sampling import draw, frame, points

logger = logging.getLogger(__name__)

AREA_WEIGHTS = {
    "proportional": lambda area, spread: area,
    "sqrt": lambda area, spread: np.sqrt(area),
    "equal": lambda area, spread: area * 0 + 1.0,
    "neyman": lambda area, spread: area * spread,
}
"""Share of a stratum from its land area (km²) and the user's spread of the quantity studied."""


def sample(
    settings: Mapping[str, Any],
    *,
    land: gpd.GeoDataFrame | None,
    ecoregions: gpd.GeoDataFrame | None,
    region: list[float] | gpd.GeoDataFrame | None,
    user_points: pd.DataFrame | None,
    evaluation: pd.DataFrame | None,
    spread: pd.Series | None,
    size_m: int,
    seed: int,
) -> pd.DataFrame:
    """Choose locations by the design.

    Parameters
    ----------
    settings : section `locations` of a dataset
    land, ecoregions, region : polygons (a box for `region`), None where not configured
    user_points : the points of design `file`
    evaluation : points to keep away from
    spread : index stratum, for allocation `neyman`
    size_m : side of a patch
    seed : config seed

    Returns
    -------
    DataFrame with `location_id`, `lon`, `lat`, the ecoregion columns, `stratum`,
    `inclusion_probability` (1 where every cell is taken, NaN for the user's points) and
    `distance_to_evaluation_km` (NaN without evaluation points)
    """
    if settings["design"] == "file":
        return _take_points(settings, user_points, land=land, ecoregions=ecoregions, evaluation=evaluation)
    spacing_m = _spacing(settings, land=land, region=region, size_m=size_m)
    cells = frame.land_cells(spacing_m, land=land, region=region)
    if cells.empty:
        raise ValueError(
            f"no cell center at spacing_m = {spacing_m:g} lies on land within locations.region = "
            f"{settings['region']!r}. Check that region and land overlap, or lower spacing_m."
        )
    cells = frame.add_ecoregions(
        cells,
        ecoregions,
        strata=settings["strata"],
        max_gap_km=settings["max_gap_km"],
        is_land=np.ones(len(cells), bool),
    )
    cells["area_km2"] = frame.cell_area_km2(cells)
    cells = cells.rename(columns={"cell_id": "location_id"}).astype({"location_id": object})
    logger.info("%d cells on land at %g m: %.0f km2", len(cells), spacing_m, cells["area_km2"].sum())
    cells = _away_from_evaluation(cells, evaluation, settings["evaluation"])
    if settings["design"] == "grid":
        return cells.assign(inclusion_probability=1.0)
    return _draw_stratified(cells, settings, spread=spread, seed=seed)


def _spacing(
    settings: Mapping[str, Any],
    *,
    land: gpd.GeoDataFrame | None,
    region: list[float] | gpd.GeoDataFrame | None,
    size_m: int,
) -> float:
    """Check the budget and give the spacing, derived from `n_locations` where it is null."""
    design, spacing_m, n = (settings[key] for key in ("design", "spacing_m", "n_locations"))
    if land is None:
        raise ValueError(
            f"locations.land is null, but design {design!r} takes cells on land. "
            "Set it to a file of land polygons."
        )
    if spacing_m is None and n is None:
        raise ValueError("locations.spacing_m and locations.n_locations are both null. Set one.")
    if design == "grid" and spacing_m is not None and n is not None:
        raise ValueError(
            f"locations: design 'grid' takes every cell, so spacing_m = {spacing_m!r} and n_locations = "
            f"{n!r} cannot both hold. Set one of them to null: it is derived from the other."
        )
    if spacing_m is None:
        wanted = n if design == "grid" else n * frame.CELLS_PER_LOCATION
        spacing_m = frame.spacing_for(
            wanted,
            lambda spacing: len(frame.land_cells(spacing, land=land, region=region)),
            minimum_m=size_m,
        )
        logger.info("spacing_m derived from n_locations = %d: %g m", n, spacing_m)
    if spacing_m < size_m:
        logger.warning(
            "locations.spacing_m = %g is below patches.size_m = %d: patches of neighbors overlap",
            spacing_m, size_m,
        )  # fmt: skip
    return spacing_m


def _draw_stratified(
    cells: pd.DataFrame, settings: Mapping[str, Any], *, spread: pd.Series | None, seed: int
) -> pd.DataFrame:
    """Allocate the budget to strata and draw."""
    outside = cells["stratum"] == frame.UNASSIGNED
    if outside.any():
        logger.warning(
            "%d of %d cells (%.2f %% of the land area) lie in no stratum and cannot be drawn; "
            "locations.max_gap_km = %g reaches no polygon from them",
            outside.sum(), len(cells),
            100 * cells.loc[outside, "area_km2"].sum() / cells["area_km2"].sum(),
            settings["max_gap_km"],
        )  # fmt: skip
        cells = cells[~outside].reset_index(drop=True)
    if cells.empty:
        raise ValueError(
            "locations: no cell on land lies in a stratum. Do locations.ecoregions and "
            "locations.land cover the same region?"
        )
    strata = cells.groupby("stratum")["area_km2"].agg(["sum", "size"])
    if settings["allocation"] == "neyman":
        spread = _spread_of(strata.index, spread)
    weights = AREA_WEIGHTS[settings["allocation"]](strata["sum"], spread)
    limits = {"minimum": settings["min_per_stratum"], "maximum": settings["max_per_stratum"]}
    n = settings["n_locations"]
    if n is None:
        n = int(strata["size"].clip(upper=limits["maximum"]).sum())
        logger.warning(
            "locations.n_locations is null: all %d cells are taken%s, whatever the allocation", n,
            "" if limits["maximum"] is None else f", at most {limits['maximum']} per stratum",
        )  # fmt: skip
    counts = draw.allocate(n, weights, strata["size"], **limits)
    drawn = draw.draw(cells, counts, seed=seed)
    logger.info(
        "drew %d of %d cells in %d strata (%d to %d per stratum): one location for each %.0f km2",
        len(drawn), len(cells), len(counts), counts.min(), counts.max(), strata["sum"].sum() / n,
    )  # fmt: skip
    return drawn


def _spread_of(strata: pd.Index, spread: pd.Series | None) -> pd.Series:
    if spread is None:
        raise ValueError(
            "locations.allocation = 'neyman' needs locations.spread, a table with columns "
            "'stratum' and 'spread' (standard deviation within the stratum)"
        )
    missing = [name for name in strata if name not in spread.index]
    if missing:
        raise ValueError(
            f"locations.spread has no row for {len(missing)} of {len(strata)} strata: {missing[:10]!r}"
        )
    return spread.reindex(strata)


def _take_points(
    settings: Mapping[str, Any],
    user_points: pd.DataFrame | None,
    *,
    land: gpd.GeoDataFrame | None,
    ecoregions: gpd.GeoDataFrame | None,
    evaluation: pd.DataFrame | None,
) -> pd.DataFrame:
    """Take the user's points as they are, and record where they lie."""
    if user_points is None:
        raise ValueError("locations.path is null, but design 'file' reads the locations from it")
    for key in ("region", "n_locations"):
        if settings[key] is not None:
            raise ValueError(
                f"locations.{key} = {settings[key]!r}: design 'file' takes every point of the file. "
                f"Set {key} to null."
            )
    is_land = None if land is None else locate(user_points["lon"], user_points["lat"], land) >= 0
    chosen = frame.add_ecoregions(
        user_points,
        ecoregions,
        strata=settings["strata"],
        max_gap_km=settings["max_gap_km"],
        is_land=is_land,
    )
    if is_land is not None and not is_land.all():
        sea = user_points["location_id"][~is_land]
        logger.warning(
            "%d of %d locations lie outside the land polygons and are kept: %s",
            len(sea), len(chosen), ", ".join(sea[:10]),
        )  # fmt: skip
    unassigned = chosen["location_id"][chosen["stratum"] == frame.UNASSIGNED]
    if len(unassigned):
        logger.warning(
            "%d of %d locations lie in no ecoregion (eco_id -1): %s",
            len(unassigned), len(chosen), ", ".join(unassigned[:10]),
        )  # fmt: skip
    chosen["inclusion_probability"] = np.nan
    chosen["distance_to_evaluation_km"] = np.nan
    if evaluation is not None:
        chosen["distance_to_evaluation_km"] = points.distance_to_points_km(chosen, evaluation)
        near = chosen["distance_to_evaluation_km"] < settings["evaluation"]["min_distance_km"]
        if near.any():
            logger.warning(
                "%d of %d locations lie nearer than %g km to an evaluation point and are kept",
                near.sum(), len(chosen), settings["evaluation"]["min_distance_km"],
            )  # fmt: skip
    return chosen


def _away_from_evaluation(
    cells: pd.DataFrame, evaluation: pd.DataFrame | None, settings: Mapping[str, Any] | None
) -> pd.DataFrame:
    """Add the distance to the evaluation points and drop cells that are too near, before the draw."""
    if evaluation is None:
        return cells.assign(distance_to_evaluation_km=np.nan)
    cells = cells.assign(distance_to_evaluation_km=points.distance_to_points_km(cells, evaluation))
    far = cells["distance_to_evaluation_km"] >= settings["min_distance_km"]
    logger.info(
        "%d of %d cells dropped: nearer than %g km to one of %d evaluation points",
        (~far).sum(), len(cells), settings["min_distance_km"], len(evaluation),
    )  # fmt: skip
    if not far.any():
        raise ValueError(
            f"all {len(cells)} cells lie within locations.evaluation.min_distance_km = "
            f"{settings['min_distance_km']:g} of an evaluation point. Lower it."
        )
    return cells[far].reset_index(drop=True)
