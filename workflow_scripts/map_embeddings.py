"""Put a model's embeddings of a dataset on a map, and name the places most like some of them.

Reads
    results/embeddings/{model}/{dataset}/embeddings.zarr
Writes
    results/embeddings/{model}/{dataset}/embeddings.parquet: GeoParquet, per place `location_id`, `embedding` (mean over
    its seasons) and `red`, `green`, `blue` (first three principal components, 0 to 1)
    results/embeddings/{model}/{dataset}/neighbors.json: places, and the most similar ones of each by cosine

With a dataset of `design: grid` in a `region`, this is the map of that region. The report shows both.
"""

import logging
from collections.abc import Sequence
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import xarray as xr

from workflow_scripts.core.objects import open_folder, parent
from workflow_scripts.core.stage import atomic_path, run_stage, write_json
from workflow_scripts.report.embeddings import (
    N_EXAMPLES,
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
    rows, values = mean_embeddings(embeddings["embedding"])
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


def example_rows(table: gpd.GeoDataFrame, values: np.ndarray, named: Sequence[str]) -> list[int]:
    """Give the rows of the places named; of none, some that are unlike each other.

    Raises
    ------
    ValueError
        If a place named has no embedding.
    """
    if not named:
        return spread_examples(values, N_EXAMPLES)
    rows = pd.Index(table["location_id"]).get_indexer(list(named))
    if (rows < 0).any():
        unknown = [name for name, row in zip(named, rows, strict=True) if row < 0]
        raise ValueError(
            f"report.embeddings.neighbors_of names {unknown}, of which there is no embedding; expected ids of places "
            f"with a patch, such as {table['location_id'].iloc[0]!r}"
        )
    return rows.tolist()


def main(job: Any) -> None:
    """Write the table, and the neighbors."""
    with xr.open_zarr(open_folder(parent(job.input.embeddings)).zarr_store(), chunks=None) as embeddings:
        table, values = tabulate(embeddings)
    with atomic_path(job.output.table) as temporary:
        table.to_parquet(temporary)
    rows = example_rows(table, values, job.params.neighbors_of)
    write_json(job.output.neighbors, {"examples": [neighbors_of(table, values, row) for row in rows]})
    logger.info("%d places mapped", len(table))


if "snakemake" in globals():
    run_stage(main, snakemake)  # noqa: F821
