"""Scores of the downstream tasks: models, probes, folds; every row whatever the result."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from workflow_scripts.report import page
from workflow_scripts.report.differences import LOWER_IS_BETTER, differences_section
from workflow_scripts.report.drawing import OKABE_ITO, legend_below, picture
from workflow_scripts.report.inputs import Model

UNTRAINED = {
    "published": "published weights",
    "random": "random weights",
    "mean_spectrum": "mean spectrum, no network",
    "band_quantiles": "quantiles of bands, no network",
    "coordinates": "coordinates only, no pixels",
    "table": "a table only, no pixels",
    "joined": "several side by side",
}
"""Encoders that were not trained here, in the order in which they follow the trained ones."""
PROBES = {"linear": "linear probe", "knn": "k-NN"}
FOLDS = {"random": "random folds", "blocked": "blocked folds", "fixed": "published split"}
METRICS = {
    "macro_f1": "macro F1",
    "micro_f1": "micro F1",
    "micro_map": "micro mAP",
    "macro_map": "macro mAP",
    "macro_accuracy": "macro accuracy",
    "macro_auroc": "macro AUROC",
    "micro_auroc": "micro AUROC",
    "r2": "R²",
    "mae": "MAE",
    "rmse": "RMSE",
}
MEANING = (
    "Random folds hold out places among their neighbors (a new place of the same population), blocked folds whole "
    "regions (a new region); the published split is that of the data set's authors. With two or more seeds, ± is the standard deviation between the seeds' scores, each the "
    "mean over folds; with one run, marked *, it is the standard deviation between folds. Neither is a "
    "confidence interval."
)


def collect_scores(documents: Sequence[Mapping[str, Any]], models: Sequence[Model]) -> pd.DataFrame:
    """Put the probes' documents into one table.

    Parameters
    ----------
    documents : contents of `linear.json` and `knn.json`
    models : in the order of the configuration

    Returns
    -------
    DataFrame: task, kind, main_metric, n_used, family, label, order, seed, probe, folds, metric, mean, std
    """
    by_name = {model.name: model for model in models}
    rows = []
    for document in documents:
        model = by_name[document["model"]]
        for folds, division in document["folds"].items():
            for metric, score in division["scores"].items():
                rows.append(
                    {
                        "task": document["task"],
                        "kind": document["kind"],
                        "main_metric": document["main_metric"],
                        "n_used": document["counts"]["n_used"],
                        "family": model.family,
                        "label": describe_model(model),
                        "order": row_order(model, models),
                        "seed": model.seed,
                        "probe": document["probe"],
                        "folds": folds,
                        "metric": metric,
                        "mean": np.nan if score["mean"] is None else score["mean"],
                        "std": np.nan if score["std"] is None else score["std"],
                    }
                )
    return pd.DataFrame(rows)


def describe_model(model: Model) -> str:
    """Name a row: what the model is and how it was trained, if at all."""
    encoder = model.settings.get("encoder")
    if encoder is not None:
        return f"{model.family} ({UNTRAINED.get(encoder, encoder)})"
    return f"{model.family} (trained: {model.settings.get('objective', 'objective not given')})"


def row_order(model: Model, models: Sequence[Model]) -> tuple[int, int]:
    """Give the place of a model's row: trained ones first, then by the configuration; never by score."""
    kinds = list(UNTRAINED)
    encoder = model.settings.get("encoder")
    kind = 0 if encoder is None else 1 + (kinds.index(encoder) if encoder in kinds else len(kinds))
    return kind, [other.family for other in models].index(model.family)


def combine_seeds(scores: pd.DataFrame) -> pd.DataFrame:
    """Combine the seeds of each model.

    Returns
    -------
    DataFrame: the columns that name a cell, mean, spread (sample standard deviation over seeds, over
    folds where there is one seed), n_seeds
    """
    cell = ["task", "kind", "main_metric", "n_used", "family", "label", "order", "probe", "folds", "metric"]
    combined = scores.groupby(cell, as_index=False, dropna=False).agg(
        mean=("mean", "mean"),
        over_seeds=("mean", "std"),
        over_folds=("std", "first"),
        n_seeds=("seed", "size"),
    )
    spread = combined["over_seeds"].where(combined["n_seeds"] > 1, combined["over_folds"])
    return combined.assign(spread=spread).drop(columns=["over_seeds", "over_folds"])


def tasks_section(documents: Sequence[Mapping[str, Any]], models: Sequence[Model]) -> str:
    """Show each task's table and picture."""
    if not documents:
        return ""
    combined = combine_seeds(collect_scores(documents, models))
    parts = [page.paragraph(MEANING)]
    for task in dict.fromkeys(document["task"] for document in documents):
        part = combined[combined["task"] == task]
        main = part["main_metric"].iloc[0]
        others = [metric for metric in part["metric"].unique() if metric != main]
        kind, n_used = part["kind"].iloc[0], part["n_used"].iloc[0]
        parts.append(page.heading(f"{task}: {kind}, {n_used:,} locations"))
        parts.append(score_table(part, main) + page.grid([_dots(part, main)]))
        parts.append(page.folded("Other metrics", "".join(score_table(part, metric) for metric in others)))
        parts.append(_per_output(documents, models, task))
        parts.append(_fold_distances(documents, task))
    return "".join(parts) + differences_section(documents, models)


