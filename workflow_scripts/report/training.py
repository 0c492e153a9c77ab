"""Training curves per seed, and encoders whose data have changed since."""

from collections.abc import Mapping, Sequence
from itertools import groupby

import numpy as np
import pandas as pd

from workflow_scripts.core.tables import dataset_digest
from workflow_scripts.report import page
from workflow_scripts.report.drawing import LINES, OKABE_ITO, legend_below, picture
from workflow_scripts.report.inputs import Dataset, Model

MAX_POINTS = 300
"""Longer curves are drawn as means of this many equal parts."""
CURVES = (
    ("loss_", "loss, nats", "Loss per embedding space."),
    ("top1_", "top-1 accuracy", "Share of queries whose positive key scores highest, per embedding space."),
    (
        "std_",
        "spread",
        "Standard deviation of the projections per dimension × √D: 1 is spread out, 0 collapsed.",
    ),
)
"""Prefix of the metric, axis label, caption."""


QUEUE_NOTE = (
    "The queue of negatives begins with random vectors, which are easy to tell apart: the loss starts low "
    "and rises until the queue holds keys of places (its size over the batch size, in steps). Judge it from there on."
)


def training_section(models: Sequence[Model]) -> str:
    """Show loss, top-1 and spread over the steps, one line per seed."""
    trained = [model for model in models if model.metrics is not None and len(model.metrics)]
    parts = []
    for family, group in groupby(trained, key=lambda model: model.family):
        seeds = list(group)
        figures = [_loss(seeds)]
        figures += [_per_space(seeds, *curve) for curve in CURVES]
        parts.append(page.heading(family) + page.paragraph(QUEUE_NOTE) + page.grid(figures))
    return "".join(parts) + training_table(trained)


def training_table(models: Sequence[Model]) -> str:
    """Sum up each run: steps, first and last loss, speed."""
    rows = []
    for model in models:
        metrics = model.metrics
        tenth = max(1, len(metrics) // 10)
        std = [column for column in metrics if column.startswith("std_")]
        smallest = metrics[std].tail(tenth).mean().min() if std else np.nan
        rows.append(
            [
                model.name,
                page.count(metrics["step"].max()),
                page.number(metrics["loss"].head(tenth).mean(), 3),
                page.number(metrics["loss"].tail(tenth).mean(), 3),
                page.number(smallest, 3),
                page.number(_column(metrics, "samples_per_s").median(), 1),
                page.number(100 * _column(metrics, "wait_share").median(), 1),
            ]
        )
    header = [
        "Model",
        "Steps",
        "Loss, first tenth",
        "Loss, last tenth",
        "Smallest spread, last tenth",
        "Locations/s",
        "Waiting for data, %",
    ]
    return page.table(header, rows, caption="Runs")


def stale_warnings(datasets: Sequence[Dataset], models: Sequence[Model]) -> list[str]:
    """Name each encoder whose dataset is no longer what it was trained on."""
    current = {data.name: dataset_digest(data.patches) for data in datasets if data.patches is not None}
    return [
        f"Model {model.name} was trained on another state of dataset {model.settings['dataset']}. "
        f"Its scores do not belong to the data shown here; snakemake --forcerun pretrain trains it again."
        for model in models
        if is_stale(model.encoder, current.get(model.settings.get("dataset")))
    ]


def is_stale(encoder: Mapping[str, str], digest: str | None) -> bool:
    """Tell whether an encoder records another dataset digest than the current one."""
    recorded = encoder.get("dataset_digest")
    return bool(recorded and digest and recorded != digest)


def thin(curve: pd.Series, steps: pd.Series) -> tuple[np.ndarray, np.ndarray]:
    """Average a long curve over equal parts, so that a picture of it stays small.

    Returns
    -------
    steps, values : at most `MAX_POINTS` each
    """
    parts = np.array_split(np.arange(len(curve)), min(MAX_POINTS, len(curve)))
    values, at = curve.to_numpy(float), steps.to_numpy(float)
    return np.array([at[p].mean() for p in parts]), np.array([values[p].mean() for p in parts])


def _loss(models: Sequence[Model]) -> str:
    with picture(4.6, 2.9) as drawn:
        ax = drawn.ax
        for i, model in enumerate(models):
            steps, values = thin(model.metrics["loss"], model.metrics["step"])
            ax.plot(steps, values, LINES[i % len(LINES)], color=OKABE_ITO[0], label=_label(model))
        ax.set(xlabel="step", ylabel="loss, nats")
        legend_below(ax)
    alt = "Training loss against step, one line per seed: " + ", ".join(
        f"{_label(m)} from {m.metrics['loss'].iloc[0]:.2f} to {m.metrics['loss'].iloc[-1]:.2f}"
        for m in models
    )
    return page.figure(drawn.uri, alt=alt + ".", caption="Training loss (sum over the embedding spaces).")


def _per_space(models: Sequence[Model], prefix: str, label: str, caption: str) -> str:
    columns = list(
        dict.fromkeys(column for model in models for column in model.metrics if column.startswith(prefix))
    )
    if not columns:
        return ""
    with picture(4.6, 2.9) as drawn:
        ax = drawn.ax
        for i, model in enumerate(models):
            for j, column in enumerate(columns):
                if column in model.metrics:
                    steps, values = thin(model.metrics[column], model.metrics["step"])
                    name = column.removeprefix(prefix).replace("_", " ")
                    style, color = LINES[i % len(LINES)], OKABE_ITO[j % len(OKABE_ITO)]
                    ax.plot(steps, values, style, color=color, label=name if i == 0 else None)
        ax.set(xlabel="step", ylabel=label)
        ax.set_ylim(bottom=0)
        legend_below(ax)
    styles = ", ".join(
        f"{_label(model)} {name}"
        for model, name in zip(models, ("solid", "dashed", "dotted", "dash-dotted"), strict=False)
    )
    alt = f"{label} against step for {len(columns)} embedding space(s) and {len(models)} seed(s)."
    return page.figure(drawn.uri, alt=alt, caption=f"{caption} Lines: {styles}.")


def _label(model: Model) -> str:
    return model.name if model.seed is None else f"seed {model.seed}"


def _column(metrics: pd.DataFrame, name: str) -> pd.Series:
    return metrics[name] if name in metrics else pd.Series(dtype=float)
