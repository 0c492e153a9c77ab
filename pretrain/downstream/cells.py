"""Rows of a task whose targets have y and x: cells of the encoder's feature maps.

A cell of the coarsest feature map is a row; its target is that of the target's pixels in it, their mean or their most
frequent class. Of each location as many cells are drawn at random, so that there are `cells` of the task
in all at most: that many rows of features, and one block of maps, are all that is held in memory.
"""

import os
import zlib
from collections.abc import Sequence

import numpy as np
import xarray as xr

from pretrain.downstream.task_data import (
    COMBINING,
    DIVIDING,
    TaskData,
    find_seasons,
    read_labels,
)
from pretrain.downstream.tasks import Task, encode_targets
from workflow_scripts.core.objects import open_folder

PER_BLOCK = 16
"""Locations whose maps are read at a time."""
LEAST_KNOWN = 0.5
"""Share of a cell's pixels that must have a value."""


def cells_of(pixels: np.ndarray, shape: tuple[int, int], *, share: float, is_class: bool) -> np.ndarray:
    """Summarize a target by the cells of a feature map.

    Parameters
    ----------
    pixels : (n, Y, X), which cover the patch edge to edge; NaN where missing, in integers -1
    shape : (h, w) of the feature map
    share : side of the square about the patch's center that the map covers, as a share of the patch's side
    is_class : the most frequent value (of equally frequent ones the lowest), else the mean

    Returns
    -------
    float64 (n, h, w); NaN where less than half of a cell's pixels have a value

    Raises
    ------
    ValueError
        If a cell holds no pixel.
    """
    down, right = (_within(n, cells, share) for n, cells in zip(pixels.shape[1:], shape, strict=True))

    def total(values: np.ndarray) -> np.ndarray:
        return down @ values @ right.T

    values = np.asarray(pixels, np.float64)
    is_known = values != -1 if pixels.dtype.kind in "iu" else np.isfinite(values)
    known = total(is_known.astype(np.float64))
    is_enough = known >= LEAST_KNOWN * (down.sum(axis=1)[:, None] * right.sum(axis=1))
    if not is_class:
        mean = total(np.where(is_known, values, 0)) / np.maximum(known, 1)
        return np.where(is_enough, mean, np.nan)
    codes = np.unique(values[is_known])
    best, most = np.full(known.shape, np.nan), np.zeros(known.shape)
    for code in codes:
        members = total((is_known & (values == code)).astype(np.float64))
        best, most = np.where(members > most, code, best), np.maximum(members, most)
    return np.where(is_enough, best, np.nan)


def _within(n_pixels: int, n_cells: int, share: float) -> np.ndarray:
    """Tell which pixels (columns) have their center in which cell (rows), along one side of the patch."""
    center = (np.arange(n_pixels) + 0.5) / n_pixels
    cell = np.floor((center - (1 - share) / 2) / share * n_cells)
    within = (cell == np.arange(n_cells)[:, None]).astype(np.float64)
    if not within.any(axis=1).all():
        raise ValueError(
            f"a target of {n_pixels} pixels a side is coarser than the feature map, of {n_cells} cells over "
            f"{share:.2f} of it; bring it to {int(np.ceil(n_cells / share))} pixels or more"
        )
    return within


