"""Predict the places whose labels are kept secret, in the form a competition asks for.

Reads
    results/embeddings/{model}/{dataset}/embeddings.zarr, results/datasets/{dataset}/labels.parquet
    (label columns `split` = blind and `submission_id`)
Writes
    results/downstream/{model}/{task}/submission.csv: `Id`, `Predicted` (codes separated by spaces)

The linear probe learns from all places with labels and predicts the blind ones; a label counts where its
probability is 0.5 or more (the published code compares logits with 0.5). Where none reaches that, the
most probable one is named; a blind place without a patch gets what is most frequent. Only the
organizers can score the file: no score of ours stands for theirs.
"""

import logging
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pretrain.downstream import linear_probe
from pretrain.downstream.folds import TRAIN, Folds, make_folds
from pretrain.downstream.task_data import TaskData, read_labels, read_task_data
from pretrain.downstream.tasks import Task, output_table, with_classes
from workflow_scripts.core import tables
from workflow_scripts.core.objects import parent
from workflow_scripts.core.stage import atomic_path, run_stage

logger = logging.getLogger(__name__)

THRESHOLD = 0.5


def predict_blind(data: TaskData, task: Task, *, seed: int) -> np.ndarray:
    """Predict the rows of the blind part by a head that has learned from all others.

    Returns
    -------
    (rows of data, outputs) probabilities; only blind rows are predicted
    """
    places = make_folds(
        data.location_id,
        np.zeros(len(data.location_id), int),
        lon=data.lon,
        lat=data.lat,
        n_folds=2,
        block_km=task.block_km,
        seed=seed,
        methods=["random"],
    )[0].place
    fold = np.where(data.split == "blind", 0, TRAIN)
    _, (predicted,) = linear_probe.probe(data, [Folds("fixed", fold, places, places, None)], task, seed)
    return predicted.values


def name_labels(probabilities: np.ndarray, codes: list[Any]) -> list[str]:
    """Write the labels of each row, codes separated by spaces; never none."""
    chosen = probabilities >= THRESHOLD
    chosen[np.arange(len(chosen)), probabilities.argmax(axis=1)] |= ~chosen.any(axis=1)
    return [" ".join(str(codes[i]) for i in np.flatnonzero(row)) for row in chosen]


def main(job: Any) -> None:
    """Write the submission of one model for one task."""
    task = Task.from_settings(job.wildcards.task, job.params.task)
    labels = tables.read_table(job.input.labels, "labels")
    missing = [name for name in ("split", "submission_id") if name not in labels]
    if missing or not (labels["split"] == "blind").any() or task.kind != "multilabel":
        raise ValueError(
            f"task {task.name!r}: a submission needs a multilabel target and label columns `split`, with the "
            f"value 'blind', and `submission_id`; missing are {missing or 'blind places'}"
        )
    task = with_classes(task, read_labels(job.input.labels, task))
    blind = labels["split"] == "blind"
    target = task.targets[0]
    # a blind place has no label; an empty list lets it be read with the others, and is never learned from
    labels[target] = [
        [] if is_blind else codes for is_blind, codes in zip(blind, labels[target], strict=True)
    ]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "labels.parquet"
        tables.write_table(labels, path, "labels")
        data = read_task_data(parent(job.input.embeddings), path, task)
    codes = [output["code"] for output in output_table(task)]
    is_blind = data.split == "blind"
    prevalence = data.targets[~is_blind].mean(axis=0, keepdims=True)
    named = name_labels(predict_blind(data, task, seed=job.params.seed)[is_blind], codes)
    found = dict(zip(data.location_id[is_blind], named, strict=True))
    common = name_labels(prevalence, codes)[0]
    rows = labels.loc[blind, ["location_id", "submission_id"]]
    table = pd.DataFrame(
        {"Id": rows["submission_id"], "Predicted": [found.get(name, common) for name in rows["location_id"]]}
    )
    table = table.sort_values("Id", key=lambda ids: pd.to_numeric(ids, errors="coerce"), kind="stable")
    with atomic_path(job.output.submission) as temporary:
        table.to_csv(temporary, index=False)
    logger.info("%d blind places, %d of them without a patch", len(rows), len(rows) - len(found))


if "snakemake" in globals():
    run_stage(main, snakemake)  # noqa: F821
