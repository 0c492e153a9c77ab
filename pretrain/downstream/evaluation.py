"""What both probes share: the task's data, its folds, and the document of scores.

A probe is a function from data, folds and task to the prediction of every location by a head that
has not seen its fold. Everything else is here, so that rows of a table differ in the probe alone.
"""

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from pretrain.downstream.folds import Folds, describe_folds, make_folds
from pretrain.downstream.tasks import Task, encode_targets, output_table, with_classes
from workflow_scripts.core import provenance, tables
from workflow_scripts.core.objects import open_folder, parent
from workflow_scripts.core.stage import write_json


@dataclass(frozen=True)
class TaskData:
    """The locations of a task that have both an embedding and a label, sorted by id."""

    location_id: np.ndarray
    lon: np.ndarray
    lat: np.ndarray
    features: np.ndarray
    """(n, features) float32, of a location's seasons as the task combines them."""
    targets: np.ndarray
    """(n, outputs) float32; see `encode_targets`."""
    counts: Mapping[str, int]
    """`n_locations`, of which `n_without_patch`, of the rest `n_without_label`, and `n_used`."""
    attributes: Mapping[str, Any]
    """Those of the embeddings: model, digests, bands, scaling."""
    group: np.ndarray | None = None
    """(n,) label column `group`: what folds must not divide, beside places; "" for nothing."""
    split: np.ndarray | None = None
    """(n,) label column `split`: the published part of each location."""


@dataclass(frozen=True)
class Predictions:
    """Out-of-fold predictions of a probe under one division into folds."""

    values: np.ndarray
    """(n, outputs) in the target's own space; each tested row by a head that has not seen its fold."""
    fits: Sequence[Mapping[str, Any]]
    """What the probe says about each fold's fit."""


DIVIDING = ("group", "split")
"""Label columns that are no targets: they say how to divide the locations."""

Probe = Callable[[TaskData, Sequence[Folds], Task, int], tuple[dict[str, Any], list[Predictions]]]
"""(data, folds, task, seed) to the probe's own settings and its predictions for each division."""


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
        present = dataset["season"].values.astype(object).tolist()
        seasons = list(task.seasons or present)
        if set(seasons) - set(present):
            raise ValueError(
                f"task {task.name!r}: seasons {seasons} are not all among those of dataset "
                f"{task.dataset!r}, {present}"
            )
        location_id = dataset["location_id"].values.astype(object)
        lon, lat = dataset["lon"].values, dataset["lat"].values
        features, has_patch = COMBINING[task.combine](
            dataset["embedding"], [present.index(season) for season in seasons]
        )
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
            f"{seasons} and a value of {list(task.targets)}"
        )
    used = used[np.argsort(location_id[used], kind="stable")]
    kept = {name: frame[name].to_numpy(object)[row[used]] for name in DIVIDING if name in frame}
    return TaskData(
        location_id[used], lon[used], lat[used], features[used], targets[used], counts, attributes, **kept
    )


def read_labels(labels: str | os.PathLike, task: Task) -> pd.DataFrame:
    """Read the label columns of a task, and those that say how to divide its locations."""
    frame = tables.read_table(labels, "labels")
    missing = [name for name in task.targets if name not in frame]
    if missing:
        raise ValueError(f"{labels}: table 'labels' lacks columns {missing}; it has {list(frame)}")
    return frame[["location_id", *dict.fromkeys((*task.targets, *(n for n in DIVIDING if n in frame)))]]


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


