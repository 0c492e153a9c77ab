"""Predict each location from its nearest neighbors in embedding space, outside its own fold.

Reads
    results/embeddings/{model}/{dataset}/embeddings.zarr, results/datasets/{dataset}/labels.parquet
Writes
    results/downstream/{model}/{task}/knn.json

Cosine similarity; the k most similar training locations vote with weights softmax(similarity /
temperature), temperature 0.07 (Wu et al. 2018, Unsupervised Feature Learning via Non-Parametric
Instance Discrimination). The prediction is the weighted mean of their targets: probabilities,
distributions or original units, used as they are. Similarities are computed once for all folds. k is
the task's, else in mode `paper` the published one of its kind, in `fast` each fold's own choice.
"""

import logging
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pretrain.downstream.evaluation import Predictions, resolve_device, run_probe
from pretrain.downstream.folds import UNUSED, Folds
from pretrain.downstream.metrics import LOWER_IS_BETTER
from pretrain.downstream.task_data import TaskData
from pretrain.downstream.tasks import Task
from workflow_scripts.core.stage import run_stage

logger = logging.getLogger(__name__)

BLOCK_BYTES = 128 * 2**20
"""Memory of one block of similarities."""
CANDIDATES = (1, 2, 3, 5, 10, 20, 30, 50, 100)
"""Values of k that `fast` chooses from, by the main metric of a fold's validation part; the smallest of the best."""


class Search:
    """The most similar allowed rows of some rows, filled in block by block."""

    def __init__(self, rows: Tensor, *, barred: Tensor, count: int) -> None:
        """Search for `rows` (ascending).

        `barred` (n,) holds a number per row: rows of equal numbers may not vote for each other, those that are
        `UNUSED` for none.
        """
        self.rows, self.barred = rows, barred
        self.unused = torch.nonzero(barred == UNUSED)[:, 0]
        self.similarity = torch.full((len(rows), count), -torch.inf, device=rows.device)
        self.nothing = torch.tensor(-torch.inf, device=rows.device)
        self.neighbors = torch.zeros((len(rows), count), dtype=torch.int64, device=rows.device)

    def take(self, similarity: Tensor, first: int, buffer: Tensor) -> None:
        """Look through the similarities of the rows from `first` on with all rows."""
        edges = torch.tensor([first, first + len(similarity)], device=self.rows.device)
        start, end = torch.searchsorted(self.rows, edges).tolist()
        rows = self.rows[start:end]
        if len(rows) < len(similarity):
            similarity = similarity[rows - first]
        allowed = buffer[: len(rows)]
        torch.where(self.barred[rows, None] == self.barred, self.nothing, similarity, out=allowed)
        if len(self.unused):
            allowed.index_fill_(1, self.unused, -torch.inf)
        found = allowed.topk(self.similarity.shape[1], dim=1)
        self.similarity[start:end], self.neighbors[start:end] = found


