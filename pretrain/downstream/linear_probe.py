"""Fit a linear head on frozen embeddings and predict each location by a head that has not seen it.

Reads
    results/embeddings/{model}/{dataset}/embeddings.zarr, results/datasets/{dataset}/labels.parquet
Writes
    results/downstream/{model}/{task}/linear.json

Two modes. `paper` (SSL4Eco): AdamW, learning rate 1e-3, weight decay 0.01, batches of 256, at most
1000 epochs, stopped after 10 epochs without a lower validation loss; the weights of the best epoch
are used (the published code tests the last). `fast`: features standardized by the training part,
full-batch L-BFGS from zero in every fold, the penalty chosen on the validation part. In both, 0.1
of a fold's training part is held out for validation and a regression target is learned as z-score
by training statistics; scores are in original units.
"""

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np

from pretrain.downstream.evaluation import Predictions, TaskData, run_probe
from pretrain.downstream.folds import Folds
from pretrain.downstream.tasks import Loss, Task
from workflow_scripts.core.stage import run_stage

logger = logging.getLogger(__name__)

PAPER = {
    "learning_rate": 1e-3,
    "weight_decay": 0.01,
    "batch_size": 256,
    "max_epochs": 1000,
    "patience": 10,
}
PENALTIES = (10.0, 1.0, 0.1, 1e-2, 1e-3, 1e-4)
"""Candidates of the fast mode, half the squared weights times this, from strong to weak."""
PENALTY_PATIENCE = 2
"""Weaker penalties tried after the validation loss stopped falling."""
SEARCH_TOLERANCE, TOLERANCE = 1e-3, 1e-4
"""Relative fall of the objective at which to stop, for choosing the penalty and for the result."""


def solve_full_batch(
    features: np.ndarray,
    targets: np.ndarray,
    *,
    loss: Loss,
    penalty: float,
    start: np.ndarray | None = None,
    max_iterations: int = 200,
    tolerance: float = TOLERANCE,
) -> tuple[np.ndarray, int]:
    """Minimize mean loss + penalty / 2 × squared weights by L-BFGS; the bias is not penalized.

    Parameters
    ----------
    features : (n, d); their type is that of the arithmetic
    targets : (n, outputs)
    start : weights to start from, zeros by default; only ever those of the same training rows
    tolerance : relative fall of the objective at which to stop

    Returns
    -------
    weights (d + 1, outputs), the bias last, and the number of evaluations
    """
    from scipy.optimize import minimize

    shape = (features.shape[1] + 1, targets.shape[1])

    def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
        weights = flat.reshape(shape)
        logits = features @ weights[:-1].astype(features.dtype)
        logits += weights[-1].astype(features.dtype)
        value, by_logits = loss(logits, targets)
        gradient = np.empty(shape)
        gradient[:-1] = features.T @ by_logits
        gradient[:-1] += penalty * weights[:-1]
        gradient[-1] = by_logits.sum(axis=0)
        return float(value) + penalty / 2 * float(np.sum(weights[:-1] ** 2)), gradient.ravel()

    result = minimize(
        objective,
        np.zeros(shape).ravel() if start is None else start.ravel(),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": max_iterations, "ftol": tolerance, "gtol": tolerance},
    )
    return result.x.reshape(shape), int(result.nfev)


def fit_fast(
    features: np.ndarray,
    targets: np.ndarray,
    *,
    held: tuple[np.ndarray, np.ndarray],
    loss: Loss,
) -> tuple[np.ndarray, dict[str, Any]]:
    """Choose the penalty on held-out rows, then fit on all rows with it, from zero.

    Parameters
    ----------
    features, targets : rows to fit, standardized features
    held : features and targets of the validation rows

    Returns
    -------
    weights (d + 1, outputs) and what was chosen
    """
    tried: list[tuple[float, float]] = []
    weights, n_evaluations = None, 0
    for penalty in PENALTIES:
        weights, n = solve_full_batch(
            features,
            targets,
            loss=loss,
            penalty=penalty,
            start=weights,
            tolerance=SEARCH_TOLERANCE,
        )
        n_evaluations += n
        value = float(loss(held[0] @ weights[:-1].astype(np.float32) + weights[-1], held[1])[0])
        tried.append((value, penalty))
        best = min(range(len(tried)), key=lambda i: tried[i][0])
        if len(tried) - 1 - best >= PENALTY_PATIENCE:
            break
    value, penalty = tried[best]
    weights, n = solve_full_batch(
        np.concatenate([features, held[0]]),
        np.concatenate([targets, held[1]]),
        loss=loss,
        penalty=penalty,
    )
    fit = {"penalty": penalty, "validation_loss": value, "n_evaluations": n_evaluations + n}
    return weights, fit


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
    import torch

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


def predict_fold(
    data: TaskData, folds: Folds, task: Task, *, fold: int, seed: int
) -> tuple[np.ndarray, dict[str, Any]]:
    """Predict the rows of one fold by a head fitted on the others.

    Returns
    -------
    predictions (rows of the fold, outputs) in the target's own space, and what the fit says
    """
    rules = task.rules
    fit_rows, held_rows = folds.split_validation(fold, share=task.validation_share, seed=seed)
    center, scale = np.zeros(data.targets.shape[1]), np.ones(data.targets.shape[1])
    if rules.is_scaled:
        center, scale = _statistics(data.targets[fit_rows])
    feature_center, feature_scale = 0.0, 1.0
    if task.mode == "fast":
        feature_center, feature_scale = _statistics(data.features[fit_rows])

    def prepare(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        features = (data.features[rows] - feature_center) / feature_scale
        targets = (data.targets[rows] - center) / scale
        return features.astype(np.float32), targets.astype(np.float32)

    train, held = prepare(fit_rows), prepare(held_rows)
    if task.mode == "fast":
        weights, fit = fit_fast(*train, held=held, loss=task.loss)
    else:
        weights, fit = fit_paper(
            *train, held=held, loss=task.loss, seed=seed + fold, device=_device(task.device)
        )
    logits = prepare(folds.test(fold))[0] @ weights[:-1].astype(np.float32) + weights[-1]
    fit = {"n_train": int(fit_rows.size), "n_validation": int(held_rows.size), **fit}
    return rules.link(logits.astype(np.float64)) * scale + center, fit


def _statistics(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Give mean and standard deviation of each column; 1 where a column is constant."""
    center = values.mean(axis=0, dtype=np.float64)
    scale = values.std(axis=0, dtype=np.float64)
    return center, np.where(np.ptp(values, axis=0) > 0, scale, 1.0)


def _device(wanted: str) -> str:
    if wanted != "auto":
        return wanted
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def probe(
    data: TaskData, folds: Sequence[Folds], task: Task, seed: int
) -> tuple[dict[str, Any], list[Predictions]]:
    """Run the linear probe of a task: every fold of every division from a cold start."""
    results = []
    for division in folds:
        values = np.zeros(data.targets.shape, np.float64)
        fits = []
        for fold in range(division.n_folds):
            predicted, fit = predict_fold(data, division, task, fold=fold, seed=seed)
            values[division.test(fold)] = predicted
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
