"""Put the outcomes of all shards into the dataset's index.

Reads : retrieved/{shard}.parquet of all shards; locations.parquet.
Writes: patches.parquet (GeoParquet), table `patches`: one row per location and season, also those
        without a patch, with status and reason; the patch's footprint is the geometry.

`is_complete` marks locations with at least two seasons, the least that training can compare
(SSL4Eco keeps locations with two or three of the four).
"""

import logging
from collections.abc import Sequence
from types import SimpleNamespace

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely

from workflow_scripts.core import grid, tables
from workflow_scripts.core.stage import run_stage

logger = logging.getLogger(__name__)

MIN_SEASONS = 2
"""Seasons a location needs to be used in training."""
EDGE_POINTS = 5
"""Points along each edge of a footprint: straight lines of UTM are bent in degrees."""


def footprints(patches: pd.DataFrame, size_m: int) -> np.ndarray:
    """Draw each patch as a polygon of longitude and latitude.

    Parameters
    ----------
    patches : `epsg` (0: no patch), `origin_x`, `origin_y`
    size_m : side of a patch

    Returns
    -------
    array of polygons, MultiPolygon where the antimeridian cuts one, None without patch
    """
    result = np.full(len(patches), None, object)
    step = np.linspace(0, 1, EDGE_POINTS)[:-1]
    zero, one = np.zeros_like(step), np.ones_like(step)
    across = np.concatenate([step, one, 1 - step, zero]) * size_m
    down = np.concatenate([zero, step, one, 1 - step]) * size_m
    codes = patches["epsg"].to_numpy()
    for code in np.unique(codes[codes > 0]):
        rows = np.flatnonzero(codes == code)
        x = patches["origin_x"].to_numpy()[rows, None] + across
        y = patches["origin_y"].to_numpy()[rows, None] - down
        lon, lat = grid.unproject(x, y, int(code))
        for row, ring_lon, ring_lat in zip(rows, lon, lat, strict=True):
            result[row] = _polygon(ring_lon, ring_lat)
    return result


def _polygon(lon: np.ndarray, lat: np.ndarray) -> shapely.Geometry:
    if np.ptp(lon) < 180:
        return shapely.Polygon(np.column_stack([lon, lat]))
    whole = shapely.Polygon(np.column_stack([np.where(lon < 0, lon + 360, lon), lat]))
    east = shapely.intersection(whole, shapely.box(0, -90, 180, 90))
    west = shapely.transform(
        shapely.intersection(whole, shapely.box(180, -90, 360, 90)), lambda c: c - [360, 0]
    )
    return shapely.MultiPolygon([east, west])


def index(retrieved: pd.DataFrame, locations: pd.DataFrame, *, size_m: int) -> gpd.GeoDataFrame:
    """Make the index of a dataset.

    Parameters
    ----------
    retrieved : table `retrieved` of all shards
    locations : `location_id`, `lon`, `lat`
    size_m : side of a patch

    Raises
    ------
    ValueError
        If a location and season stands twice, or a location is missing or unknown.
    """
    key = ["location_id", "season"]
    twice = retrieved[retrieved.duplicated(key)]
    if len(twice):
        first = twice.iloc[0]
        raise ValueError(
            f"{first['location_id']!r}, {first['season']} was retrieved by two shards "
            f"({len(twice)} such patches). Delete retrieved/ and run again."
        )
    differing = set(retrieved["location_id"]) ^ set(locations["location_id"])
    if differing:
        raise ValueError(
            f"{len(differing)} locations stand in only one of locations.parquet and the retrieved "
            f"tables, such as {sorted(differing)[:3]}. Delete the tables of retrieved/ that are older."
        )
    patches = retrieved.drop(columns="screened").merge(locations, on="location_id", how="left")
    n_there = (patches["status"] == "ok").groupby(patches["location_id"]).transform("sum")
    patches["is_complete"] = (n_there >= MIN_SEASONS).to_numpy()
    patches["geometry"] = footprints(patches, size_m)
    patches = patches.sort_values("location", kind="stable", ignore_index=True)
    return gpd.GeoDataFrame(patches, geometry="geometry", crs=4326)


def check_not_empty(patches: pd.DataFrame, dataset: str, settings: dict) -> None:
    """Refuse a dataset without a single patch.

    Raises
    ------
    RuntimeError
        With the reasons and what to change.
    """
    if (patches["status"] == "ok").any():
        return
    reasons = patches["reason"].value_counts()
    listed = ", ".join(f"{reason} {n}" for reason, n in reasons.items())
    raise RuntimeError(
        f"dataset {dataset!r}: none of {len(patches)} location-seasons has a patch ({listed}). "
        f"Catalog {settings['catalog']!r} was searched for {settings['years'][0]} to "
        f"{settings['years'][1]}: check scenes.catalog, scenes.years and scenes.max_cloud_cover in "
        "config.yaml; `python -m workflow_scripts.explain LOCATION_ID` tells what was tried."
    )


def read_retrieved(paths: Sequence[str]) -> pd.DataFrame:
    """Read the tables of all shards."""
    return pd.concat([tables.read_table(path, "retrieved") for path in paths], ignore_index=True)


def main(job: SimpleNamespace) -> None:
    """Index the patches of a dataset; see the module's docstring."""
    locations = tables.read_table(job.input.locations, "locations", ["location_id", "lon", "lat"])
    patches = index(read_retrieved(list(job.input.retrieved)), locations, size_m=job.params.size_m)
    check_not_empty(patches, job.wildcards.dataset, job.params.scenes)
    tables.write_table(patches, job.output.patches, "patches")
    is_there = patches["status"] == "ok"
    logger.info(
        "%d of %d patches; %d of %d locations have %d seasons or more; missing: %s",
        is_there.sum(),
        len(patches),
        patches.drop_duplicates("location_id")["is_complete"].sum(),
        len(locations),
        MIN_SEASONS,
        patches.loc[~is_there, "reason"].value_counts().to_dict(),
    )


if "snakemake" in globals():
    run_stage(main, snakemake)  # noqa: F821