def _per_output(documents: Sequence[Mapping[str, Any]], models: Sequence[Model], task: str) -> str:
    """Show the linear probe's score of each class or target, the mean over a model's runs; of one output nothing."""
    by_name = {model.name: model for model in models}
    scores: dict[str, dict[tuple[str, Any], list[float]]] = {}
    n_of: dict[tuple[str, Any], Any] = {}
    chosen = [d for d in documents if d["task"] == task and d["probe"] == "linear"]
    chosen.sort(key=lambda d: row_order(by_name[d["model"]], models))
    for document in chosen:
        division = document["folds"].get("blocked") or next(iter(document["folds"].values()))
        of_model = scores.setdefault(describe_model(by_name[document["model"]]), {})
        for output in division.get("per_output", []):
            key = (str(output["name"]), output["code"])
            n_of[key] = output.get("n")
            value = output.get("f1", output.get("r2"))
            of_model.setdefault(key, []).append(np.nan if value is None else value)
    if len(n_of) < 2:
        return ""
    has_classes = any(n is not None for n in n_of.values())
    rows = [
        [key[0], *([n_of[key]] if has_classes else [])]
        + [
            page.number(np.mean(of[key]), 3) if np.isfinite(of.get(key, [np.nan])).all() else "–"
            for of in scores.values()
        ]
        for key in sorted(n_of, key=lambda key: -(n_of[key] or 0))
    ]
    words = "F1" if has_classes else "R²"
    where = FOLDS[next(name for name in ("blocked", *FOLDS) if name in chosen[0]["folds"])]
    header = ["Class", "n", *scores] if has_classes else ["Target", *scores]
    caption = f"{words} of each {'class' if has_classes else 'target'}, {PROBES['linear']}, {where}, all tested places together"
    return page.folded(
        f"By {'class' if has_classes else 'target'}", page.table(header, rows, caption=caption)
    )


def score_table(part: pd.DataFrame, metric: str) -> str:
    """Make the table of one metric: models by probes and folds."""
    part = part[part["metric"] == metric]
    cells = part.set_index(["label", "probe", "folds"])
    columns = [
        (probe, folds)
        for probe in PROBES
        for folds in FOLDS
        if ((part["probe"] == probe) & (part["folds"] == folds)).any()
    ]
    rows = []
    for label in _labels_in_order(part):
        row = [label]
        for probe, folds in columns:
            if (label, probe, folds) not in cells.index:
                row.append("–")
                continue
            cell = cells.loc[(label, probe, folds)]
            mark = "" if cell["n_seeds"] > 1 else "*"
            row.append(f"{page.number(cell['mean'], 3)} ± {page.number(cell['spread'], 3)}{mark}")
        seeds = part.loc[part["label"] == label, "n_seeds"].max()
        rows.append([*row, seeds])
    header = ["Model", *(f"{PROBES[probe]}, {FOLDS[folds]}" for probe, folds in columns), "Runs"]
    return page.table(header, rows, caption=_metric_name(metric))


def _metric_name(metric: str) -> str:
    name = METRICS.get(metric, metric.replace("_", " "))
    lower_is_better = metric in LOWER_IS_BETTER
    return f"{name} ({'lower' if lower_is_better else 'higher'} is better)"


def _labels_in_order(part: pd.DataFrame) -> list[str]:
    return part.sort_values("order", kind="stable")["label"].drop_duplicates().tolist()


def _dots(part: pd.DataFrame, metric: str) -> str:
    part = part[part["metric"] == metric]
    labels = _labels_in_order(part)
    names = part.drop_duplicates("label").set_index("label")["family"]
    with picture(5.6, 1.5 + 0.42 * len(labels)) as drawn:
        ax = drawn.ax
        for i, probe in enumerate(PROBES):
            for j, folds in enumerate(FOLDS):
                cells = part[(part["probe"] == probe) & (part["folds"] == folds)].set_index("label")
                shown = [label for label in labels if label in cells.index]
                if not shown:
                    continue
                height = [labels.index(label) + (2 * i + j - 1.5) * 0.16 for label in shown]
                ax.errorbar(
                    cells.loc[shown, "mean"],
                    height,
                    xerr=cells.loc[shown, "spread"],
                    fmt="os"[i],
                    ms=5.5,
                    color=OKABE_ITO[i],
                    mfc=OKABE_ITO[i] if j == 0 else "white",
                    elinewidth=1,
                    label=f"{PROBES[probe]}, {FOLDS[folds]}",
                )
        ax.set(yticks=range(len(labels)), yticklabels=[names[label] for label in labels])
        ax.set(ylim=(len(labels) - 0.5, -0.5), xlabel=_metric_name(metric))
        legend_below(ax, n_columns=2)
    alt = f"{_metric_name(metric)} of {len(labels)} models by probe and folds, with the spread as bars."
    return page.figure(drawn.uri, alt=alt)


def _block(division: Mapping[str, Any]) -> str:
    return f" of blocks of {division['block_km']:g} km" if division.get("block_km") else ""


def _fold_distances(documents: Sequence[Mapping[str, Any]], task: str) -> str:
    """Say how far tested places lie from those learned from."""
    document = next(d for d in documents if d["task"] == task)
    words = [
        f"{FOLDS.get(name, name)}: {division['n_folds']} folds{_block(division)}, median distance from a tested location to the nearest "
        f"one learned from {division['train_test_distance_km']['median']:.1f} km"
        for name, division in document["folds"].items()
    ]
    return page.items(words)
