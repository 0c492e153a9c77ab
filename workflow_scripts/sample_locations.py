"""Choose the locations of a dataset and cut them into shards.

Reads: land, ecoregions and mountains (polygon files in any CRS), or the user's own points.
Writes: `locations.parquet` (one row per location, in an order compact in space; the row number is
the location's index in every store) and `jobs.json` (shards and the tiles they touch).

Designs: `grid` takes every cell of the Major-TOM grid whose center is on land, as SSL4Eco does;
`stratified` draws cells per stratum, spatially balanced and with known inclusion probabilities
(see `sampling/draw.py`); `file` takes the user's points.

The same settings give the same bytes. A larger `n_locations` at the same spacing keeps every location of
the smaller draw, its id and its split; the order of the rows, and so the shards, is made anew.
"""

import hashlib
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd

from workflow_scripts.core import grid
from workflow_scripts.core.polygons import locate, read_polygons
from workflow_scripts.core.stage import run_stage, write_json
from workflow_scripts.core.tables import COLUMNS, write_table
from workflow_scripts.sampling import frame, points
from workflow_scripts.sampling.designs import sample

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
    """Order the locations, cut them into shards and add `is_mountain`, `split` and the geometry."""
    chosen = chosen.sort_values("location_id", kind="stable").reset_index(drop=True)
    chosen = chosen.iloc[grid.compact_order(chosen["lon"], chosen["lat"])].reset_index(drop=True)
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


def _read_ecoregions(path: str, strata: str) -> gpd.GeoDataFrame:
    """Read ecoregions in the order that decides overlaps: lowest ECO_ID first."""
    columns = dict.fromkeys([*frame.ECOREGION_COLUMNS, frame.stratum_column(strata)])
    ecoregions = read_polygons(path, list(columns), key="locations.ecoregions")
    return ecoregions.sort_values("ECO_ID", kind="stable").reset_index(drop=True)


def _read_spread(path: str) -> pd.Series:
    table = pd.read_csv(path, dtype={"stratum": str}, keep_default_na=False)
    missing = [name for name in ("stratum", "spread") if name not in table.columns]
    if missing:
        raise ValueError(f"locations.spread: {path!r} lacks the column(s) {missing!r}")
    if table["stratum"].duplicated().any():
        repeated = table["stratum"][table["stratum"].duplicated()].unique()[:5].tolist()
        raise ValueError(f"locations.spread: {path!r} repeats the strata {repeated!r}")
    return table.set_index("stratum")["spread"].astype(float)


def _read_evaluation(paths: list[str]) -> pd.DataFrame | None:
    if not paths:
        return None
    key = "locations.evaluation.points"
    return pd.concat([points.read_points(path, key=key, need_ids=False) for path in paths])


def _file(files: str | Sequence[str]) -> str | None:
    """Give the one file of an input that may be empty."""
    return files if isinstance(files, str) else next(iter(files), None)


def main(job: Any) -> None:
    """Write `locations.parquet` and `jobs.json` of one dataset."""
    settings = job.params.settings
    names = ("land", "ecoregions", "mountains", "region", "path", "spread")
    path = {name: _file(getattr(job.input, name)) for name in names}
    if settings["design"] == "stratified" and path["ecoregions"] is None:
        raise ValueError(
            "locations.ecoregions is null, but design 'stratified' takes its strata from it. "
            "Set it to a file of ecoregion polygons, or use design 'grid'."
        )
    polygons = {
        name: read_polygons(path[name], key=f"locations.{name}") if path[name] else None
        for name in ("land", "mountains", "region")
    }
    chosen = sample(
        settings,
        land=polygons["land"],
        ecoregions=_read_ecoregions(path["ecoregions"], settings["strata"]) if path["ecoregions"] else None,
        region=settings["region"] if polygons["region"] is None else polygons["region"],
        user_points=points.read_points(path["path"], key="locations.path") if path["path"] else None,
        evaluation=_read_evaluation(list(job.input.evaluation)),
        spread=_read_spread(path["spread"]) if path["spread"] else None,
        size_m=job.params.size_m,
        seed=job.params.seed,
    )
    locations = finish(
        chosen,
        mountains=polygons["mountains"],
        splits=settings["splits"],
        per_shard=settings["per_shard"],
        seed=job.params.seed,
    )
    jobs = list_jobs(locations, per_shard=settings["per_shard"], size_m=job.params.size_m)
    write_table(locations, job.output.locations, "locations")
    write_json(job.output.jobs, jobs)


if "snakemake" in globals():
    run_stage(main, snakemake)  # noqa: F821
