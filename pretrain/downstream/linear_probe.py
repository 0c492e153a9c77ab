"""Fit a linear head on frozen embeddings and predict each location by a head that has not seen it.

Reads
    results/embeddings/{model}/{dataset}/embeddings.zarr, results/datasets/{dataset}/labels.parquet
Writes
    results/downstream/{model}/{task}/linear.json

Two modes. `paper` (SSL4Eco): AdamW, learning rate 1e-3, weight decay 0.01, batches of 256, at most
1000 epochs, stopped after 10 epochs without a lower validation loss; the weights of the best epoch
are used (the published code tests the last). `fast`: features standardized by the training part,
full-batch L-BFGS (`full_batch`) from zero in every fold, the penalty chosen on the validation part. In both, 0.1
of a fold's training part is held out for validation and a regression target is learned as z-score
by training statistics; scores are in original units.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pretrain.downstream import full_batch
from pretrain.downstream.evaluation import Predictions, resolve_device, run_probe
from pretrain.downstream.folds import Folds
from pretrain.downstream.task_data import TaskData
from pretrain.downstream.tasks import Loss, Task
from workflow_scripts.core.stage import run_stage

logger = logging.getLogger(__name__)

Predicted = tuple[np.ndarray, dict[str, Any]]
"""Predictions of a fold's rows, in the target's own space, and what its fit says."""

PAPER = {
    "learning_rate": 1e-3,
    "weight_decay": 0.01,
    "batch_size": 256,
    "max_epochs": 1000,
    "patience": 10,
}
PENALTIES = (
    1000.0,
    300.0,
    100.0,
    30.0,
    10.0,
    3.0,
    1.0,
    0.3,
    0.1,
    0.03,
    0.01,
    3e-3,
    1e-3,
    3e-4,
    1e-4,
    3e-5,
    1e-5,
)
"""Candidates of the fast mode, from strong to weak: half the squared weights times this."""
FIRST_PENALTY = 0.1
"""Tried first; then weaker ones while the validation loss falls, or stronger ones."""
FEW_HELD = 200
"""With fewer validation rows all penalties are tried: the loss on few rows has more than one minimum."""
SEARCH_TOLERANCE, TOLERANCE = 1e-2, 1e-4
"""Relative fall of the objective, as the next step promises it, at which to stop: to choose the penalty by, and of
the result. A benchmark (benchmarks/probes.py) holds scores against fully trained heads."""
GROUP_WEIGHTS = 4_000_000
"""Weights of the folds that are fitted side by side: 16 MB, 16 times that in the solver's memory."""


def fit_paper(
    features: np.ndarray,
    targets: np.ndarray,
    *,
    held: tuple[np.ndarray, np.ndarray],
    loss: Loss,
    seed: int,
    device: str = "cpu",
) -> tuple[np.ndarray, dict[str, Any]]:
    """Train a head as the paper does, and give the weights of its best epoch.

    Parameters
    ----------
    features, targets : rows to fit
    held : features and targets of the validation rows
    seed : of the initial weights (torch.nn.Linear's) and of the order of rows
    device : torch device

    Returns
    -------
    weights (d + 1, outputs), the bias last, and what happened
    """
    generator = torch.Generator().manual_seed(seed)
    head = torch.nn.utils.skip_init(torch.nn.Linear, features.shape[1], targets.shape[1])
    bound = features.shape[1] ** -0.5
    with torch.no_grad():
        for parameter in (head.weight, head.bias):
            parameter.uniform_(-bound, bound, generator=generator)
    head = head.to(device)
    optimizer = torch.optim.AdamW(
        head.parameters(), lr=PAPER["learning_rate"], weight_decay=PAPER["weight_decay"]
    )
    x, y, held_x, held_y = (
        torch.as_tensor(values, dtype=torch.float32, device=device) for values in (features, targets, *held)
    )
    best, best_epoch, epoch = float("inf"), 0, 0
    state = {name: value.clone() for name, value in head.state_dict().items()}
    while epoch < PAPER["max_epochs"] and epoch - best_epoch < PAPER["patience"]:
        epoch += 1
        order = torch.randperm(len(x), generator=generator).to(device)
        for rows in order.split(PAPER["batch_size"]):
            optimizer.zero_grad()
            logits = head(x[rows])
            logits.backward(loss(logits.detach(), y[rows])[1])
            optimizer.step()
        with torch.no_grad():
            value = float(loss(head(held_x), held_y)[0])
        if value < best:
            best, best_epoch = value, epoch
            state = {name: value.clone() for name, value in head.state_dict().items()}
    weights = torch.cat([state["weight"].T, state["bias"][None]]).cpu().numpy()
    return weights, {"best_epoch": best_epoch, "n_epochs": epoch, "validation_loss": best}


