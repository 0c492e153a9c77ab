"""What there is to train on: locations with at least two seasons, their dates and weights.

Read once from the dataset's tables, checked, and handed to the training processes as one file.
"""

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pretrain.sampler import match_weights
from workflow_scripts.core import store, tables
from workflow_scripts.core.stage import atomic_path

MIN_SEASONS = 2
"""Locations with fewer patches are left out: contrast between seasons needs two."""


@dataclass(frozen=True)
class Samples:
    """Locations to train on, in store order."""

    location: np.ndarray
    """int64 (L,), row in the store."""
    location_id: np.ndarray
    """str (L,)."""
    lonlat: np.ndarray
    """float32 (L, 2), degrees."""
    weight: np.ndarray
    """float64 (L,), relative frequency of being drawn."""
    available: np.ndarray
    """bool (L, season), where there is a patch."""
    day_of_year: np.ndarray
    """float32 (L, season), 1 to 367, of the scene; NaN without patch."""
    seasons: np.ndarray
    """str (season,), labels in store order."""

    def __len__(self) -> int:
        return len(self.location)


def select_samples(
    patches: pd.DataFrame,
    weights: pd.DataFrame,
    *,
    seasons: Sequence[str],
    left_out: Collection[str] = (),
    min_seasons: int = MIN_SEASONS,
) -> Samples:
    """Choose the locations to train on.

    Parameters
    ----------
    patches : the dataset's index (`location_id`, `location`, `season`, `status`, `datetime`, `lon`, `lat`)
    weights : `location_id`, `weight`
    seasons : labels in store order
    left_out : ids of locations not to train on
    min_seasons : locations with fewer patches are left out

    Raises
    ------
    ValueError
        If a season is unknown, no location has enough patches, or the weights do not cover them.
    """
    unknown = sorted(set(patches["season"]) - set(seasons))
    if unknown:
        raise ValueError(f"the index has seasons {unknown}, the store {list(seasons)}; run `patches` again")
    stored = patches[(patches["status"] == "ok") & ~patches["location_id"].isin(left_out)]
    count = stored.groupby("location")["season"].nunique()
    rows = count.index[count >= min_seasons].to_numpy(np.int64)
    rows.sort()
    if not len(rows):
        raise ValueError(
            f"none of {patches['location'].nunique()} locations has patches of {min_seasons} season(s) "
            f"({len(stored)} of {len(patches)} patches were retrieved and are not left out); nothing to train on"
        )
    stored = stored[stored["location"].isin(rows)]
    position = np.searchsorted(rows, stored["location"].to_numpy())
    season = pd.Index(seasons).get_indexer(stored["season"])
    available = np.zeros((len(rows), len(seasons)), bool)
    available[position, season] = True
    time = pd.to_datetime(stored["datetime"])
    day_of_year = np.full(available.shape, np.nan, np.float32)
    day_of_year[position, season] = time.dt.dayofyear + time.dt.hour / 24
    first = stored.drop_duplicates("location").set_index("location").loc[rows]
    identifiers = first["location_id"].astype(str).to_numpy()
    return Samples(
        location=rows,
        location_id=identifiers.astype(np.str_),
        lonlat=first[["lon", "lat"]].to_numpy(np.float32),
        weight=match_weights(identifiers, weights),
        available=available,
        day_of_year=day_of_year,
        seasons=np.asarray(seasons, np.str_),
    )


def read_dataset(folder: str | os.PathLike, *, min_seasons: int = 1) -> Samples:
    """Choose from a finished dataset, ``results/datasets/NAME``, for training code of one's own.

    Parameters
    ----------
    min_seasons : locations with fewer patches are left out
    """
    folder = Path(folder)
    return select_samples(
        tables.read_table(folder / "patches.parquet", "patches"),
        tables.read_table(folder / "weights.parquet", "weights"),
        seasons=store.layout(folder / "patches.zarr")["seasons"],
        min_seasons=min_seasons,
    )


def validation_locations(path: str | os.PathLike) -> set[str]:
    """Read which locations are for validation."""
    locations = tables.read_table(path, "locations", columns=("location_id", "split"))
    return set(locations.loc[locations["split"] == "validation", "location_id"])


def shares_of_draws(samples: Samples, weights: pd.DataFrame, columns: Sequence[str]) -> dict[str, Any]:
    """Tell how often locations of some kinds are drawn.

    Parameters
    ----------
    weights : `location_id` and boolean `columns`

    Returns
    -------
    dict of column → its share of the locations to train on (`locations`) and of what the sampler
    draws of them on average (`draws`)
    """
    kinds = weights.set_index("location_id").loc[samples.location_id]
    probability = samples.weight / samples.weight.sum()
    return {
        column: {
            "locations": round(float(kinds[column].mean()), 4),
            "draws": round(float(probability[kinds[column].to_numpy(bool)].sum()), 4),
        }
        for column in columns
    }


def write_samples(path: str | os.PathLike, samples: Samples) -> None:
    """Write the samples for the training processes."""
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, **vars(samples))


def read_samples(path: str | os.PathLike) -> Samples:
    """Read what `write_samples` wrote."""
    with np.load(Path(path), allow_pickle=False) as content:
        return Samples(**content)
