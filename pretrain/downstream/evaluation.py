"""What both probes share: the folds of a task's data, and the document of scores.

A probe is a function from data, folds and task to the prediction of every location by a head that
has not seen its fold. Everything else is here, so that rows of a table differ in the probe alone.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pretrain.downstream.cells import read_cells
from pretrain.downstream.folds import Folds, describe_folds, make_folds
from pretrain.downstream.task_data import TaskData, read_labels, read_task_data
from pretrain.downstream.tasks import Task, output_table, with_classes
from workflow_scripts.core import provenance
from workflow_scripts.core.objects import parent
from workflow_scripts.core.stage import write_json


@dataclass(frozen=True)
class Predictions:
    """Out-of-fold predictions of a probe under one division into folds."""

    values: np.ndarray
    """(n, outputs) in the target's own space; each tested row by a head that has not seen its fold."""
    fits: Sequence[Mapping[str, Any]]
    """What the probe says about each fold's fit."""


Probe = Callable[[TaskData, Sequence[Folds], Task, int], tuple[dict[str, Any], list[Predictions]]]
"""(data, folds, task, seed) to the probe's own settings and its predictions for each division."""


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
    folds = make_folds(
        data.location_id,
        data.strata(is_stratified=rules.is_stratified),
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
    of_rows = folds if data.location is None else [part.of_rows(data.location) for part in folds]
    settings, predictions = probe(data, of_rows, task, seed)
    divided = list(zip(folds, of_rows, predictions, strict=True))
    members = (data.targets > 0.5).sum(axis=0) if is_labels else np.full(len(outputs), len(data.targets))
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
            method: _describe_divisions(data, task, [part for part in divided if part[0].method == method])
            for method in task.divisions
        },
    }
    return _finite(document)


def _describe_divisions(
    data: TaskData, task: Task, divisions: Sequence[tuple[Folds, Folds, Predictions]]
) -> dict[str, Any]:
    """Describe the divisions of one method together: one, or the draws of a published split.

    Each is the division of the locations, that of the rows, and the rows' predictions.
    """
    rules, outputs = task.rules, output_table(task)
    each, untrained = [], np.zeros(len(outputs), bool)
    for _, folds, predicted in divisions:
        for fold in range(folds.n_folds):
            train, test = folds.train(fold), folds.test(fold)
            each.append(rules.scores(predicted.values[test], data.targets[test]))
            if task.kind in ("classification", "multilabel"):
                untrained |= (data.targets[test] > 0.5).any(axis=0) & ~(data.targets[train] > 0.5).any(axis=0)
    values = np.concatenate([predicted.values[folds.tested] for _, folds, predicted in divisions])
    targets = np.concatenate([data.targets[folds.tested] for _, folds, _ in divisions])
    numbers = zip(*(folds.fold.tolist() for folds, *_ in divisions), strict=True)
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
        "fits": [dict(fit) for *_, predicted in divisions for fit in predicted.fits],
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
    data = (
        read_task_data(parent(job.input.embeddings), job.input.labels, task)
        if task.cells is None
        else read_cells(
            parent(job.input.embeddings),
            [str(path).removesuffix("/zarr.json") for path in job.input.label_maps],
            labels=job.input.labels,
            task=task,
            seed=job.params.seed,
        )
    )
    document = evaluate(data, task, probe=probe, seed=job.params.seed)
    write_json(job.output.scores, {"model": job.wildcards.model, "probe": name, **document})