def read_cells(
    maps: str | os.PathLike,
    label_maps: Sequence[str | os.PathLike],
    *,
    labels: str | os.PathLike,
    task: Task,
    seed: int,
) -> TaskData:
    """Join feature maps and targets with y and x by location id, and draw cells of them.

    Parameters
    ----------
    maps : folder of a store of feature maps
    label_maps : folder of the Zarr store with each of the task's targets, of its name, dims (location, y, x),
        and `location_id`; its pixels cover the patch edge to edge, north up
    labels : table that says, in `group` and `split`, how to divide the locations
    seed : of the cells drawn

    Raises
    ------
    ValueError
        If a season or target is not there, cells are fewer than locations, or fewer than two locations remain.
    """
    with xr.open_zarr(open_folder(maps).zarr_store(), chunks=None) as features:
        seasons = find_seasons(features, task)
        location_id = features["location_id"].values.astype(object)
        share, shape = float(features.attrs["map_share"]), features["features"].shape[3:]
        values = np.stack(
            [
                _read_target(path, name, location_id, shape=shape, share=share, task=task)
                for name, path in zip(task.targets, label_maps, strict=True)
            ]
        )
        is_known = np.isfinite(values).all(axis=0).reshape(len(location_id), -1)
        n_labelled = int(is_known.any(axis=1).sum())
        if task.cells < n_labelled:
            raise ValueError(
                f"task {task.name!r}: cells = {task.cells}, but {n_labelled} locations have a value"
            )
        order = np.argsort(location_id, kind="stable")
        drawn = [
            _draw(is_known[i], task.cells // max(n_labelled, 1), seed=seed, location_id=location_id[i])
            for i in order
        ]
        rows, has_patch = _read_features(features["features"], order, drawn, seasons=seasons, task=task)
        lon, lat = features["lon"].values, features["lat"].values
        attributes = dict(features.attrs)
    used = order[has_patch & is_known[order].any(axis=1)]
    counts = {
        "n_locations": len(location_id),
        "n_without_patch": int(np.sum(~has_patch)),
        "n_without_label": int(np.sum(has_patch & ~is_known[order].any(axis=1))),
        "n_used": len(used),
        "n_cells": int(is_known[used].sum()),
        "n_cells_used": len(rows),
    }
    if len(used) < 2:
        raise ValueError(
            f"task {task.name!r}: {counts} leave fewer than two locations with both a patch in {list(task.seasons or [])} "
            f"and a value of {list(task.targets)}"
        )
    of = dict(zip(order.tolist(), drawn, strict=True))
    location = np.repeat(np.arange(len(used)), [len(of[i]) for i in used])
    cell = np.concatenate([of[i] for i in used])
    flat = values.reshape(len(values), len(location_id), -1)[:, used[location], cell]
    targets, _ = encode_targets(dict(zip(task.targets, flat, strict=True)), task)
    frame = read_labels(labels, task).set_index("location_id").reindex(location_id[used])
    kept = {name: frame[name].fillna("").to_numpy(object) for name in DIVIDING if name in frame}
    return TaskData(
        location_id[used], lon[used], lat[used], rows, targets, counts, attributes, location=location, **kept
    )


def _read_target(
    path: str | os.PathLike,
    name: str,
    location_id: np.ndarray,
    *,
    shape: tuple[int, int],
    share: float,
    task: Task,
) -> np.ndarray:
    """Read a target by cells, (location, h, w) in the order of `location_id`; NaN where it has none."""
    result = np.full((len(location_id), *shape), np.nan)
    with xr.open_zarr(open_folder(path).zarr_store(), chunks=None) as store:
        if name not in store or "location_id" not in store or store[name].ndim != 3:
            raise ValueError(
                f"{path}: expected an array {name!r} with dims (location, y, x), and location_id; found "
                f"{ {key: array.dims for key, array in store.variables.items()} }"
            )
        names = map(str, store["location_id"].values)
        at = dict(zip(names, range(store.sizes["location"]), strict=True))
        if len(at) < store.sizes["location"]:
            raise ValueError(f"{path} names a location_id twice")
        wanted = [(row, at[key]) for row, key in enumerate(location_id) if key in at]
        for first in range(0, len(wanted), PER_BLOCK):
            rows, places = zip(*wanted[first : first + PER_BLOCK], strict=True)
            pixels = store[name][list(places)].to_numpy()
            missing = -1 if pixels.dtype.kind in "iu" else np.nan
            pixels = np.where(np.isin(pixels, list(task.ignore)), missing, pixels)
            result[list(rows)] = cells_of(pixels, shape, share=share, is_class=task.kind == "classification")
    return result


def _draw(is_known: np.ndarray, n: int, *, seed: int, location_id: str) -> np.ndarray:
    """Draw up to n of a location's known cells; the same whatever other locations there are."""
    known = np.flatnonzero(is_known)
    rng = np.random.default_rng([seed, zlib.crc32(str(location_id).encode())])
    return np.sort(rng.permutation(known)[:n])


def _read_features(
    features: xr.DataArray,
    order: np.ndarray,
    drawn: Sequence[np.ndarray],
    *,
    seasons: Sequence[int],
    task: Task,
) -> tuple[np.ndarray, np.ndarray]:
    """Read the drawn cells of locations in an order, block by block.

    Returns
    -------
    float32 (cells, features), and which locations (in that order) have a patch; those without give no rows
    """
    place_of = np.argsort(order)
    end = np.cumsum([len(cells) for cells in drawn])
    width = features.shape[2] * (len(seasons) if task.combine == "concatenate" else 1)
    rows = np.empty((int(end[-1]), width), np.float32)
    is_kept, has_patch = np.zeros(len(rows), bool), np.zeros(len(order), bool)
    for first in range(0, len(order), PER_BLOCK):
        block = features[first : first + PER_BLOCK].to_numpy()
        for maps, place in zip(block, place_of[first : first + PER_BLOCK], strict=True):
            of_cells = maps.reshape(*maps.shape[:2], -1).transpose(2, 0, 1).astype(np.float32)
            combined, is_there = COMBINING[task.combine](
                xr.DataArray(of_cells, dims=("location", "season", "feature")), seasons
            )
            has_patch[place] = is_there.all()
            if has_patch[place]:
                here = slice(end[place] - len(drawn[place]), end[place])
                rows[here], is_kept[here] = combined[drawn[place]], True
    return rows if is_kept.all() else rows[is_kept], has_patch
