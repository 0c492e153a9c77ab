"""Choose the locations of a dataset and cut them into shards.

Reads: land, region, what is excluded, ecoregions, strata and mountains (polygon files in any CRS, or a
raster for the strata), or the user's own points.
Writes: `locations.parquet` (one row per location, in an order compact in space; the row number is
the location's index in every store), `jobs.json` (shards and the tiles they touch) and
`sampling.json` (what was chosen from: areas and places per stratum and ecoregion).

Designs: `grid` takes every cell of the Major-TOM grid whose center is on land, as SSL4Eco does;
`stratified` draws cells per stratum, spatially balanced and with known inclusion probabilities
(see `sampling/draw.py`); `file` takes the user's points.

The same settings give the same bytes. A larger `n_locations` at the same spacing keeps every location of
the smaller draw, its id and its split; with the smaller number in `rounds` it keeps its row, too.
"""

import hashlib
import logging
from collections.abc import Mapping
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd

from workflow_scripts.core import grid
from workflow_scripts.core.land import read_ground
from workflow_scripts.core.polygons import locate, read_polygons
from workflow_scripts.core.stage import run_stage, write_json
from workflow_scripts.core.tables import COLUMNS, write_table
from workflow_scripts.sampling import inputs
from workflow_scripts.sampling.designs import sample
from workflow_scripts.sampling.points import read_points
from workflow_scripts.sampling.summary import summarize

logger = logging.getLogger(__name__)


def split_by_blocks(
    lon: np.ndarray, lat: np.ndarray, *, validation_fraction: float, block_km: float, seed: int
) -> np.ndarray:
    """Assign each location to "train" or "validation" by the block it lies in.

    Blocks are cells of a coarse Major-TOM grid. Each is drawn on its own, by a hash of its name and
    the seed, so a location keeps its split whatever others there are; the fraction holds on average.
    """
    blocks = grid.cell_at(lon, lat, block_km * 1000)
    names, block = np.unique(blocks.astype(str), return_inverse=True)
    digests = (hashlib.sha256(f"{seed}\nsplit\n{name}".encode()).digest()[:8] for name in names)
    uniform = np.array([int.from_bytes(digest, "big") / 2**64 for digest in digests])
    return np.where(uniform < validation_fraction, "validation", "train").astype(object)[block]


def finish(
    chosen: pd.DataFrame,
    *,
    mountains: gpd.GeoDataFrame | None,
    splits: Mapping[str, float],
    per_shard: int,
    seed: int,
) -> gpd.GeoDataFrame:
    """Order the locations, cut them into shards and add `is_mountain`, `split` and the geometry.

    Each round of sampling follows the earlier ones and is compact in space by itself, so that an
    enlargement appends rows and completes the last shard.
    """
    chosen = chosen.sort_values("location_id", kind="stable").reset_index(drop=True)
    chosen = chosen.iloc[grid.compact_order(chosen["lon"], chosen["lat"])]
    chosen = chosen.sort_values("round", kind="stable").reset_index(drop=True)
    lon, lat = chosen["lon"].to_numpy(float), chosen["lat"].to_numpy(float)
    chosen["shard"] = np.arange(len(chosen)) // per_shard
    chosen["is_mountain"] = locate(lon, lat, mountains) >= 0 if mountains is not None else False
    chosen["split"] = split_by_blocks(lon, lat, **splits, seed=seed)
    share = (chosen["split"] == "validation").mean()
    logger.info(
        "%d locations; %.1f %% in mountains, %.1f %% for validation (asked for: %.1f %%)",
        len(chosen), 100 * chosen["is_mountain"].mean(), 100 * share,
        100 * splits["validation_fraction"],
    )  # fmt: skip
    if splits["validation_fraction"] > 0 and share == 0:
        logger.warning(
            "no location is for validation: blocks of %g km are few here. Lower splits.block_km.",
            splits["block_km"],
        )
    columns = [name for name in COLUMNS["locations"] if name != "geometry"]
    return gpd.GeoDataFrame(chosen[columns], geometry=gpd.points_from_xy(lon, lat), crs=4326)


def list_jobs(locations: pd.DataFrame, *, per_shard: int, size_m: int) -> dict[str, Any]:
    """List the shards with the Sentinel-2 tiles they touch, and all sinusoidal tiles."""
    lon, lat = locations["lon"].to_numpy(), locations["lat"].to_numpy()
    tiles = grid.mgrs_tiles(lon, lat, size_m)
    shards = {}
    for shard, first in enumerate(range(0, len(locations), per_shard)):
        last = min(first + per_shard, len(locations))
        touched = sorted({tile for some in tiles[first:last] for tile in some})
        shards[str(shard)] = {"first": first, "last": last, "mgrs_tiles": touched}
    return {
        "n_locations": len(locations),
        "per_shard": per_shard,
        "shards": shards,
        "modis_tiles": sorted(set(grid.modis_tile(lon, lat))),
    }


def main(job: Any) -> None:
    """Write `locations.parquet`, `jobs.json` and `sampling.json` of one dataset."""
    settings = job.params.settings
    names = ("land", "ecoregions", "mountains", "region", "path", "spread", "strata_path", "strata_areas")
    path = {name: inputs.one(getattr(job.input, name)) for name in names}
    if settings["design"] == "stratified" and path["ecoregions"] is None and path["strata_path"] is None:
        raise ValueError(
            "locations.ecoregions is null, but design 'stratified' takes its strata from it. Set it to a "
            "file of ecoregion polygons, or locations.strata_path to other polygons or a raster, or use "
            "design 'grid'."
        )
    column = str(settings["strata"])
    ecoregions = inputs.read_ecoregions(path["ecoregions"], column if path["strata_path"] is None else "")
    sampled = sample(
        settings,
        ground=read_ground(path["land"], path["region"], job.input.exclude, settings=settings),
        ecoregions=ecoregions,
        strata=inputs.read_strata(path["strata_path"], column, ecoregions),
        user_points=read_points(path["path"], key="locations.path") if path["path"] else None,
        evaluation=inputs.read_evaluation(job.input.evaluation),
        stratum_values={
            name: inputs.read_stratum_values(path[option], name, key=f"locations.{option}")
            for option, name in (("spread", "spread"), ("strata_areas", "area_km2"))
        },
        size_m=job.params.size_m,
        seed=job.params.seed,
    )
    mountains = path["mountains"] and read_polygons(path["mountains"], key="locations.mountains")
    locations = finish(
        sampled.locations,
        mountains=mountains,
        splits=settings["splits"],
        per_shard=settings["per_shard"],
        seed=job.params.seed,
    )
    jobs = list_jobs(locations, per_shard=settings["per_shard"], size_m=job.params.size_m)
    write_table(locations, job.output.locations, "locations")
    write_json(job.output.sampling, summarize(sampled, design=settings["design"], seed=job.params.seed))
    write_json(job.output.jobs, jobs)


if "snakemake" in globals():
    run_stage(main, snakemake)  # noqa: F821
