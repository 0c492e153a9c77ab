"""Differences between models on the same folds, tested, and what may be said of them.

A probe's folds share most of their training rows, so that the usual t-test of their differences is far too
sure of itself. The variance is corrected as of Nadeau and Bengio (2003, Inference for the generalization error);
p-values are adjusted over the tasks by Holm's method (1979). Such a test speaks of two encoders as they are. Which
dataset or objective is better is another question: it takes several pretraining runs of each, and the sentence is
not written with fewer than three.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from workflow_scripts.report import page
from workflow_scripts.report.inputs import Model

LEAST_SEEDS = 3
"""Pretraining runs of each side that a sentence on which is better needs."""
LEVEL = 0.05
"""Adjusted p-value below which a difference is called one."""
RESAMPLED = ("random", "blocked")
"""Divisions whose test parts differ from fold to fold; draws of one published test part are no sample of places."""
LOWER_IS_BETTER = ("mae", "rmse")
RANDOM_ENCODERS = ("trained", "random", "published", "joined")
"""Encoders that another seed makes another one; published weights are one run of theirs."""
COLUMNS = ("first", "second", "task", "probe", "folds", "metric", "difference")
MEANING = (
    "Each difference is that of two single runs over the same folds, first minus second; p is of the t-test corrected "
    "for overlapping training parts (Nadeau and Bengio 2003) and adjusted over the tasks (Holm 1979). It speaks of these "
    "two encoders, not of the datasets or objectives behind them."
)


def corrected_t_test(differences: Sequence[float], *, n_train: float, n_test: float) -> float:
    """Test whether the mean difference over resampled folds is zero.

    Parameters
    ----------
    differences : of the scores of each fold
    n_train, n_test : mean rows of a fold's training and test part

    Returns
    -------
    two-sided p-value; NaN with fewer than two folds

    References
    ----------
    Nadeau and Bengio (2003): t = mean / sqrt((1 / J + n_test / n_train) · variance), J - 1 degrees of freedom.
    """
    values = np.asarray(differences, float)
    if values.size < 2:
        return float("nan")
    variance = values.var(ddof=1) * (1 / values.size + n_test / n_train)
    if variance == 0:
        return 1.0 if values.mean() == 0 else 0.0
    return float(2 * stats.t.sf(abs(values.mean()) / np.sqrt(variance), values.size - 1))


def holm(p_values: Sequence[float]) -> np.ndarray:
    """Adjust p-values by Holm's step-down method; NaN stays NaN and does not count."""
    p = np.asarray(p_values, float)
    adjusted = np.full(p.shape, np.nan)
    known = np.flatnonzero(np.isfinite(p))
    order = known[np.argsort(p[known], kind="stable")]
    steps = p[order] * np.arange(order.size, 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return adjusted


def compare_runs(documents: Sequence[Mapping[str, Any]], models: Sequence[Model]) -> pd.DataFrame:
    """Compare the first runs of each two families, task by task.

    Returns
    -------
    DataFrame: first, second (families), task, probe, folds, metric, difference, p, p_adjusted (over the tasks)
    """
    first_runs: dict[str, Model] = {}
    for model in models:
        first_runs.setdefault(model.family, model)
    found = {(d["model"], d["task"], d["probe"]): d for d in documents}
    tasks = list(dict.fromkeys((d["task"], d["probe"]) for d in documents))
    rows = []
    for first, second in combinations(first_runs.values(), 2):
        for task, probe in tasks:
            pair = [found.get((model.name, task, probe)) for model in (first, second)]
            if None in pair:
                continue
            for folds in RESAMPLED:
                divisions = [document["folds"].get(folds) for document in pair]
                if None in divisions or divisions[0]["digest"] != divisions[1]["digest"]:
                    continue
                metric = pair[0]["main_metric"]
                scores = np.array([d["scores"][metric]["folds"] for d in divisions], float)
                change = (scores[0] - scores[1])[np.isfinite(scores).all(axis=0)]
                n_test = float(np.mean(divisions[0]["sizes"]))
                n_train = float(np.sum(divisions[0]["sizes"])) - n_test
                rows.append(
                    {
                        "first": first.family,
                        "second": second.family,
                        "task": task,
                        "probe": probe,
                        "folds": folds,
                        "metric": metric,
                        "difference": float(change.mean()) if change.size else np.nan,
                        "p": corrected_t_test(change, n_train=n_train, n_test=n_test),
                    }
                )
    table = pd.DataFrame(rows, columns=[*COLUMNS, "p"])
    groups = table.groupby(["first", "second", "probe", "folds"], sort=False)["p"]
    return table.assign(p_adjusted=groups.transform(lambda p: holm(p)) if len(table) else [])


def judge_families(
    documents: Sequence[Mapping[str, Any]], models: Sequence[Model], *, probe: str = "linear"
) -> list[str]:
    """Say of each two families with a trained one which is better, or why that cannot be said.

    Families are compared by their runs' mean scores over the folds that ask for a new region (or, without, the
    task's first division): Welch's t-test over seeds, adjusted over the tasks.

    Returns
    -------
    sentences; they say "better" only with `LEAST_SEEDS` runs of each side (an encoder without random choices needs
    one) and an adjusted p below `LEVEL`
    """
    runs: dict[str, list[Model]] = {}
    for model in models:
        runs.setdefault(model.family, []).append(model)
    scores: dict[str, dict[str, list[float]]] = {}
    metrics = {document["task"]: document["main_metric"] for document in documents}
    family_of = {model.name: model.family for model in models}
    for document in documents:
        if document["probe"] == probe:
            folds = document["folds"]
            division = folds.get("blocked") or next(iter(folds.values()))
            mean = division["scores"][document["main_metric"]]["mean"]
            scores.setdefault(family_of[document["model"]], {}).setdefault(document["task"], []).append(
                np.nan if mean is None else mean
            )
    sentences = []
    for first, second in combinations(runs, 2):
        if not any(_kind(runs[name][0]) == "trained" for name in (first, second)):
            continue
        few = [
            name for name in (first, second) if _is_random(runs[name][0]) and len(runs[name]) < LEAST_SEEDS
        ]
        if few:
            counts = " and ".join(f"{name} has {len(runs[name])}" for name in few)
            sentences.append(
                f"{first} and {second}: no statement on which is better. It needs {LEAST_SEEDS} pretraining runs; "
                f"{counts}."
            )
            continue
        common = [task for task in scores.get(first, {}) if task in scores.get(second, {})]
        samples = [(scores[first][task], scores[second][task]) for task in common]
        adjusted = holm([_welch(*sample) for sample in samples])
        better: dict[str, list[str]] = {first: [], second: []}
        for task, (a, b), p in zip(common, samples, adjusted, strict=True):
            if p < LEVEL:
                is_first = (np.mean(a) > np.mean(b)) != (metrics[task] in LOWER_IS_BETTER)
                better[first if is_first else second].append(f"{task} (p = {p:.2g})")
        words = [f"{name} is better on {', '.join(tasks)}" for name, tasks in better.items() if tasks]
        verdict = "; ".join(words) or "no difference that exceeds that between seeds"
        sentences.append(
            f"{first} and {second}, {len(common)} tasks, over pretraining runs: {verdict}."
            + _unequal_effort(runs[first], runs[second])
        )
    return sentences


def _unequal_effort(first: Sequence[Model], second: Sequence[Model]) -> str:
    """Say where trained encoders saw other numbers of places or steps, as their files tell."""
    words = []
    for key, name in (("n_locations", "places"), ("steps", "steps")):
        numbers = [
            sorted({int(m.encoder[key]) for m in side if key in m.encoder}) for side in (first, second)
        ]
        if all(numbers) and numbers[0] != numbers[1]:
            words.append(f"{' and '.join(', '.join(f'{n:,}' for n in side) for side in numbers)} {name}")
    return f" Not of equal effort: trained on {'; '.join(words)}." if words else ""


def _kind(model: Model) -> str:
    return model.settings.get("encoder") or "trained"


def _is_random(model: Model) -> bool:
    return _kind(model) in RANDOM_ENCODERS


def _welch(a: Sequence[float], b: Sequence[float]) -> float:
    """Two-sided p-value; a side of one value is a known number."""
    a, b = np.asarray(a, float), np.asarray(b, float)
    variances = [x.var(ddof=1) / x.size if x.size > 1 else 0.0 for x in (a, b)]
    total = sum(variances)
    if not np.isfinite(total) or total == 0:
        return float("nan")
    parts = [v**2 / (x.size - 1) for v, x in zip(variances, (a, b), strict=True) if v > 0]
    return float(2 * stats.t.sf(abs(a.mean() - b.mean()) / np.sqrt(total), total**2 / sum(parts)))


def differences_section(documents: Sequence[Mapping[str, Any]], models: Sequence[Model]) -> str:
    """Show what may be said of the models, and the tests fold by fold."""
    compared = compare_runs(documents, models)
    if compared.empty:
        return ""
    rows = [
        [
            f"{row.first} – {row.second}",
            row.task,
            f"{row.probe}, {row.folds} folds",
            row.metric.replace("_", " "),
            f"{row.difference:+.3f}",
            page.number(row.p, 3),
            page.number(row.p_adjusted, 3),
        ]
        for row in compared.itertuples()
    ]
    header = ["Models", "Task", "Probe", "Metric", "Difference", "p", "p over tasks"]
    table = page.table(header, rows, caption="Differences on the same folds")
    return (
        page.heading("Differences between models")
        + page.items(judge_families(documents, models))
        + page.folded("Differences on the same folds", page.paragraph(MEANING) + table)
    )
