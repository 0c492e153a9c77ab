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

from pretrain.recipes import Options
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
    side: np.ndarray
    """float32 (L, column), numbers per location from the side table; NaN where it has none."""
    side_columns: np.ndarray
    """str (column,)."""

    def side_values(self, columns: Sequence[str]) -> np.ndarray:
        """Give columns of the side table, float32 (L, column).

        Raises
        ------
        ValueError
            If the table lacks one.
        """
        missing = sorted(set(columns) - set(self.side_columns.tolist()))
        if missing:
            raise ValueError(
                f"the objective needs the columns {missing} of a side table, which has {self.side_columns.tolist()}. "
                "Name a table with location_id and these columns as side_table of the model."
            )
        return self.side[:, [self.side_columns.tolist().index(name) for name in columns]]

    def __len__(self) -> int:
        return len(self.location)

    def where(self, chosen: np.ndarray) -> "Samples":
        """Give some of the locations, by a bool or integer array (L,)."""
        whole = ("seasons", "side_columns")
        values = {name: value if name in whole else value[chosen] for name, value in vars(self).items()}
        return Samples(**values)


def select_samples(
    patches: pd.DataFrame,
    weights: pd.DataFrame,
    *,
    seasons: Sequence[str],
    left_out: Collection[str] = (),
    min_seasons: int = MIN_SEASONS,
    side: pd.DataFrame | None = None,
) -> Samples:
    """Choose the locations to train on.

    Parameters
    ----------
    patches : the dataset's index (`location_id`, `location`, `season`, `status`, `datetime`, `lon`, `lat`)
    weights : `location_id`, `weight`
    seasons : labels in store order
    left_out : ids of locations not to train on
    min_seasons : locations with fewer patches are left out
    side : further numbers, `location_id` and any columns

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
    table = pd.DataFrame({"location_id": []}) if side is None else side
    numbers = table.set_index("location_id").reindex(identifiers)
    return Samples(
        location=rows,
        location_id=identifiers.astype(np.str_),
        lonlat=first[["lon", "lat"]].to_numpy(np.float32),
        weight=match_weights(identifiers, weights),
        available=available,
        day_of_year=day_of_year,
        seasons=np.asarray(seasons, np.str_),
        side=numbers.to_numpy(np.float32).reshape(len(rows), -1),
        side_columns=np.asarray(numbers.columns, np.str_),
    )


def read_side_table(path: str | os.PathLike) -> pd.DataFrame:
    """Read a Parquet or CSV table of numbers per location.

    Raises
    ------
    ValueError
        If it has no `location_id`, or names a location twice.
    """
    path = Path(path)
    table = pd.read_csv(path, dtype={"location_id": str}) if path.suffix == ".csv" else pd.read_parquet(path)
    if "location_id" not in table:
        raise ValueError(f"side_table {path} has no column location_id; it has {list(table.columns)}")
    repeated = table.loc[table["location_id"].duplicated(), "location_id"]
    if len(repeated):
        raise ValueError(f"side_table {path} names location {repeated.iloc[0]!r} more than once")
    return table[["location_id", *table.select_dtypes("number").columns]]


def min_seasons(options: Options) -> int:
    """Give the least patches that a location to train on has."""
    return min(MIN_SEASONS, options.seasons or MIN_SEASONS)


def choose(
    options: Options,
    *,
    patches: pd.DataFrame,
    weights: pd.DataFrame,
    store_path: str | os.PathLike,
    locations: str | os.PathLike,
    others: Sequence[pd.DataFrame] = (),
) -> Samples:
    """Choose the locations that a model is trained on.

    Parameters
    ----------
    patches, weights : as of `select_samples`
    store_path : path or address
    locations : the dataset's table of locations, read where validation is left out
    others : indexes of the datasets that `complete_in` names

    Raises
    ------
    ValueError
        If there are none, or fewer than `n_locations`.
    """
    if others:
        patches = patches[patches["location_id"].isin(complete_locations([patches, *others]))]
    chosen = select_samples(
        patches,
        weights,
        seasons=store.layout(store_path)["seasons"],
        left_out=validation_locations(locations) if options.leave_out_validation else (),
        min_seasons=min_seasons(options),
        side=read_side_table(options.side_table) if options.side_table else None,
    )
    return chosen if options.n_locations is None else subset_of(chosen, options.n_locations)


def complete_locations(indexes: Sequence[pd.DataFrame]) -> set[str]:
    """Give the locations that have a patch of every season in all of some datasets.

    Parameters
    ----------
    indexes : `location_id`, `season`, `status` of each
    """
    sets = []
    for index in indexes:
        stored = index[index["status"] == "ok"].groupby("location_id")["season"].nunique()
        sets.append(set(stored.index[stored == index["season"].nunique()]))
    return set.intersection(*sets)


def subset_of(samples: Samples, n_locations: int) -> Samples:
    """Draw locations to train on, exactly that many: sets of any design then give as many steps an epoch.

    The same ones whatever the model and its seed.

    Raises
    ------
    ValueError
        If there are fewer.
    """
    if len(samples) < n_locations:
        raise ValueError(
            f"n_locations = {n_locations}: only {len(samples)} locations have the patches to train on"
        )
    by_name = np.argsort(samples.location_id, kind="stable")
    return samples.where(np.sort(by_name[np.random.default_rng(0).permutation(len(samples))[:n_locations]]))


def read_dataset(folder: str | os.PathLike) -> Samples:
    """Choose all patches of a finished dataset, ``results/datasets/NAME``, for training code of one's own."""
    folder = Path(folder)
    return select_samples(
        tables.read_table(folder / "patches.parquet", "patches"),
        tables.read_table(folder / "weights.parquet", "weights"),
        seasons=store.layout(folder / "patches.zarr")["seasons"],
        min_seasons=1,
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