def evaluate(data: TaskData, task: Task, *, probe: Probe, seed: int) -> dict[str, Any]:
    """Run a probe over the folds of a task and describe all that came of it.

    Returns
    -------
    dict that JSON can hold (an undefined score is None):

    ``task``, ``dataset``, ``kind``, ``targets``, ``main_metric``, ``settings`` (the probe's),
    ``encoder_digest``, ``dataset_digest``, ``embedding`` (further attributes of the embeddings),
    ``counts``; ``outputs``: code, name and n of each class, label or target; ``rare_classes``:
    codes with fewer members than folds (kept; tested in as many folds as they have members);
    ``constant_targets``: columns that never vary (their R2 is None).
    ``folds``: under each division what `describe_folds` gives (of draws, the first), ``n_draws``, and
    ``digest`` of the division; ``scores``: metric → {mean, std (population), n (folds where defined), folds};
    ``pooled``: the metrics over the out-of-fold predictions of all locations together;
    ``per_output``: code, name and metrics of each class or target, pooled likewise;
    ``untrained_classes``: codes tested in some fold whose training part lacks them (they count as
    errors); ``fits``: the probe's words on each fold.
    """
    rules, outputs = task.rules, output_table(task)
    is_labels = task.kind in ("classification", "multilabel")
    strata = data.targets.argmax(axis=1) if rules.is_stratified else np.zeros(len(data.targets))
    folds = make_folds(
        data.location_id,
        strata,
        lon=data.lon,
        lat=data.lat,
        n_folds=task.folds,
        block_km=task.block_km,
        seed=seed,
        methods=task.divisions,
        group=data.group,
        split=data.split,
        train_share=task.train_share,
    )
    settings, predictions = probe(data, folds, task, seed)
    pairs = list(zip(folds, predictions, strict=True))
    members = (data.targets > 0.5).sum(axis=0) if is_labels else np.full(len(outputs), len(strata))
    rare = (members > 0) & (members < task.folds) & is_labels
    constant = (np.ptp(data.targets, axis=0) == 0) & (not is_labels)
    attributes = dict(data.attributes)
    document = {
        "task": task.name,
        "dataset": task.dataset,
        "kind": task.kind,
        "targets": list(task.targets),
        "main_metric": task.main_metric,
        "settings": {
            "seed": seed,
            "seasons": task.seasons and list(task.seasons),
            "combine": task.combine,
            **settings,
        },
        "encoder_digest": attributes.pop("encoder_digest", None),
        "dataset_digest": attributes.pop("dataset_digest", None),
        "embedding": attributes,
        "counts": dict(data.counts),
        "outputs": [{**output, "n": int(n)} for output, n in zip(outputs, members, strict=True)],
        "rare_classes": [outputs[i]["code"] for i in np.flatnonzero(rare)],
        "constant_targets": [outputs[i]["code"] for i in np.flatnonzero(constant)],
        "folds": {
            method: _describe_divisions(data, task, [pair for pair in pairs if pair[0].method == method])
            for method in task.divisions
        },
    }
    return _finite(document)


def _describe_divisions(
    data: TaskData, task: Task, divisions: Sequence[tuple[Folds, Predictions]]
) -> dict[str, Any]:
    """Describe the divisions of one method together: one, or the draws of a published split."""
    rules, outputs = task.rules, output_table(task)
    each, untrained = [], np.zeros(len(outputs), bool)
    for folds, predicted in divisions:
        for fold in range(folds.n_folds):
            train, test = folds.train(fold), folds.test(fold)
            each.append(rules.scores(predicted.values[test], data.targets[test]))
            if task.kind in ("classification", "multilabel"):
                untrained |= (data.targets[test] > 0.5).any(axis=0) & ~(data.targets[train] > 0.5).any(axis=0)
    values = np.concatenate([predicted.values[folds.tested] for folds, predicted in divisions])
    targets = np.concatenate([data.targets[folds.tested] for folds, _ in divisions])
    numbers = zip(*(folds.fold.tolist() for folds, _ in divisions), strict=True)
    division = sorted(
        (name, number[0] if len(number) == 1 else list(number))
        for name, number in zip(data.location_id.tolist(), numbers, strict=True)
    )
    details = rules.details(values, targets)
    return {
        **describe_folds(divisions[0][0], lon=data.lon, lat=data.lat),
        "n_draws": len(divisions),
        "digest": provenance.digest(division),
        "scores": {name: summarize([scores[name] for scores in each]) for name in each[0]},
        "pooled": rules.scores(values, targets),
        "per_output": [{**output, **detail} for output, detail in zip(outputs, details, strict=True)],
        "untrained_classes": [outputs[i]["code"] for i in np.flatnonzero(untrained)],
        "fits": [dict(fit) for _, predicted in divisions for fit in predicted.fits],
    }


def summarize(scores: Sequence[float]) -> dict[str, Any]:
    """Give mean, population standard deviation and number of the folds where a score is defined."""
    values = np.asarray(scores, float)
    defined = values[np.isfinite(values)]
    return {
        "mean": float(defined.mean()) if defined.size else math.nan,
        "std": float(defined.std()) if defined.size else math.nan,
        "n": int(defined.size),
        "folds": values.tolist(),
    }


def _finite(content: Any) -> Any:
    """Replace NaN by None and numpy scalars by Python's, throughout."""
    if isinstance(content, Mapping):
        return {key: _finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(value) for value in content]
    if isinstance(content, np.generic):
        content = content.item()
    return None if isinstance(content, float) and not math.isfinite(content) else content


def resolve_device(wanted: str) -> str:
    """Give the torch device that an option names; `auto` is a GPU where there is one."""
    if wanted != "auto":
        return wanted
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def run_probe(job: Any, name: str, probe: Probe) -> None:
    """Do the work of a probe's rule: read embeddings and labels, evaluate, write the scores."""
    task = Task.from_settings(job.wildcards.task, job.params.task)
    task = with_classes(task, read_labels(job.input.labels, task))
    data = read_task_data(parent(job.input.embeddings), job.input.labels, task)
    document = evaluate(data, task, probe=probe, seed=job.params.seed)
    write_json(job.output.scores, {"model": job.wildcards.model, "probe": name, **document})
