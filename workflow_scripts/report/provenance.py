"""Where it all comes from: versions, commit, configuration, sources and their licenses."""

import platform
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from workflow_scripts.core.provenance import versions
from workflow_scripts.report import page
from workflow_scripts.report.inputs import Dataset, Model

LIBRARIES = (
    "snakemake",
    "numpy",
    "pandas",
    "xarray",
    "zarr",
    "dask",
    "rasterio",
    "geopandas",
    "pyproj",
    "scipy",
    "matplotlib",
    "torch",
)


def provenance_section(
    datasets: Sequence[Dataset], models: Sequence[Model], *, facts: Mapping[str, str]
) -> str:
    """Show what the results depend on beyond the data.

    Parameters
    ----------
    facts : name -> value: commit, configuration digest, seed
    """
    rows = [[name, value or "not known"] for name, value in facts.items()]
    rows.append(["Python", platform.python_version()])
    rows += [[name, value or "not installed"] for name, value in versions(*LIBRARIES).items()]
    return (
        source_table(datasets)
        + page.table(["What", "Version or digest"], rows, caption="Versions", words=True)
        + encoder_table(models)
        + "".join(_options(dataset.name, dataset.settings) for dataset in datasets)
    )


def source_table(datasets: Sequence[Dataset]) -> str:
    """List each source once, with its license and the datasets made from it."""
    found: dict[tuple[str, str, str], list[str]] = {}
    for dataset in datasets:
        for source in dataset.settings["report"]["sources"]:
            key = (source["name"], source["license"], source.get("citation") or source.get("url") or "")
            found.setdefault(key, []).append(dataset.name)
    if not found:
        return page.paragraph("No sources are declared (report.sources of a dataset in the configuration).")
    rows = [[name, license_, words, ", ".join(names)] for (name, license_, words), names in found.items()]
    return page.table(["Source", "License", "Citation", "Datasets"], rows, caption="Sources", words=True)


def encoder_table(models: Sequence[Model]) -> str:
    """List what each encoder's file says about how it was made."""
    rows = [
        [
            model.name,
            model.encoder.get("backbone", "–"),
            model.encoder.get("dataset_digest", "–"),
            model.encoder.get("config_digest", "–"),
            model.encoder.get("git_commit", "–")[:12] or "–",
        ]
        for model in models
        if model.encoder
    ]
    header = ["Encoder", "Backbone", "Dataset digest", "Options digest", "Commit"]
    return page.table(header, rows, caption="Encoders", words=True)


def _options(name: str, settings: Mapping[str, Any]) -> str:
    listing = yaml.safe_dump({name: dict(settings)}, sort_keys=False, allow_unicode=True)
    return page.folded(f"All options of dataset {name}", f"<pre>{page.text(listing)}</pre>")
