"""The three designs: every cell of the grid, a stratified draw of cells, the user's own points."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd

from workflow_scripts.core import grid
from workflow_scripts.core.land import Ground, land_cells
from workflow_scripts.core.polygons import locate
from workflow_scripts.sampling import draw, frame, points, slivers
from workflow_scripts.sampling.frame import Strata

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sample:
    """What a design chose, and what it chose from."""

    locations: pd.DataFrame
    """`location_id`, `lon`, `lat`, the ecoregion columns, `stratum`, `inclusion_probability` (1 where
    every place is taken, NaN for the user's points), `distance_to_evaluation_km` (NaN without
    evaluation points), `round`."""
    places: pd.DataFrame | None = None
    """All that could be drawn, with `area_km2`; None for the user's points."""
    spacing_m: float | None = None
    missed: pd.DataFrame | None = None
    """`stratum`, `area_km2`: strata that hold no location of the grid."""


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
    ground: Ground | None,
    ecoregions: gpd.GeoDataFrame | None,
    strata: Strata | None,
    user_points: pd.DataFrame | None,
    evaluation: pd.DataFrame | None,
    stratum_values: Mapping[str, pd.Series | None],
    size_m: int,
    seed: int,
) -> Sample:
    """Choose locations by the design.

    Parameters
    ----------
    settings : section `locations` of a dataset
    ground : where locations may lie; None where no land is configured
    ecoregions, strata : None where not configured
    user_points : the points of design `file`
    evaluation : points to keep away from
    stratum_values : `spread` for allocation `neyman`, `area_km2` of `strata_areas`; index stratum
    size_m : side of a patch
    seed : config seed
    """
    if settings["design"] == "file":
        return _take_points(
            settings, user_points, ground=ground, ecoregions=ecoregions, strata=strata, evaluation=evaluation
        )
    spacing_m, cells_at = _grid(settings, ground=ground, size_m=size_m, seed=seed)
    cells = cells_at(spacing_m)
    cells["area_km2"] = grid.cell_area_km2(cells)
    has_polygon_places, n_cells = settings["place"] == "polygon", len(cells)
    if has_polygon_places:
        islands = slivers.island_places(
            cells, ground, spacing_m=spacing_m, size_m=size_m, land_fraction=settings["land_fraction"]
        )
        cells = pd.concat([cells, islands], ignore_index=True) if len(islands) else cells
    if cells.empty:
        raise ValueError(
            f"no location at spacing_m = {spacing_m:g} lies on land within locations.region = "
            f"{settings['region']!r}. Check that region and land overlap, or lower spacing_m."
        )
    gap = {"max_gap_km": settings["max_gap_km"]}
    cells = frame.add_ecoregions(cells, ecoregions, strata, is_land=np.ones(len(cells), bool), **gap)
    missed = None
    if strata is not None and strata.polygons is not None:
        missed = slivers.missed_strata(cells.iloc[:n_cells], strata, ground)
        lacking = missed[~missed["stratum"].isin(cells["stratum"])]
        if has_polygon_places and len(lacking):
            added = _places_of(lacking, set(cells["cell_id"]), ecoregions, strata, spacing_m=spacing_m)
            cells = pd.concat([cells, added], ignore_index=True)
        _tell_missed(missed, set(cells["stratum"]))
    cells = cells.rename(columns={"cell_id": "location_id"}).astype({"location_id": object})
    logger.info("%d places on land at %g m: %.0f km2", len(cells), spacing_m, cells["area_km2"].sum())
    cells = _away_from_evaluation(cells, evaluation, settings["evaluation"])
    if settings["design"] == "grid":
        chosen = cells.assign(inclusion_probability=1.0, round=0)
    else:
        chosen = _draw_stratified(cells, settings, stratum_values=stratum_values, seed=seed)
    return Sample(chosen, places=cells, spacing_m=spacing_m, missed=missed)


