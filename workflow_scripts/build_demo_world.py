"""Build the made world: maps, composites, scenes, their catalogs, and the truth beside them.

Writes, below the folder of `scenes`: `land`, `ecoregions`, `mountains` (GeoParquet), `climate`
(GeoTIFF), `modis/` and `scenes/` (GeoTIFF, listed in the catalogs), `modis` and `scenes`
(stac-geoparquet, hrefs relative to their folder), `modis_json` and `scenes_json` (ItemCollections),
`truth_phenology` and `truth_ndvi`. Same seed, same values, whatever the number of processes.

The files of scenes and composites are not outputs of their own: a build begins by removing them
and ends with the catalog of scenes, so whoever has `scenes` has them all. The world is described in
`workflow_scripts/demo/parameters.py`.
"""

import logging
import multiprocessing
import shutil
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from workflow_scripts.core.stage import atomic_path, run_stage
from workflow_scripts.demo import geography, items, modis, truth
from workflow_scripts.demo.acquisitions import Scene, scenes
from workflow_scripts.demo.parameters import Island, World
from workflow_scripts.demo.sentinel2 import write_scene

logger = logging.getLogger(__name__)

SCENES_PER_TASK = 20
OUTDATED_COMPOSITE = 5
"""This composite of the first year has two production runs; catalogs keep both."""


def _write_scenes(group: list[Scene], *, world: World, folder: Path) -> list[dict]:
    counts = [write_scene(world, scene, folder / "scenes" / scene.item_id) for scene in group]
    return [items.scene_item(world, scene, count) for scene, count in zip(group, counts, strict=True)]


def _write_composites(task: tuple[Island, int], *, world: World, folder: Path) -> list[dict]:
    island, year = task
    place = f"modis/{modis.tile_of(island)}"
    days = modis.first_days(year)
    runs = [(day, 0) for day in days]
    if year == world.modis_years[0]:
        runs.append((days[OUTDATED_COMPOSITE], 1))
    listed = []
    for day, version in runs:
        modis.write_composite(world, island, day, folder / place, version=version)
        listed.append(items.modis_item(island, day, place, version=version))
    if year == world.modis_years[0]:
        for day in days[: world.aqua_items]:
            listed.append(items.modis_item(island, day + 8, place, platform="aqua"))
    return listed


def _truth(island: Island, *, world: World) -> tuple[pd.DataFrame, pd.DataFrame]:
    return truth.true_phenology(world, island), truth.true_ndvi(world, island)


def _scene_groups(world: World) -> list[list[Scene]]:
    """Group scenes of one tile, so that a process computes a tile's ground once per group."""
    by_tile: dict[str, list[Scene]] = {}
    for scene in scenes(world):
        by_tile.setdefault(scene.tile.name, []).append(scene)
    return [
        group[begin : begin + SCENES_PER_TASK]
        for group in by_tile.values()
        for begin in range(0, len(group), SCENES_PER_TASK)
    ]


def _run(function: Callable, tasks: Iterable, pool: ProcessPoolExecutor | None) -> list:
    return list(map(function, tasks) if pool is None else pool.map(function, tasks))


def build(world: World, output: Any, *, n_processes: int = 1) -> None:
    """Build the world; `output` names the files, see the module's docstring.

    Processes are forked: with another start method they would run the calling script again.
    """
    folder = Path(output.scenes).parent
    for stale in ("scenes", "modis"):
        shutil.rmtree(folder / stale, ignore_errors=True)
    Path(output.scenes).unlink(missing_ok=True)

    pool = None
    if n_processes > 1:
        pool = ProcessPoolExecutor(n_processes, mp_context=multiprocessing.get_context("fork"))
    try:
        true_frames = _run(partial(_truth, world=world), world.islands, pool)
        years = range(world.modis_years[0], world.modis_years[1] + 1)
        tasks = [(island, year) for island in world.islands for year in years]
        composites = _run(partial(_write_composites, world=world, folder=folder), tasks, pool)
        pictures = _run(partial(_write_scenes, world=world, folder=folder), _scene_groups(world), pool)
    finally:
        if pool is not None:
            pool.shutdown(cancel_futures=True)

    for path, frame in (
        (output.land, geography.land_frame(world)),
        (output.ecoregions, geography.ecoregion_frame(world)),
        (output.mountains, geography.mountain_frame(world)),
        (output.truth_phenology, pd.concat([pair[0] for pair in true_frames], ignore_index=True)),
        (output.truth_ndvi, pd.concat([pair[1] for pair in true_frames], ignore_index=True)),
    ):
        with atomic_path(path) as temporary:
            frame.to_parquet(temporary, index=False)
    with atomic_path(output.climate) as temporary:
        geography.write_climate(world, str(temporary))
    for json_path, path, groups in (
        (output.modis_json, output.modis, composites),
        (output.scenes_json, output.scenes, pictures),
    ):
        listed = [item for group in groups for item in group]
        with atomic_path(json_path) as temporary:
            items.write_json_items(listed, temporary)
        with atomic_path(path) as temporary:
            items.write_parquet_items(listed, temporary)
        logger.info("%s: %d items", path, len(listed))


def main(job: Any) -> None:
    """Run the rule `build_demo_world`."""
    build(World(seed=job.params.seed), job.output, n_processes=job.threads)


if "snakemake" in globals():
    run_stage(main, snakemake)  # noqa: F821
