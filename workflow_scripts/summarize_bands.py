"""Describe the values of each band over the whole dataset and per season.

Reads `patches.parquet` and `patches.zarr`. Writes `bands.json`.

Method: DN are 16-bit integers, so one histogram of 65,536 counts per band and season holds everything;
mean, standard deviation and percentiles follow from it exactly, in one pass over the store (dask, one
shard in memory per thread). Pixels without data (DN 0) do not count; clouds do. NDVI is computed at 10 m
and counted in steps of 0.001.
"""

import logging
import operator
import os
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import xarray as xr
from dask import bag

from workflow_scripts.core import bands, store, tables
from workflow_scripts.core.objects import parent
from workflow_scripts.core.stage import run_stage, write_json

LOG = logging.getLogger(__name__)

PIXELS = ("dn10", "dn20", "dn60")
N_DN = 65_536
PERCENTILES = (1, 5, 25, 50, 75, 95, 99)
NDVI_STEP = 0.001
N_NDVI = 2001
HISTOGRAM_BINS = 40
"""Bins of the NDVI histogram kept for drawing, -1 to 1."""


def count_shard(shard: int, *, path: str | os.PathLike) -> np.ndarray:
    """Count the values of one shard.

    Parameters
    ----------
    shard : its number
    path : the store

    Returns
    -------
    int64 array (season, 12 bands and NDVI, 65,536); NDVI uses the first 2,001 places
    """
    patches = store.open_store(path)
    patches = patches[[name for name in ("epsg", *PIXELS) if name in patches]]
    counts = np.zeros((patches.sizes["season"], len(bands.ALL_BANDS) + 1, N_DN), np.int64)
    for location in range(*store.shard_range(path, shard)):
        with store.reading_shard(path, shard):
            one = patches.isel(location=location).load()
        for season in range(one.sizes["season"]):
            count_patch(one.isel(season=season), counts[season])
    return counts


def count_patch(patch: xr.Dataset, counts: np.ndarray) -> None:
    """Add one patch's values to the counts (band, value); a missing patch adds nothing."""
    if int(patch["epsg"]) == 0:
        return
    for array in PIXELS:
        if array not in patch:
            continue
        names = patch[f"band{array[2:]}"].to_numpy()
        for name, dn in zip(names, patch[array].to_numpy(), strict=True):
            found = np.bincount(dn.ravel(), minlength=N_DN)
            found[0] = 0
            counts[bands.ALL_BANDS.index(str(name))] += found
    ndvi = store.ndvi10(patch).to_numpy()
    steps = np.rint((ndvi[np.isfinite(ndvi)] + 1) / NDVI_STEP).astype(int)
    counts[-1, :N_NDVI] += np.bincount(steps, minlength=N_NDVI)


def describe(counts: np.ndarray, values: np.ndarray) -> dict[str, Any]:
    """Describe a population by the counts of its values.

    Parameters
    ----------
    counts : how often each value occurs
    values : the values, ascending

    Returns
    -------
    n, mean, std (of the population), min, max and percentiles (the smallest value that at least
    this share does not exceed); null without values
    """
    n = int(counts.sum())
    if n == 0:
        return {"n": 0, **dict.fromkeys(("mean", "std", "min", "max")), "percentiles": None}
    present = np.flatnonzero(counts)
    mean = float((counts * values).sum() / n)
    variance = float((counts * (values - mean) ** 2).sum() / n)
    cumulative = counts.cumsum()
    at = np.searchsorted(cumulative, np.array(PERCENTILES) / 100 * n)
    return {
        "n": n,
        "mean": round(mean, 4),
        "std": round(variance**0.5, 4),
        "min": round(float(values[present[0]]), 3),
        "max": round(float(values[present[-1]]), 3),
        "percentiles": {
            f"p{p:02d}": round(float(values[i]), 3) for p, i in zip(PERCENTILES, at, strict=True)
        },
    }


def summarize(counts: np.ndarray, seasons: list[str]) -> dict[str, Any]:
    """Describe each band, and NDVI, over all seasons and per season.

    Parameters
    ----------
    counts : int64 array (season, 13, 65,536)
    seasons : labels

    Returns
    -------
    name -> {"all": description, season: description}
    """
    dn = np.arange(N_DN, dtype=float)
    ndvi = np.linspace(-1, 1, N_NDVI)
    described = {}
    for i, name in enumerate((*bands.ALL_BANDS, "NDVI")):
        values = ndvi if name == "NDVI" else dn
        parts = {"all": counts[:, i].sum(axis=0), **dict(zip(seasons, counts[:, i], strict=True))}
        described[name] = {season: describe(part[: len(values)], values) for season, part in parts.items()}
    return described


def ndvi_histograms(counts: np.ndarray, seasons: list[str]) -> dict[str, Any]:
    """Coarsen the counts of NDVI to what a picture needs."""
    edges = np.linspace(-1, 1, HISTOGRAM_BINS + 1)
    centers = np.linspace(-1, 1, N_NDVI)
    return {
        "edges": [round(float(edge), 3) for edge in edges],
        "counts": {
            season: np.histogram(centers, edges, weights=part[-1, :N_NDVI])[0].astype(int).tolist()
            for season, part in zip(seasons, counts, strict=True)
        },
    }


def main(job: SimpleNamespace) -> None:
    """Summarize the bands of one dataset."""
    index = tables.read_table(job.input.patches, "patches", ["status", "season"])
    path = parent(job.input.store)
    facts = store.layout(path)
    n_shards = -(-facts["n_locations"] // facts["per_shard"])
    count = partial(count_shard, path=path)
    shards = bag.from_sequence(range(n_shards), npartitions=min(job.threads, n_shards))
    counts = shards.map(count).fold(operator.add).compute(scheduler="threads", num_workers=job.threads)
    n_patches = int((index["status"] == "ok").sum())
    described = summarize(counts, facts["seasons"])
    for name, parts in described.items():
        LOG.info(
            "%s: mean %s, std %s, %d values",
            name,
            parts["all"]["mean"],
            parts["all"]["std"],
            parts["all"]["n"],
        )
    write_json(
        job.output.bands,
        {
            "unit": "DN, surface reflectance / 0.0001; NDVI unitless",
            "n_patches": n_patches,
            "bands": described,
            "ndvi_histogram": ndvi_histograms(counts, facts["seasons"]),
        },
    )


if "snakemake" in globals():
    run_stage(main, snakemake)  # noqa: F821
