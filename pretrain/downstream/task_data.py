"""What a task is learned from: embeddings and labels of locations, joined by `location_id`."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from pretrain.downstream.tasks import Task, encode_targets, output_table
from workflow_scripts.core import tables
from workflow_scripts.core.objects import open_folder


@dataclass(frozen=True)
class TaskData:
    """The locations of a task that have both an embedding and a label, sorted by id, and what is learned of them."""

    location_id: np.ndarray
    lon: np.ndarray
    lat: np.ndarray
    features: np.ndarray
    """(rows, features) float32, of a location's seasons as the task combines them."""
    targets: np.ndarray
    """(rows, outputs) float32; see `encode_targets`."""
    counts: Mapping[str, int]
    """`n_locations`, of which `n_without_patch`, of the rest `n_without_label`, and `n_used`."""
    attributes: Mapping[str, Any]
    """Those of the embeddings: model, digests, bands, scaling."""
    group: np.ndarray | None = None
    """(n,) label column `group`: what folds must not divide, beside places; "" for nothing."""
    split: np.ndarray | None = None
    """(n,) label column `split`: the published part of each location."""
    location: np.ndarray | None = None
    """(rows,) number of the location that each row is a cell of; None where a row is a location."""

    def strata(self, *, is_stratified: bool) -> np.ndarray:
        """Give the class (n,) of each location, the one of most of its cells; zeros without classes."""
        if not is_stratified:
            return np.zeros(len(self.location_id))
        if self.location is None:
            return self.targets.argmax(axis=1)
        members = np.zeros((len(self.location_id), self.targets.shape[1]))
        np.add.at(members, self.location, self.targets)
        return members.argmax(axis=1)


DIVIDING = ("group", "split")
"""Label columns that are no targets: they say how to divide the locations."""


def read_task_data(embeddings: str | os.PathLike, labels: str | os.PathLike, task: Task) -> TaskData:
    """Join embeddings and labels by location id and keep what is complete.

    Parameters
    ----------
    embeddings : folder of an embeddings store
    labels : table of one row per location
    task : names the label columns and, in `seasons`, the seasons to average (all by default)

    Raises
    ------
    ValueError
        If a season or column is not there, or fewer than two locations remain.
    """
    with xr.open_zarr(open_folder(embeddings).zarr_store(), chunks=None) as dataset:
        seasons = find_seasons(dataset, task)
        location_id = dataset["location_id"].values.astype(object)
        lon, lat = dataset["lon"].values, dataset["lat"].values
        features, has_patch = COMBINING[task.combine](dataset["embedding"], seasons)
        attributes = dict(dataset.attrs)
    frame = read_labels(labels, task).set_index("location_id")
    row = frame.index.get_indexer(location_id)
    columns = {name: frame[name].to_numpy()[row] for name in task.targets}
    is_listed = row >= 0
    targets = np.zeros((location_id.size, len(output_table(task))), np.float32)
    is_known = np.zeros(location_id.size, bool)
    listed = {name: values[is_listed] for name, values in columns.items()}
    targets[is_listed], is_known[is_listed] = encode_targets(listed, task)
    used = np.flatnonzero(has_patch & is_known)
    counts = {
        "n_locations": int(location_id.size),
        "n_without_patch": int(np.sum(~has_patch)),
        "n_without_label": int(np.sum(has_patch & ~is_known)),
        "n_used": int(used.size),
    }
    if used.size < 2:
        raise ValueError(
            f"task {task.name!r}: {counts} leave fewer than two locations with both a patch in "
            f"{list(task.seasons or ['any season'])} and a value of {list(task.targets)}"
        )
    used = used[np.argsort(location_id[used], kind="stable")]
    kept = {name: frame[name].to_numpy(object)[row[used]] for name in DIVIDING if name in frame}
    return TaskData(
        location_id[used], lon[used], lat[used], features[used], targets[used], counts, attributes, **kept
    )


def find_seasons(dataset: xr.Dataset, task: Task) -> list[int]:
    """Give the positions of a task's seasons in a store of features, all where it names none."""
    present = dataset["season"].values.astype(object).tolist()
    missing = set(task.seasons or ()) - set(present)
    if missing:
        raise ValueError(
            f"task {task.name!r}: seasons {list(task.seasons)} are not all among those of dataset "
            f"{task.dataset!r}, {present}"
        )
    return [present.index(season) for season in task.seasons or present]


def read_labels(labels: str | os.PathLike, task: Task) -> pd.DataFrame:
    """Read the label columns of a task, and those that say how to divide its locations."""
    frame = tables.read_table(labels, "labels")
    targets = task.targets if task.cells is None else ()
    missing = [name for name in targets if name not in frame]
    if missing:
        raise ValueError(f"{labels}: table 'labels' lacks columns {missing}; it has {list(frame)}")
    return frame[["location_id", *dict.fromkeys((*targets, *(n for n in DIVIDING if n in frame)))]]


def _mean_over_seasons(embedding: xr.DataArray, seasons: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Average each location's embeddings; say which locations have any (others are 0)."""
    total = np.zeros((embedding.sizes["location"], embedding.sizes["feature"]), np.float32)
    count = np.zeros(len(total), np.int32)
    for season in seasons:
        values = embedding.isel(season=season).to_numpy()
        is_present = np.isfinite(values).all(axis=1)
        np.add(total, values, out=total, where=is_present[:, None])
        count += is_present
    return total / np.maximum(count, 1).astype(np.float32)[:, None], count > 0


def _side_by_side(embedding: xr.DataArray, seasons: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Put each location's embeddings of all seasons in a row; say which locations have them all (others are 0)."""
    values = np.concatenate([embedding.isel(season=season).to_numpy() for season in seasons], axis=1)
    is_whole = np.isfinite(values).all(axis=1)
    return np.where(is_whole[:, None], values, 0), is_whole


COMBINING = {"mean": _mean_over_seasons, "concatenate": _side_by_side}
"""How a task makes features of several seasons."""