def predict_paper(
    data: TaskData, jobs: Sequence[tuple[Folds, int]], task: Task, *, seed: int
) -> list[Predicted]:
    """Predict the rows of some folds of some divisions by heads trained as the paper does."""
    rules, results = task.rules, []
    for division, fold in jobs:
        fit_rows, held_rows = division.split_validation(fold, share=task.validation_share, seed=seed)
        center, scale = _target_scale(data.targets[fit_rows], task)

        def prepare(rows: np.ndarray, center: np.ndarray = center, scale: np.ndarray = scale) -> tuple:
            return data.features[rows], ((data.targets[rows] - center) / scale).astype(np.float32)

        weights, fit = fit_paper(
            *prepare(fit_rows),
            held=prepare(held_rows),
            loss=task.loss,
            seed=seed + fold,
            device=resolve_device(task.device),
        )
        logits = data.features[division.test(fold)] @ weights[:-1] + weights[-1]
        fit = {"n_train": int(fit_rows.size), "n_validation": int(held_rows.size), **fit}
        results.append((rules.link(logits.astype(np.float64)) * scale + center, fit))
    return results


def predict_fast(
    data: TaskData, jobs: Sequence[tuple[Folds, int]], task: Task, *, seed: int
) -> list[Predicted]:
    """Predict the rows of some folds by full-batch heads, the penalty of each chosen on its validation part.

    The folds share passes over the features and nothing else. A fold's first penalty starts from zero, each
    further one from its best weights so far; the result is fitted to all its training rows from these.
    """
    splits = [
        division.split_validation(fold, share=task.validation_share, seed=seed) for division, fold in jobs
    ]
    features = full_batch.shift_and_scale(data.features, device=resolve_device(task.device))
    group = max(1, GROUP_WEIGHTS // (features.shape[1] * data.targets.shape[1]))
    results = []
    for first in range(0, len(jobs), group):
        part = slice(first, first + group)
        tests = [division.test(fold) for division, fold in jobs[part]]
        results += _fit_group(features, data.targets, splits=splits[part], tests=tests, task=task)
    return results


def _fit_group(
    features: Tensor,
    targets: np.ndarray,
    *,
    splits: Sequence[tuple[np.ndarray, np.ndarray]],
    tests: Sequence[np.ndarray],
    task: Task,
) -> list[Predicted]:
    """Choose penalties, fit and predict the folds of a group together."""
    scales = [_target_scale(targets[fit_rows], task) for fit_rows, _ in splits]
    goals = [(targets - center) / scale for center, scale in (scales if task.rules.is_scaled else scales[:1])]
    goals = torch.as_tensor(np.stack(goals), dtype=torch.float32, device=features.device)
    loss = task.loss
    search = full_batch.Objective(
        full_batch.make_parts(features, [fit_rows for fit_rows, _ in splits]), goals, loss
    )
    preconditioner = full_batch.Preconditioner(search)
    held = [torch.as_tensor(held_rows, device=features.device) for _, held_rows in splits]
    weights, tried, n_evaluations = _search_penalties(search, preconditioner, held=held)
    chosen = [min(values, key=values.get) for values in tried]
    final = full_batch.Objective(
        full_batch.make_parts(features, [np.concatenate(split) for split in splits]), goals, loss
    )
    if min(len(fit_rows) for fit_rows, _ in splits) < full_batch.MOMENT_ROWS * features.shape[1]:
        # of few rows those held out add directions that the others do not have
        preconditioner = full_batch.Preconditioner(final)
    fitted = full_batch.minimize(
        final,
        preconditioner,
        start=weights,
        penalties=torch.tensor(chosen, dtype=torch.float64),
        active=range(len(splits)),
        tolerance=TOLERANCE,
    )
    results = []
    for i, ((fit_rows, held_rows), rows) in enumerate(zip(splits, tests, strict=True)):
        logits = final.logits(fitted.weights[i], i, torch.as_tensor(rows, device=features.device))
        center, scale = scales[i]
        fit = {
            "n_train": int(fit_rows.size),
            "n_validation": int(held_rows.size),
            "penalty": chosen[i],
            "validation_loss": tried[i][chosen[i]],
            "n_evaluations": int(n_evaluations[i] + fitted.n_evaluations[i]),
        }
        results.append((task.rules.link(logits.cpu().numpy().astype(np.float64)) * scale + center, fit))
    return results


def _search_penalties(
    objective: full_batch.Objective, preconditioner: full_batch.Preconditioner, *, held: Sequence[Tensor]
) -> tuple[Tensor, list[dict[float, float]], np.ndarray]:
    """Try each fold's penalties, neighbor by neighbor, until both neighbors of the best are worse.

    Where few rows are held out, all of them.

    Returns
    -------
    weights of each fold's best penalty, penalty -> validation loss of each fold, evaluations
    """
    n_parts, n_outputs = len(held), objective.targets.shape[2]
    shape = (n_parts, objective.parts.features.shape[1] + 1, n_outputs)
    best = torch.zeros(shape, device=objective.parts.features.device)
    tried: list[dict[float, float]] = [{} for _ in held]
    n_evaluations = np.zeros(n_parts, int)
    following: dict[int, float] = dict.fromkeys(range(n_parts), FIRST_PENALTY)
    while following:
        active = list(following)
        fitted = full_batch.minimize(
            objective,
            preconditioner,
            start=best[active],
            penalties=torch.tensor([following[part] for part in active], dtype=torch.float64),
            active=active,
            tolerance=SEARCH_TOLERANCE,
        )
        n_evaluations[active] += fitted.n_evaluations
        for part, weights in zip(active, fitted.weights, strict=True):
            logits = objective.logits(weights, part, held[part])
            value = float(objective.loss(logits, objective.goal(part)[held[part]])[0])
            if value < min(tried[part].values(), default=np.inf):
                best[part] = weights
            tried[part][following[part]] = value
        nexts = {part: _next_penalty(tried[part], try_all=len(held[part]) < FEW_HELD) for part in active}
        following = {part: penalty for part, penalty in nexts.items() if penalty is not None}
    return best, tried, n_evaluations


def _next_penalty(tried: Mapping[float, float], *, try_all: bool) -> float | None:
    """Give the untried penalty nearest to the best so far, the weaker one first; None where the search ends.

    It ends once both neighbors of the best were tried, or with `try_all` once all were.
    """
    best = PENALTIES.index(min(tried, key=tried.get))
    reach = len(PENALTIES) if try_all else 1
    near = (best + sign * step for step in range(1, reach + 1) for sign in (1, -1))
    found = (PENALTIES[i] for i in near if 0 <= i < len(PENALTIES))
    return next((penalty for penalty in found if penalty not in tried), None)


def _target_scale(targets: np.ndarray, task: Task) -> tuple[np.ndarray, np.ndarray]:
    """Give mean and standard deviation of each target (1 where constant); 0 and 1 where they are not scaled."""
    if not task.rules.is_scaled:
        return np.zeros(targets.shape[1]), np.ones(targets.shape[1])
    scale = targets.std(axis=0, dtype=np.float64)
    return targets.mean(axis=0, dtype=np.float64), np.where(np.ptp(targets, axis=0) > 0, scale, 1.0)


MODES = {"paper": predict_paper, "fast": predict_fast}


def probe(
    data: TaskData, folds: Sequence[Folds], task: Task, seed: int
) -> tuple[dict[str, Any], list[Predictions]]:
    """Run the linear probe of a task: every fold of every division from a cold start."""
    jobs = [(division, fold) for division in folds for fold in range(division.n_folds)]
    predicted = iter(MODES[task.mode](data, jobs, task, seed=seed))
    results = []
    for division in folds:
        values = np.zeros(data.targets.shape, np.float64)
        fits = []
        for fold in range(division.n_folds):
            values[division.test(fold)], fit = next(predicted)
            fits.append(fit)
            logger.info("task %s, %s fold %d: %s", task.name, division.method, fold, fit)
        results.append(Predictions(values, fits))
    settings = {"mode": task.mode, "validation_share": task.validation_share}
    if task.mode == "fast":
        settings |= {"features": "standardized by the training part", "penalties": list(PENALTIES)}
    else:
        settings |= {"features": "as embedded", "optimizer": "AdamW", **PAPER}
    return settings, results


def main(job: Any) -> None:
    """Write the linear probe's scores of one model on one task."""
    run_probe(job, "linear", probe)


if "snakemake" in globals():
    run_stage(main, snakemake)  # noqa: F821
