"""Put a model's embeddings of a dataset on a map, and show the places most like some of them.

Reads
    results/embeddings/{model}/{dataset}/embeddings.zarr, results/datasets/{dataset}/patches.zarr
Writes
    results/embeddings/{model}/{dataset}/embeddings.parquet: GeoParquet, per place `location_id`, `embedding` (mean over
    its seasons) and `red`, `green`, `blue` (first three principal components, 0 to 1)
    results/embeddings/{model}/{dataset}/map.html

With a dataset of `design: grid` in a `region`, this is the map of that region. Asked for by its file.
"""

import logging
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import xarray as xr

from workflow_scripts.core.stage import atomic_path, run_stage
from workflow_scripts.core.store import open_store
from workflow_scripts.report import page
from workflow_scripts.report.embeddings import (
    N_EXAMPLES,
    color_map,
    mean_embeddings,
    neighbors_of,
    principal_colors,
    spread_examples,
)

logger = logging.getLogger(__name__)


def tabulate(embeddings: xr.Dataset) -> tuple[gpd.GeoDataFrame, np.ndarray]:
    """Give one row per place with an embedding, and the embeddings (rows, feature).

    Raises
    ------
    ValueError
        If fewer than two places have one.
    """
    rows, values = mean_embeddings(embeddings["embedding"].to_numpy())
    if len(rows) < 2:
        raise ValueError(f"{len(rows)} places have an embedding; a map needs two. Run the target `patches`.")
    lon, lat = embeddings["lon"].to_numpy()[rows], embeddings["lat"].to_numpy()[rows]
    colors = principal_colors(values)
    table = gpd.GeoDataFrame(
        {
            "location_id": embeddings["location_id"].values.astype(object)[rows],
            "location": rows,
            "lon": lon,
            "lat": lat,
            **dict(zip(("red", "green", "blue"), colors.T, strict=True)),
            "embedding": list(values.astype(np.float32)),
        },
        geometry=gpd.points_from_xy(lon, lat),
        crs="EPSG:4326",
    )
    return table, values


def main(job: Any) -> None:
    """Write the table and the page."""
    with xr.open_zarr(Path(job.input.embeddings).parent, chunks=None) as embeddings:
        table, values = tabulate(embeddings)
    with atomic_path(job.output.table) as temporary:
        table.to_parquet(temporary)
    with open_store(Path(job.input.store).parent) as store:
        strips = [neighbors_of(table, values, store, row) for row in spread_examples(values, N_EXAMPLES)]
    sections = [
        page.Section("map", "Embeddings on a map", color_map(table)),
        page.Section("neighbors", "Places most like these", "".join(strips)),
    ]
    title = f"{job.wildcards.model} on {job.wildcards.dataset}"
    head = page.paragraph(
        f"{len(table):,} places, mean embedding over their seasons; similarity is the cosine."
    )
    if job.params.notice:
        head += page.paragraph(job.params.notice, kind="notice")
    with atomic_path(job.output.map) as temporary:
        Path(temporary).write_text(page.document(title, head=head, sections=sections, foot=""))
    logger.info("%d places mapped", len(table))


if "snakemake" in globals():
    run_stage(main, snakemake)  # noqa: F821
