"""Predict each location from its nearest neighbors in embedding space, outside its own fold.

Reads
    results/embeddings/{model}/{dataset}/embeddings.zarr, results/datasets/{dataset}/labels.parquet
Writes
    results/downstream/{model}/{task}/knn.json

Cosine similarity; the k most similar training locations vote with weights softmax(similarity /
temperature), temperature 0.07 (Wu et al. 2018, Unsupervised Feature Learning via Non-Parametric
Instance Discrimination). The prediction is the weighted mean of their targets: probabilities,
distributions or original units, used as they are. Similarities are computed once for all folds.
"""

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np

from pretrain.downstream.evaluation import Predictions, TaskData, run_probe
from pretrain.downstream.folds import UNUSED, Folds
from pretrain.downstream.tasks import Task
from workflow_scripts.core.stage import run_stage

logger = logging.getLogger(__name__)

BLOCK_BYTES = 128 * 2**20
"""Memory of one block of similarities."""


def predict_neighbors(
    features: np.ndarray,
    targets: np.ndarray,
    *,
    divisions: Sequence[np.ndarray],
    k: int,
    temperature: float,
) -> list[np.ndarray]:
    """Predict every row from the k most similar rows of other folds.

    Parameters
    ----------
    features : (n, d), any scale; compared by cosine (a zero vector is similar to nothing)
    targets : (n, outputs)
    divisions : arrays (n,) of fold numbers, as in `Folds`; one prediction is made for each
    k : neighbors; all rows of the other folds where there are fewer
    temperature : divisor of similarities before the softmax

    Returns
    -------
    list of (n, outputs) float32, one per division
    """
    if k < 1 or temperature <= 0:
        raise ValueError(f"k-NN needs k >= 1 and temperature > 0, got {k!r} and {temperature!r}")
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    units = (features / np.where(lengths > 0, lengths, 1)).astype(np.float32)
    n = len(units)
    results = [np.zeros((n, targets.shape[1]), np.float32) for _ in divisions]
    step = max(1, BLOCK_BYTES // (4 * n))
    for start in range(0, n, step):
        rows = slice(start, min(start + step, n))
        similarity = units[rows] @ units.T
        for division, result in zip(divisions, results, strict=True):
            is_barred = (division[rows, None] == division) | (division == UNUSED)
            allowed = np.where(is_barred, -np.inf, similarity)
            result[rows] = _vote(allowed, targets, k=k, temperature=temperature)
    return results


def _vote(similarity: np.ndarray, targets: np.ndarray, *, k: int, temperature: float) -> np.ndarray:
    """Average targets of each row's k largest similarities; -inf is not allowed to vote."""
    k = min(k, similarity.shape[1])
    nearest = np.argpartition(-similarity, k - 1, axis=1)[:, :k]
    powers = np.take_along_axis(similarity, nearest, axis=1) / temperature
    powers = np.exp(powers - powers.max(axis=1, keepdims=True))
    weights = powers / powers.sum(axis=1, keepdims=True)
    return np.einsum("nk,nkc->nc", weights, targets[nearest])


def probe(
    data: TaskData, folds: Sequence[Folds], task: Task, seed: int
) -> tuple[dict[str, Any], list[Predictions]]:
    """Run the k-NN probe of a task; it makes no random choice."""
    values = predict_neighbors(
        data.features,
        data.targets,
        divisions=[division.fold for division in folds],
        k=task.n_neighbors,
        temperature=task.temperature,
    )
    settings = {"k": task.n_neighbors, "temperature": task.temperature, "similarity": "cosine"}
    fits = [
        [{"n_train": int(division.train(fold).size)} for fold in range(division.n_folds)]
        for division in folds
    ]
    predictions = [Predictions(v, f) for v, f in zip(values, fits, strict=True)]
    logger.info("task %s: %d locations, k = %d", task.name, len(data.features), task.n_neighbors)
    return settings, predictions


def main(job: Any) -> None:
    """Write the k-NN scores of one model on one task."""
    run_probe(job, "knn", probe)


if "snakemake" in globals():
    run_stage(main, snakemake)  # noqa: F821
