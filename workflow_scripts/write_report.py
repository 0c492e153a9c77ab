"""Write the report: one HTML file with everything in it, readable offline.

Reads whatever the stages of each dataset, model and task wrote; inputs are named
`<part>/<name>/<kind>` (`datasets/demo/patches`, `models/demo-seco-s1/metrics`,
`scores/demo-seco-s1/demo-biome/linear`), so that what is absent is simply not there.
Writes `results/report.html`.
"""

import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from workflow_scripts.core.provenance import git_commit
from workflow_scripts.core.stage import atomic_path, read_json, run_stage
from workflow_scripts.report import page
from workflow_scripts.report.cost import cost_section
from workflow_scripts.report.embeddings import embeddings_section
from workflow_scripts.report.gallery import gallery_section
from workflow_scripts.report.inputs import Dataset, Model, load_dataset, load_model
from workflow_scripts.report.maps import locations_section
from workflow_scripts.report.phenology import phenology_section
from workflow_scripts.report.provenance import provenance_section
from workflow_scripts.report.representativeness import representativeness_section
from workflow_scripts.report.scenes import scenes_section
from workflow_scripts.report.summary import first_screen
from workflow_scripts.report.tasks import tasks_section
from workflow_scripts.report.timing import losses_section, timing_section
from workflow_scripts.report.training import stale_warnings, training_section
from workflow_scripts.report.values import storage_section, values_section

LOG = logging.getLogger(__name__)

CHAPTERS = (
    ("locations", "Locations", locations_section),
    ("representativeness", "Locations against the land", representativeness_section),
    ("phenology", "Phenology and seasons", phenology_section),
    ("timing", "Timing and clouds", timing_section),
    ("scenes", "Scenes and patches by biome", scenes_section),
    ("losses", "What is missing and why", losses_section),
    ("gallery", "Patches over the seasons", gallery_section),
    ("values", "Values", values_section),
    ("embeddings", "Embeddings on a map", embeddings_section),
    ("storage", "Storage", storage_section),
)
"""Anchor, title and maker of the parts that each dataset has."""


def group_inputs(inputs: Mapping[str, Any]) -> dict[str, dict[str, dict[str, Any]]]:
    """Sort named inputs by part, name and kind.

    Parameters
    ----------
    inputs : `<part>/<name>/<kind>` -> path or list of paths; for scores `<kind>` is `<task>/<probe>`

    Returns
    -------
    part -> name -> kind -> path(s)
    """
    grouped: dict[str, dict[str, dict[str, Any]]] = {"datasets": {}, "models": {}, "scores": {}}
    for key, value in inputs.items():
        part, name, kind = key.split("/", 2)
        grouped[part].setdefault(name, {})[kind] = value
    return grouped


def dataset_chapters(datasets: list[Dataset]) -> list[page.Section]:
    """Make the chapters that show datasets: subject first, then dataset by dataset."""
    sections = []
    for anchor, title, make in CHAPTERS:
        contents = []
        for dataset in datasets:
            html = make(dataset)
            if html:
                name = dataset.settings["report"]["title"] or dataset.name
                contents.append((f"<h3>Dataset {page.text(name)}</h3>" if len(datasets) > 1 else "") + html)
        sections.append(page.Section(anchor, title, "".join(contents)))
        LOG.info("%s: %d of %d datasets", anchor, len(contents), len(datasets))
    return sections


def build_report(
    datasets: list[Dataset],
    models: list[Model],
    *,
    scores: list[Mapping[str, Any]],
    facts: Mapping[str, str],
    logs: Path | None = None,
) -> str:
    """Compose the page.

    Parameters
    ----------
    datasets, models : what was read
    scores : contents of the probes' files
    facts : for the provenance: commit, digest of the configuration, seed
    logs : folder of what Snakemake measured of each job

    Returns
    -------
    HTML
    """
    warnings = stale_warnings(datasets, models)
    for warning in warnings:
        LOG.warning(warning)
    tasks = list(dict.fromkeys(document["task"] for document in scores))
    sections = [
        *dataset_chapters(datasets),
        page.Section("cost", "Cost", cost_section(logs) if logs else ""),
        page.Section("training", "Training", training_section(models)),
        page.Section("tasks", "Tasks", tasks_section(scores, models)),
        page.Section("provenance", "Provenance", provenance_section(datasets, models, facts=facts)),
    ]
    head = first_screen(datasets, models, tasks=tasks, warnings=warnings)
    made = page.text(
        f"Made {datetime.now(UTC):%Y-%m-%d %H:%M} UTC at commit {facts['Commit'][:12] or 'unknown'}."
    )
    return page.document("Seasonal patches: report", head=head, sections=sections, foot=made)


def main(job: SimpleNamespace) -> None:
    """Write the report of everything configured."""
    files = group_inputs(dict(job.input.items()))
    datasets = [
        load_dataset(name, settings, files["datasets"].get(name, {}))
        for name, settings in job.params.datasets.items()
    ]
    models = [
        load_model(name, settings, files["models"].get(name, {}))
        for name, settings in job.params.models.items()
    ]
    scores = [
        read_json(path) for name in job.params.models for path in files["scores"].get(name, {}).values()
    ]
    facts = {
        "Commit": git_commit(),
        "Configuration digest": job.params.config_digest,
        "Seed": str(job.params.seed),
    }
    html = build_report(datasets, models, scores=scores, facts=facts, logs=Path(job.params.logs))
    with atomic_path(job.output.report) as temporary:
        temporary.write_text(html, encoding="utf-8")
    LOG.info("%s: %.1f MB", job.output.report, len(html) / 1e6)


if "snakemake" in globals():
    run_stage(main, snakemake)  # noqa: F821
