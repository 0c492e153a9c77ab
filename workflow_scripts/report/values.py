"""What the store holds and weighs: NDVI, spectra, bytes and files."""

import os
from pathlib import Path

import numpy as np
import pandas as pd

from workflow_scripts.core import bands
from workflow_scripts.report import page
from workflow_scripts.report.drawing import legend_below, picture, season_color
from workflow_scripts.report.inputs import Dataset
from workflow_scripts.report.reference import known_ndvi

REFERENCE_PATCH_BYTES = 13 * 256 * 256 * 2
"""A patch of 2,560 m as the paper's code stores it: 12 bands resampled to 10 m and NDVI, uncompressed."""


def values_section(dataset: Dataset) -> str:
    """Show the distribution of values and, where the dataset names it, the known NDVI curve."""
    figures = [_ndvi_histogram(dataset), _spectra(dataset)]
    return page.grid(figures) + _weights(dataset) + known_ndvi(dataset)


def storage_section(dataset: Dataset) -> str:
    """Count bytes and files of each array."""
    if dataset.store_path is None or not Path(dataset.store_path).exists():  # a bucket is not counted
        return ""
    sizes = folder_sizes(Path(dataset.store_path))
    n_stored = 0 if dataset.stored is None else len(dataset.stored)
    rows = [[name, page.count(n), page.n_bytes(size)] for name, n, size in sizes.itertuples(index=False)]
    rows.append(["all", page.count(sizes["n_files"].sum()), page.n_bytes(sizes["n_bytes"].sum())])
    html = page.table(["Array", "Files", "Size"], rows, caption="The store, by array")
    html = _verified(dataset) + page.folded("Bytes and files of each array", html)
    if not n_stored:
        return html
    per_patch = sizes["n_bytes"].sum() / n_stored
    scale = (dataset.settings["patches"]["size_m"] / 2560) ** 2
    note = (
        f"{page.n_bytes(per_patch)} a stored patch, all arrays and the missing patches' share included; "
        f"{page.n_bytes(REFERENCE_PATCH_BYTES * scale)} is what the same area takes, uncompressed, as twelve "
        "bands resampled to 10 m and NDVI."
    )
    return page.paragraph(note) + html


def folder_sizes(path: Path) -> pd.DataFrame:
    """Count files and bytes below each folder of a store.

    Returns
    -------
    DataFrame: name, n_files, n_bytes, largest first; files beside the arrays are `metadata`
    """
    found: dict[str, list[int]] = {}
    for folder, _, files in os.walk(path):
        parts = Path(folder).relative_to(path).parts
        entry = found.setdefault(parts[0] if parts else "metadata", [0, 0])
        for file in files:
            entry[0] += 1
            entry[1] += (Path(folder) / file).stat().st_size
    table = pd.DataFrame(
        [(name, *entry) for name, entry in found.items()], columns=["name", "n_files", "n_bytes"]
    )
    return table.sort_values("n_bytes", ascending=False, ignore_index=True)


def _ndvi_histogram(dataset: Dataset) -> str:
    if dataset.bands is None:
        return ""
    histogram = dataset.bands["ndvi_histogram"]
    edges = np.array(histogram["edges"])
    with picture(5.2, 3.0) as drawn:
        ax = drawn.ax
        for season, counts in histogram["counts"].items():
            total = sum(counts)
            if total:
                color = season_color(season, list(histogram["counts"]))
                ax.stairs(100 * np.array(counts) / total, edges, color=color, label=season, lw=1.6)
        ax.set(xlabel="NDVI, unitless", ylabel="pixels, %", xlim=(-0.4, 1))
        legend_below(ax)
    alt = "Distribution of NDVI of all stored 10 m pixels with data, one line per season."
    return page.figure(drawn.uri, alt=alt, caption="NDVI of all pixels with data, by season.")


def _spectra(dataset: Dataset) -> str:
    if dataset.bands is None:
        return ""
    summary = dataset.bands["bands"]
    seasons = list(dataset.bands["ndvi_histogram"]["counts"])
    wavelengths = [bands.WAVELENGTH_NM[band] for band in bands.ALL_BANDS]
    with picture(5.2, 3.0) as drawn:
        ax = drawn.ax
        for season in seasons:
            part = [summary[band][season] for band in bands.ALL_BANDS]
            if all(described["n"] == 0 for described in part):
                continue
            means = [np.nan if p["mean"] is None else p["mean"] * bands.REFLECTANCE_SCALE for p in part]
            ax.plot(wavelengths, means, "o-", ms=3.5, color=season_color(season, seasons), label=season)
        ax.set(xlabel="wavelength, nm", ylabel="mean reflectance, unitless", ylim=(0, None))
        legend_below(ax)
    alt = "Mean surface reflectance of the twelve bands against wavelength, one line per season."
    return page.figure(drawn.uri, alt=alt, caption="Mean spectrum of all pixels with data, by season.")


def _verified(dataset: Dataset) -> str:
    if dataset.verification is None or "n_patches" not in dataset.verification:
        return ""
    findings = dataset.verification.get("n_findings", {})
    words = ", ".join(f"{kind.replace('_', ' ')} {n:,}" for kind, n in findings.items()) or "nothing found"
    return page.paragraph(
        f"Verified: {dataset.verification['n_patches']:,} patches against index and checksums; {words}."
    )


def _weights(dataset: Dataset) -> str:
    if dataset.weights is None or not dataset.weights["n_locations"]:
        return ""
    rows = [
        [name.replace("_", " "), page.share(dataset.weights[name], 1), page.share(paper, 1)]
        for name, paper in dataset.weights["paper"].items()
    ]
    caption = f"Sampling weights: shares of the {dataset.weights['n_locations']:,} locations that train"
    return page.table(["Kind", "Here", "SSL4Eco"], rows, caption=caption)
