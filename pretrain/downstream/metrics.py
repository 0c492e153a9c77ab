"""Metrics of task kinds, of all locations together and per class or target.

All take predictions in the target's own space: probabilities, distributions or original units.
"""

from collections.abc import Mapping

import numpy as np

LOWER_IS_BETTER = ("mae", "rmse")


def r2(predictions: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Give the coefficient of determination of each column; NaN where the target is constant."""
    residual = np.sum((targets - predictions) ** 2, axis=0)
    total = np.sum((targets - targets.mean(axis=0)) ** 2, axis=0)
    varies = np.ptp(targets, axis=0) > 0
    return np.where(varies, 1 - residual / np.where(varies, total, 1), np.nan)


def _mean(values: np.ndarray) -> float:
    values = values[np.isfinite(values)]
    return float(values.mean()) if values.size else float("nan")


def classification_scores(probabilities: np.ndarray, targets: np.ndarray) -> dict[str, float]:
    """Give macro F1 over the classes present in truth or prediction, and other scores.

    Accuracy (micro F1 is the same); macro accuracy, the mean recall of the classes with members; macro AUROC, the
    mean over classes with members and others, each against all others.
    """
    from sklearn.metrics import f1_score

    truth, chosen = targets.argmax(axis=1), probabilities.argmax(axis=1)
    macro = f1_score(truth, chosen, average="macro", zero_division=0)
    recalls = [np.mean(chosen[truth == i] == i) for i in np.unique(truth)]
    return {
        "macro_f1": float(macro),
        "accuracy": float(np.mean(truth == chosen)),
        "macro_accuracy": float(np.mean(recalls)),
        "macro_auroc": _macro_auroc(probabilities, targets),
    }


def _macro_auroc(probabilities: np.ndarray, targets: np.ndarray) -> float:
    from sklearn.metrics import roc_auc_score

    truth = targets > 0.5
    mixed = np.flatnonzero(truth.any(axis=0) & ~truth.all(axis=0))
    return _mean(np.array([roc_auc_score(truth[:, i], probabilities[:, i]) for i in mixed]))


def classification_details(probabilities: np.ndarray, targets: np.ndarray) -> list[dict[str, float]]:
    """Give F1, precision, recall and support of each class; NaN for a class without members."""
    return _label_details(one_hot(probabilities.argmax(axis=1), targets.shape[1]), targets)


def regression_scores(values: np.ndarray, targets: np.ndarray) -> dict[str, float]:
    """Give R2 (mean over targets) and, for a single target, MAE and RMSE in its own unit."""
    scores = {"r2": _mean(r2(values, targets))}
    if targets.shape[1] == 1:
        scores |= {key: regression_details(values, targets)[0][key] for key in ("mae", "rmse")}
    return scores


def regression_details(values: np.ndarray, targets: np.ndarray) -> list[dict[str, float]]:
    """Give R2, MAE and RMSE of each target, in its own unit."""
    difference = values - targets
    columns = {
        "r2": r2(values, targets),
        "mae": np.abs(difference).mean(axis=0),
        "rmse": np.sqrt((difference**2).mean(axis=0)),
    }
    return _rows(columns)


def multilabel_scores(probabilities: np.ndarray, targets: np.ndarray) -> dict[str, float]:
    """Give F1 at 0.5, average precision and AUROC; macro ones over the labels with positives."""
    from sklearn.metrics import average_precision_score, roc_auc_score

    chosen, truth = probabilities >= 0.5, targets > 0.5
    shared = np.sum(chosen & truth)
    counted = chosen.sum() + truth.sum()
    positive = np.flatnonzero(truth.any(axis=0))
    precisions = [average_precision_score(truth[:, i], probabilities[:, i]) for i in positive]
    is_mixed = truth.any() and not truth.all()
    micro_map = float("nan")
    if truth.any():
        micro_map = float(average_precision_score(truth.ravel(), probabilities.ravel()))
    details = _label_details(chosen, targets)
    return {
        "micro_f1": float(2 * shared / counted) if counted else float("nan"),
        "macro_f1": _mean(np.array([details[i]["f1"] for i in positive])),
        "micro_map": micro_map,
        "macro_map": _mean(np.array(precisions)),
        "micro_auroc": float(roc_auc_score(truth.ravel(), probabilities.ravel()))
        if is_mixed
        else float("nan"),
        "macro_auroc": _macro_auroc(probabilities, targets),
    }


def multilabel_details(probabilities: np.ndarray, targets: np.ndarray) -> list[dict[str, float]]:
    """Give F1, precision, recall (at 0.5) and number of positives of each label."""
    return _label_details(probabilities >= 0.5, targets)


def distribution_scores(shares: np.ndarray, targets: np.ndarray) -> dict[str, float]:
    """Give R2, MAE and RMSE of predicted distributions, each the mean over bins.

    Parameters
    ----------
    shares : (n, bins), each row a distribution; no link is applied here (a sigmoid over the
        distributions a k-NN gives is the reference's fault: a perfect prediction then has R2 0.11)
    targets : (n, bins), each row a distribution
    """
    rmse = np.sqrt(((shares - targets) ** 2).mean(axis=0)).mean()
    return {
        "r2": _mean(r2(shares, targets)),
        "mae": float(np.abs(shares - targets).mean()),
        "rmse": float(rmse),
    }


def one_hot(ids: np.ndarray, size: int) -> np.ndarray:
    """Turn ids (n,) into booleans (n, size); a negative id has none."""
    return np.arange(size) == np.asarray(ids)[:, None]


def _label_details(chosen: np.ndarray, targets: np.ndarray) -> list[dict[str, float]]:
    truth = targets > 0.5
    hits = np.sum(chosen & truth, axis=0)
    n, n_chosen = truth.sum(axis=0), chosen.sum(axis=0)
    known = np.where(n > 0, 1.0, np.nan)
    columns = {
        "f1": known * 2 * hits / np.maximum(n + n_chosen, 1),
        "precision": known * hits / np.maximum(n_chosen, 1),
        "recall": known * hits / np.maximum(n, 1),
        "n": n,
    }
    return _rows(columns)


def _rows(columns: Mapping[str, np.ndarray]) -> list[dict[str, float]]:
    lists = [np.asarray(values).tolist() for values in columns.values()]
    return [dict(zip(columns, row, strict=True)) for row in zip(*lists, strict=True)]