def fill(searches: Sequence[Search], features: np.ndarray, *, device: str) -> None:
    """Compute each similarity once, by cosine, for all searches.

    Parameters
    ----------
    features : (n, d), any scale; a zero vector is similar to nothing
    """
    units = torch.tensor(features, dtype=torch.float32, device=device)
    lengths = torch.linalg.vector_norm(units, dim=1, keepdim=True)
    units /= torch.where(lengths > 0, lengths, 1)
    step = max(1, BLOCK_BYTES // (4 * len(units)))
    block = torch.empty((2, min(step, len(units)), len(units)), device=device)
    for first in range(0, len(units), step):
        rows = units[first : first + step]
        similarity = torch.mm(rows, units.T, out=block[0, : len(rows)])
        for search in searches:
            search.take(similarity, first, block[1])


def vote(
    search: Search, targets: Tensor, *, ks: Iterable[int], temperature: float
) -> Iterator[tuple[int, Tensor]]:
    """Average the targets of each row's k nearest, for one k after the other.

    Parameters
    ----------
    targets : (n, outputs) of all rows
    ks : numbers of neighbors, ascending; a row with fewer takes all it has

    Yields
    ------
    k and float32 (rows, outputs)
    """
    powers = torch.exp((search.similarity - search.similarity[:, :1]) / temperature)
    total = torch.zeros((len(search.rows), targets.shape[1]), device=targets.device)
    first = 0
    for k in ks:
        for place in range(first, min(k, powers.shape[1])):
            total += powers[:, place, None] * targets[search.neighbors[:, place]]
        first = k
        yield k, total / powers[:, :k].sum(dim=1, keepdim=True)


def predict_divisions(
    data: TaskData, divisions: Sequence[Folds], task: Task, *, seed: int
) -> tuple[dict[str, Any], list[Predictions]]:
    """Predict every row from the most similar rows of other folds.

    Where the task names no k and its mode is `fast`, each fold's k is chosen on the validation part of its
    training rows, which is predicted from the others of them.

    Returns
    -------
    the probe's settings, and predictions (n, outputs) under each division
    """
    if task.temperature <= 0:
        raise ValueError(f"k-NN needs temperature > 0, got {task.temperature!r}")
    device = resolve_device(task.device)
    n = len(data.features)
    is_chosen = task.mode == "fast" and task.k is None
    ks = [k for k in CANDIDATES if k < n] if is_chosen else [min(task.n_neighbors, n)]
    tests, trials = [], []
    for division in divisions:
        barred = torch.as_tensor(division.fold, dtype=torch.int32, device=device)
        tested = torch.as_tensor(division.tested, device=device)
        tests.append(Search(tested, barred=barred, count=ks[-1]))
        for fold in range(division.n_folds) if is_chosen else ():
            _, held = division.split_validation(fold, share=task.validation_share, seed=seed)
            held = torch.as_tensor(np.sort(held), device=device)
            left_out = ((barred == fold) | (barred == UNUSED)).to(torch.int8)
            left_out[held] = 1
            trials.append(Search(held, barred=left_out, count=ks[-1]))
    fill([*tests, *trials], data.features, device=device)
    targets = torch.as_tensor(data.targets, dtype=torch.float32, device=device)
    following, results = iter(trials), []
    for division, search in zip(divisions, tests, strict=True):
        fits: list[dict[str, Any]] = []
        for fold in range(division.n_folds):
            fits.append({"n_train": int(division.train(fold).size), "k": ks[0]})
            if is_chosen:
                fits[-1] |= _choose(next(following), targets, data.targets, ks=ks, task=task)
        tested = division.tested
        chosen = np.array([fit["k"] for fit in fits])[division.fold[tested]]
        values = np.zeros(data.targets.shape, np.float32)
        for k, predicted in vote(search, targets, ks=ks, temperature=task.temperature):
            values[tested[chosen == k]] = predicted.cpu().numpy()[chosen == k]
        results.append(Predictions(values, fits))
    settings = {"k": "chosen on validation data" if is_chosen else ks[0], "temperature": task.temperature}
    return {**settings, "similarity": "cosine"}, results


def _choose(
    search: Search, targets: Tensor, truth: np.ndarray, *, ks: Sequence[int], task: Task
) -> dict[str, Any]:
    """Give the k with the best main metric on a fold's validation rows."""
    metric, rows = task.main_metric, search.rows.cpu().numpy()
    scores = {
        k: task.rules.scores(predicted.cpu().numpy(), truth[rows])[metric]
        for k, predicted in vote(search, targets, ks=ks, temperature=task.temperature)
    }
    sign = -1 if metric in LOWER_IS_BETTER else 1
    best = max(scores, key=lambda k: (np.nan_to_num(sign * scores[k], nan=-np.inf), -k))
    return {"k": best, "n_validated": len(rows), "validation_score": scores[best]}


def probe(
    data: TaskData, folds: Sequence[Folds], task: Task, seed: int
) -> tuple[dict[str, Any], list[Predictions]]:
    """Run the k-NN probe of a task; its only random choice is that of the validation parts."""
    settings, predictions = predict_divisions(data, folds, task, seed=seed)
    logger.info("task %s: %d locations, %s", task.name, len(data.features), settings)
    return settings, predictions


def main(job: Any) -> None:
    """Write the k-NN scores of one model on one task."""
    run_probe(job, "knn", probe)


if "snakemake" in globals():
    run_stage(main, snakemake)  # noqa: F821