def _grid(
    settings: Mapping[str, Any], *, ground: Ground | None, size_m: int, seed: int
) -> tuple[float, Callable[[float], pd.DataFrame]]:
    """Check the budget; give the spacing, derived from `n_locations` where null, and what lists cells."""
    design, spacing_m, n = (settings[key] for key in ("design", "spacing_m", "n_locations"))
    if ground is None:
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
    if settings["rounds"] and (design == "grid" or spacing_m is None or n is None):
        raise ValueError(
            f"locations.rounds = {settings['rounds']!r} needs design 'stratified' (or 'file') with both "
            "spacing_m and n_locations: only then are the earlier locations among the later ones"
        )
    offset = None
    if settings["place"] == "random_offset":
        offset = tuple(draw.stratum_rng(seed, "random_offset").uniform(size=2))
        logger.info("place: random_offset: %.4f of each cell's width, %.4f of its area", *offset)

    def cells_at(spacing: float) -> pd.DataFrame:
        return land_cells(
            spacing, ground=ground, offset=offset, land_fraction=settings["land_fraction"], size_m=size_m
        )

    if spacing_m is None:
        wanted = n if design == "grid" else n * frame.CELLS_PER_LOCATION
        spacing_m = frame.spacing_for(wanted, lambda spacing: len(cells_at(spacing)), minimum_m=size_m)
        logger.info("spacing_m derived from n_locations = %d: %g m", n, spacing_m)
    if spacing_m < size_m:
        logger.warning(
            "locations.spacing_m = %g is below patches.size_m = %d: patches of neighbors overlap",
            spacing_m, size_m,
        )  # fmt: skip
    return spacing_m, cells_at


def _places_of(
    missed: gpd.GeoDataFrame,
    taken: set[str],
    ecoregions: gpd.GeoDataFrame | None,
    strata: Strata,
    *,
    spacing_m: float,
) -> pd.DataFrame:
    """Give places inside strata that hold no location of the grid, with ecoregion and stratum."""
    places = slivers.stratum_places(missed, taken, spacing_m=spacing_m)
    is_missed = np.isin(strata.labels(), missed["stratum"].to_numpy(object))
    own = Strata(strata.column, polygons=strata.polygons[is_missed].reset_index(drop=True))
    regions = own.polygons if strata.polygons is ecoregions else ecoregions
    stratum = places["stratum"]
    places = frame.add_ecoregions(places, regions, own, max_gap_km=0, is_land=None)
    return places.assign(stratum=stratum)


def _tell_missed(missed: pd.DataFrame, held: set[str]) -> None:
    """Log the strata that hold no location of the grid, and whether they got places of their own."""
    if missed.empty:
        return
    lacking = missed[~missed["stratum"].isin(held)].sort_values("area_km2", ascending=False)
    logger.info(
        "%d strata hold no location of the grid (%.0f km2 in all); %d of them got places of their own",
        len(missed), missed["area_km2"].sum(), len(missed) - len(lacking),
    )  # fmt: skip
    if len(lacking):
        listed = ", ".join(f"{r.stratum} ({r.area_km2:.0f} km2)" for r in lacking.head(10).itertuples())
        logger.warning(
            "%d strata cannot be drawn, largest first: %s. locations.place: polygon hits them.",
            len(lacking), listed,
        )  # fmt: skip


