"""Give each location its weight in pretraining's random draw.

Reads `locations.parquet`, `patches.parquet` and `patches.zarr`.
Writes `weights.parquet` (one row per location, joined by `location_id`) and `weights.json` (shares).

Method of the SSL4Eco paper: a location whose mean NDVI stays below 0.1 in every season it has is drawn
a quarter as often, one in mountains (GMBA) twice as often; both together multiply, which the paper
leaves open. NDVI below 0 counts as 0, clouds and snow count as they are, as in the paper's files;
`mask_clouds` leaves out what the scene classification calls cloud or shadow, `mask_snow` what it calls
snow or ice.
"""

import logging
from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from workflow_scripts.core import bands, store, tables
from workflow_scripts.core.objects import parent
from workflow_scripts.core.stage import run_stage, write_json

LOG = logging.getLogger(__name__)

PAPER_SHARES = {"non_vegetated": 0.17, "mountain": 0.16}
"""Shares of the paper's locations (SSL4Eco, section A-1), to compare with."""


def patch_mean_ndvi(
    dn10: np.ndarray, scl: np.ndarray | None = None, *, masked: Sequence[int] = bands.SCL_CLOUD
) -> np.ndarray:
    """Average NDVI over the pixels with data, values below 0 counted as 0.

    Parameters
    ----------
    dn10 : uint16 array (..., 4, y, x), bands in the order of `bands.BANDS10`, 0 = no data
    scl : uint8 array (..., y/2, x/2); where given, the `masked` classes are left out

    Returns
    -------
    float32 array (...), 0 to 1; NaN without a pixel
    """
    near_infrared, red = (dn10[..., bands.BANDS10.index(name), :, :] for name in ("B08", "B04"))
    values = np.maximum(bands.ndvi(near_infrared, red), 0)
    if scl is not None:
        is_masked = np.isin(scl, masked)
        values[is_masked.repeat(2, axis=-2).repeat(2, axis=-1)] = np.nan
    n_valid = np.isfinite(values).sum(axis=(-2, -1))
    total = np.nansum(values, axis=(-2, -1), dtype=np.float64)
    return np.where(n_valid > 0, total / np.maximum(n_valid, 1), np.nan).astype(np.float32)


def largest_ndvi(patches: xr.Dataset, *, masked: Sequence[int]) -> np.ndarray:
    """Find the largest seasonal mean NDVI of each location, one location in memory at a time.

    Parameters
    ----------
    patches : lazy store, or a part of it
    masked : scene classes that are left out

    Returns
    -------
    float32 array (location,); NaN without a patch, 0 where everything is masked in every patch:
    nothing green was seen
    """
    largest = np.full(patches.sizes["location"], np.nan, np.float32)
    for location in range(len(largest)):
        one = patches.isel(location=location)
        dn10 = one["dn10"].to_numpy()
        means = patch_mean_ndvi(dn10, one["scl"].to_numpy() if masked else None, masked=masked)
        if np.isfinite(means).any():
            largest[location] = np.nanmax(means)
        elif dn10.any():
            largest[location] = 0
    return largest


def shard_slices(n_locations: int, per_shard: int) -> Iterator[slice]:
    """Cut the locations into their shards."""
    for first in range(0, n_locations, per_shard):
        yield slice(first, min(first + per_shard, n_locations))


def weigh(
    locations: pd.DataFrame,
    mean_ndvi_max: np.ndarray,
    *,
    non_vegetated: float,
    mountain: float,
    max_ndvi: float,
) -> pd.DataFrame:
    """Turn what is known of each location into its weight.

    Parameters
    ----------
    locations : table of locations
    mean_ndvi_max : largest seasonal mean NDVI of each; NaN (no patch) is not called bare
    non_vegetated, mountain : factors
    max_ndvi : below this in every season a location is non-vegetated

    Returns
    -------
    table of weights, sorted by `location_id`
    """
    is_bare = mean_ndvi_max < max_ndvi
    is_mountain = locations["is_mountain"].to_numpy(bool)
    weight = np.where(is_bare, non_vegetated, 1.0) * np.where(is_mountain, mountain, 1.0)
    table = pd.DataFrame(
        {
            "location_id": locations["location_id"].to_numpy(),
            "weight": weight,
            "is_non_vegetated": is_bare,
            "is_mountain": is_mountain,
            "mean_ndvi_max": mean_ndvi_max.astype(np.float32),
        }
    )
    return table.sort_values("location_id", ignore_index=True)


def summarize(weights: pd.DataFrame, complete: pd.Series) -> dict[str, Any]:
    """Give the shares among the locations that train, beside the paper's."""
    training = weights[weights["location_id"].isin(complete)]
    n = len(training)

    def share(flags: pd.Series) -> float | None:
        return round(float(flags.mean()), 4) if n else None

    return {
        "n_locations": n,
        "non_vegetated": share(training["is_non_vegetated"]),
        "mountain": share(training["is_mountain"]),
        "both": share(training["is_non_vegetated"] & training["is_mountain"]),
        "paper": PAPER_SHARES,
    }


def main(job: SimpleNamespace) -> None:
    """Weigh the locations of one dataset."""
    locations = pd.DataFrame(
        tables.read_table(job.input.locations, "locations", ["location_id", "is_mountain"])
    )
    index = tables.read_table(job.input.patches, "patches", ["location_id", "is_complete"])
    settings = dict(job.params.settings)
    masked = [
        *(bands.SCL_CLOUD if settings.pop("mask_clouds") else ()),
        *(bands.SCL_SNOW if settings.pop("mask_snow") else ()),
    ]
    path = parent(job.input.store)
    per_shard = store.layout(path)["per_shard"]
    patches = store.open_store(path)
    if patches["location_id"].to_numpy().tolist() != locations["location_id"].tolist():
        raise ValueError(
            f"{path}: its locations are not those of {job.input.locations}. Run rule create_store again."
        )
    largest = []
    for shard, part in enumerate(shard_slices(len(locations), per_shard)):
        with store.reading_shard(path, shard):
            largest.append(largest_ndvi(patches.isel(location=part), masked=masked))
        LOG.info("shard %d: locations %d to %d", shard, part.start, part.stop - 1)
    weights = weigh(locations, np.concatenate(largest), **settings)
    shares = summarize(weights, index.loc[index["is_complete"], "location_id"])
    for kind, paper in PAPER_SHARES.items():
        found = "none" if shares[kind] is None else f"{100 * shares[kind]:.1f} %"
        LOG.info("%s: %s of %d locations (paper: %.0f %%)", kind, found, shares["n_locations"], 100 * paper)
    tables.write_table(weights, job.output.weights, "weights")
    write_json(job.output.shares, shares)


if "snakemake" in globals():
    run_stage(main, snakemake)  # noqa: F821
