"""Tell what a dataset will ask of catalogs and disks, before anything is fetched.

Reads `jobs.json`: locations, shards and tiles.
Writes `estimate.json`: catalog searches, patches, jobs, files, bytes of pixels before compression.

Counts follow from the layout of the store. Time and compressed size depend on the network and on
the pixels; they are not guessed here.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from workflow_scripts.core import grid, store
from workflow_scripts.core.stage import read_json, run_stage, write_json

COMPOSITES_PER_YEAR = 23
"""16-day composites of MOD13."""


def bytes_per_patch(size_m: int) -> int:
    """Give the bytes of one patch's pixels, uncompressed: all bands and the scene classification."""
    total = 0
    for name in store.PIXELS:
        suffix = name.removeprefix("dn") if name != "scl" else "20"
        n_bands = len(store.BAND_NAMES[f"band{suffix}"]) if name != "scl" else 1
        n = grid.n_pixels(size_m, int(suffix))
        total += n_bands * n * n * np.dtype(store.ARRAYS[name].dtype).itemsize
    return total


def estimate(
    jobs: Mapping[str, Any],
    *,
    seasons: Sequence[str],
    size_m: int,
    greenness_years: Sequence[int] | None,
) -> dict[str, int]:
    """Count what a dataset needs.

    Parameters
    ----------
    jobs : content of `jobs.json`
    seasons : labels
    size_m : side of a patch
    greenness_years : first and last year of the vegetation index read from a catalog; None if none is

    Returns
    -------
    counts by name; bytes where the name says so
    """
    shards = jobs["shards"]
    mgrs_tiles = {tile for shard in shards.values() for tile in shard["mgrs_tiles"]}
    n_patches = jobs["n_locations"] * len(seasons)
    n_composites = 0
    if greenness_years is not None:
        years = greenness_years[1] - greenness_years[0] + 1
        n_composites = len(jobs["modis_tiles"]) * years * COMPOSITES_PER_YEAR
    return {
        "n_locations": jobs["n_locations"],
        "n_patches": n_patches,
        "n_shards": len(shards),
        "n_scene_searches": len(mgrs_tiles),
        "n_composites": n_composites,
        "n_store_files": len(shards) * len(store.ARRAYS),
        "bytes_per_patch_uncompressed": bytes_per_patch(size_m),
        "store_bytes_uncompressed": n_patches * bytes_per_patch(size_m),
        "memory_bytes_per_job": math.ceil(jobs["per_shard"] * len(seasons) * bytes_per_patch(size_m)),
    }


def main(job: Any) -> None:
    """Write `estimate.json` of one dataset."""
    counts = estimate(
        read_json(job.input.jobs),
        seasons=job.params.seasons,
        size_m=job.params.size_m,
        greenness_years=job.params.greenness_years,
    )
    write_json(job.output.estimate, {"dataset": job.wildcards.dataset, **counts})


if "snakemake" in globals():
    run_stage(main, snakemake)  # noqa: F821