def _draw_stratified(
    cells: pd.DataFrame,
    settings: Mapping[str, Any],
    *,
    stratum_values: Mapping[str, pd.Series | None],
    seed: int,
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
            "locations: no place on land lies in a stratum. Do locations.land and the polygons or raster "
            "that name the strata cover the same region?"
        )
    strata = cells.groupby("stratum")["area_km2"].agg(["sum", "size"])
    areas, spread = strata["sum"], None
    if stratum_values["area_km2"] is not None:
        areas = _values_of(strata.index, stratum_values["area_km2"], key="locations.strata_areas")
        if not (np.isfinite(areas) & (areas > 0)).all():
            wrong = areas[~(np.isfinite(areas) & (areas > 0))].iloc[:5].to_dict()
            raise ValueError(
                f"locations.strata_areas: the area of a stratum must be above 0 km2; found {wrong!r}. "
                "Correct the table, or leave such strata out with locations.exclude."
            )
    if settings["allocation"] == "neyman":
        if stratum_values["spread"] is None:
            raise ValueError(
                "locations.allocation = 'neyman' needs locations.spread, a table with columns "
                "'stratum' and 'spread' (standard deviation within the stratum)"
            )
        spread = _values_of(strata.index, stratum_values["spread"], key="locations.spread")
        if not (np.isfinite(spread) & (spread >= 0)).all():
            wrong = spread[~(np.isfinite(spread) & (spread >= 0))].iloc[:5].to_dict()
            raise ValueError(
                f"locations.spread: the spread of a stratum must be a finite number, 0 or above; found {wrong!r}. "
                "Correct the table."
            )
    weights = AREA_WEIGHTS[settings["allocation"]](areas, spread)
    limits = {"minimum": settings["min_per_stratum"], "maximum": settings["max_per_stratum"]}
    n = settings["n_locations"]
    if n is None:
        n = int(strata["size"].clip(upper=limits["maximum"]).sum())
        logger.warning(
            "locations.n_locations is null: all %d places are taken%s, whatever the allocation", n,
            "" if limits["maximum"] is None else f", at most {limits['maximum']} per stratum",
        )  # fmt: skip
    counts = draw.allocate(n, weights, strata["size"], **limits)
    earlier = [draw.allocate(size, weights, strata["size"], **limits) for size in _rounds(settings, n)]
    drawn = draw.draw(cells, counts, seed=seed, earlier=earlier)
    logger.info(
        "drew %d of %d places in %d strata (%d to %d per stratum): one location for each %.0f km2",
        len(drawn), len(cells), len(counts), counts.min(), counts.max(), strata["sum"].sum() / n,
    )  # fmt: skip
    return drawn


def _values_of(strata: pd.Index, values: pd.Series, *, key: str) -> pd.Series:
    missing = [name for name in strata if name not in values.index]
    if missing:
        raise ValueError(f"{key} has no row for {len(missing)} of {len(strata)} strata: {missing[:10]!r}")
    return values.reindex(strata)


def _rounds(settings: Mapping[str, Any], n: int) -> list[int]:
    """Check the sizes of the earlier rounds and give them."""
    rounds = list(settings["rounds"])
    if sorted(set(rounds)) != rounds or (rounds and rounds[-1] >= n):
        raise ValueError(
            f"locations.rounds = {rounds!r} must increase and stay below the {n} locations there are now: "
            "they are the numbers of locations before each enlargement"
        )
    return rounds


def _take_points(
    settings: Mapping[str, Any],
    user_points: pd.DataFrame | None,
    *,
    ground: Ground | None,
    ecoregions: gpd.GeoDataFrame | None,
    strata: Strata | None,
    evaluation: pd.DataFrame | None,
) -> Sample:
    """Take the user's points as they are, and record where they lie."""
    if user_points is None:
        raise ValueError("locations.path is null, but design 'file' reads the locations from it")
    for key in ("region", "n_locations"):
        if settings[key] is not None:
            raise ValueError(
                f"locations.{key} = {settings[key]!r}: design 'file' takes every point of the file. "
                f"Set {key} to null."
            )
    lon, lat = user_points["lon"].to_numpy(), user_points["lat"].to_numpy()
    is_land = None if ground is None else locate(lon, lat, ground.land) >= 0
    chosen = frame.add_ecoregions(
        user_points, ecoregions, strata, max_gap_km=settings["max_gap_km"], is_land=is_land
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
    chosen["round"] = np.searchsorted(_rounds(settings, len(chosen)), np.arange(len(chosen)), side="right")
    chosen["distance_to_evaluation_km"] = np.nan
    if evaluation is not None:
        chosen["distance_to_evaluation_km"] = points.distance_to_points_km(chosen, evaluation)
        near = chosen["distance_to_evaluation_km"] < settings["evaluation"]["min_distance_km"]
        if near.any():
            logger.warning(
                "%d of %d locations lie nearer than %g km to an evaluation point and are kept",
                near.sum(), len(chosen), settings["evaluation"]["min_distance_km"],
            )  # fmt: skip
    return Sample(chosen)


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
