"""The SSL4Eco paper's tables in their layout: its figures, and ours beside them where they may stand there.

Published figures are facts of the paper (published_figures.yaml says where they were read). Ours come from the
probes' documents. A figure of ours enters only if it is of as much data as the paper's: those of a made world, of a
miniature or of a subset are counted and named, never shown beside published ones. What was not run stays empty.
"""

from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from workflow_scripts.report import page

FIGURES = Path(__file__).with_name("published_figures.yaml")
LEAST_SHARE = 0.9
"""Of the paper's locations that a task of ours must have used."""
PROBES = {"linear": "LP", "knn": "k-NN"}
METRICS = {
    "macro_f1": "macro F1",
    "micro_f1": "micro F1",
    "macro_map": "macro mAP",
    "micro_map": "micro mAP",
    "macro_auroc": "macro AUROC",
    "micro_auroc": "micro AUROC",
    "macro_accuracy": "macro accuracy",
    "accuracy": "accuracy",
    "r2": "R²",
    "mae": "MAE",
    "rmse": "RMSE",
}
SAME = {"micro_f1": "accuracy"}
"""Of a task with one class per place, micro F1 is the accuracy."""
EMPTY = ""
MEANING = (
    "Scores are times 100, ± the standard deviation over folds, of ours over pretraining runs where there are two or more "
    "(number of runs in brackets). An empty cell was not run, or not on the paper's amount of data. Folds are random ones "
    "as the paper's, or its published split; scores over blocks stand in the report."
)


def read_figures() -> dict[str, Any]:
    """Read the published figures."""
    return yaml.safe_load(FIGURES.read_text())


def published(cell: Any) -> tuple[float, float | None]:
    """Split a printed cell into mean and standard deviation (None where none is printed)."""
    mean, *deviation = str(cell).split()
    return float(mean), float(deviation[0]) if deviation else None


def contradictions(figures: Mapping[str, Any]) -> list[str]:
    """Name the figures that the paper prints with different values in different tables."""
    found: dict[tuple, dict[str, list[str]]] = {}
    for name, table in figures["tables"].items():
        for model, cells in table["rows"].items():
            for column, cell in zip(table["columns"], cells, strict=True):
                mean = f"{published(cell)[0]:g}"
                found.setdefault((model, *column), {}).setdefault(mean, []).append(name)
    return [
        f"{figures['models'][model]}, {task}, {METRICS[metric]}, {PROBES[probe]}: "
        + " and ".join(f"{value} (table {', '.join(tables)})" for value, tables in values.items())
        for (model, task, metric, probe), values in found.items()
        if len(values) > 1
    ]


def refuse(
    document: Mapping[str, Any], figures: Mapping[str, Any], *, task: str, notices: Mapping[str, str | None]
) -> str | None:
    """Say why a document's scores may not stand beside the paper's; None if they may."""
    where = f"{document['model']} on {document['task']}"
    if task in figures["blind"]:
        return f"{where}: the paper's figures are of a blind test"
    if notices.get(document["dataset"]):
        return f"{where}: made data ({document['dataset']})"
    used, wanted = document["counts"]["n_used"], figures["sizes"][task]
    if used < LEAST_SHARE * wanted:
        return f"{where}: {used:,} of the paper's {wanted:,} locations"
    return None


def own_score(document: Mapping[str, Any], column: str, metric: str) -> float | None:
    """Find a score in a probe's document, times 100 but for errors in a unit of their own."""
    folds = document["folds"].get("fixed") or document["folds"].get("random")
    if folds is None:
        return None
    _, _, target = column.partition("/")
    if target:
        values = next((row for row in folds["per_output"] if row["code"] == target), {})
        value = values.get(metric)
        return value if value is None or metric in ("mae", "rmse") else 100 * value
    score = folds["scores"].get(metric) or folds["scores"].get(SAME.get(metric, ""))
    return None if score is None or score["mean"] is None else 100 * score["mean"]


def fold_deviation(document: Mapping[str, Any], column: str, metric: str) -> float | None:
    """Find the deviation over folds of a score, times 100; None where there is none."""
    folds = document["folds"].get("fixed") or document["folds"].get("random")
    score = folds["scores"].get(metric) or folds["scores"].get(SAME.get(metric, ""))
    return None if "/" in column or score is None or score["std"] is None else 100 * score["std"]


def lay_out(
    figures: Mapping[str, Any],
    documents: Sequence[Mapping[str, Any]],
    *,
    families: Mapping[str, str],
    notices: Mapping[str, str | None],
) -> tuple[dict[str, list[list[str]]], list[str]]:
    """Fill every table.

    Parameters
    ----------
    documents : of the probes
    families : model -> its entry in the configuration; one named as a row of the paper fills it, others follow
    notices : dataset -> what the report says first; a made world says so

    Returns
    -------
    table -> rows (label, cells…), a row of the paper and one of ours in turn, and why scores were left out
    """
    task_of = figures["tasks"]
    usable: dict[tuple[str, str, str], list[Mapping[str, Any]]] = {}
    refused = []
    known = dict.fromkeys(
        column[0].split("/")[0] for table in figures["tables"].values() for column in table["columns"]
    )
    for task in known:
        for document in documents:
            if document["task"] != task_of.get(task, task):
                continue
            reason = refuse(document, figures, task=task, notices=notices)
            if reason:
                refused.append(reason)
                continue
            usable.setdefault((families[document["model"]], task, document["probe"]), []).append(document)

    def own_cell(family: str, column: Sequence[str]) -> str:
        task, metric, probe = column
        runs = usable.get((family, task.split("/")[0], probe), [])
        values = [value for run in runs if (value := own_score(run, task, metric)) is not None]
        if not values:
            return EMPTY
        if len(values) > 1:
            return f"{np.mean(values):.1f} ± {np.std(values, ddof=1):.1f} ({len(values)})"
        deviation = fold_deviation(runs[0], task, metric)
        return f"{values[0]:.1f}" if deviation is None else f"{values[0]:.1f} ± {deviation:.1f}"

    tables = {}
    for name, table in figures["tables"].items():
        rows = []
        for model, cells in table["rows"].items():
            rows.append([f"{figures['models'][model]}, paper", *map(_printed, cells)])
            rows.append(
                [
                    f"{figures['models'][model]}, ours",
                    *(own_cell(model, column) for column in table["columns"]),
                ]
            )
        others = dict.fromkeys(family for family, *_ in usable if family not in table["rows"])
        added = [
            [f"{family}, ours", *(own_cell(family, column) for column in table["columns"])]
            for family in others
        ]
        tables[name] = rows + [row for row in added if any(row[1:])]
    return tables, list(dict.fromkeys(refused))


def _printed(cell: Any) -> str:
    return " ± ".join(str(cell).replace("-", "−").split())


def write_page(
    figures: Mapping[str, Any], tables: Mapping[str, list[list[str]]], refused: Sequence[str]
) -> str:
    """Put all tables into one HTML page."""
    sections = []
    for name, table in figures["tables"].items():
        header = ["Model"]
        for task, columns in groupby(table["columns"], key=lambda column: column[0]):
            header += [f"{task}, {METRICS[metric]}, {PROBES[probe]}" for _, metric, probe in columns]
        title = f"Table {name}: {table['title']}"
        sections.append(
            page.Section(f"table-{name.lower()}", title, page.table(header, tables[name], caption=title))
        )
    sections.append(
        page.Section(
            "contradictions",
            "Where the paper contradicts itself",
            page.paragraph("Both figures are printed above, each in its table.")
            + page.items(contradictions(figures)),
        )
    )
    notes = page.items(refused) if refused else page.paragraph("None.")
    sections.append(page.Section("left-out", "Scores of ours that do not stand here", notes))
    return page.document(
        "Tables of the SSL4Eco paper", head=page.paragraph(MEANING), sections=sections, foot=""
    )
