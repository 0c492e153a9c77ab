"""Embed every patch of a labelled dataset with one frozen encoder, once for all its tasks.

Reads
    what the encoder is made of: results/models/{model}/encoder.safetensors, a user's file of weights, a table,
    embeddings of other models; the dataset's patches.parquet and patches.zarr
Writes
    results/embeddings/{model}/{dataset}/embeddings.zarr: `embedding` float32 (location, season,
    feature), NaN where there is no patch; coordinates location_id, lon, lat, season; attributes
    model, encoder_digest, dataset, dataset_digest, bands, scaling and what else the encoder states.
    Written beside its place and moved there whole.
"""

import logging
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import xarray as xr

from pretrain.data import Batch, PatchReader, prefetch
from pretrain.downstream.embedder import Embedder, Files
from pretrain.downstream.encoders import open_embedder
from workflow_scripts.core import tables
from workflow_scripts.core.objects import new_group, parent
from workflow_scripts.core.stage import progress, run_stage
from workflow_scripts.core.store import open_store

logger = logging.getLogger(__name__)

BATCH_SIZE = 64
"""Patches per forward pass: 0.2 GB of inputs at 264 px and 12 bands."""
CHUNK_LOCATIONS = 512
"""Locations of one season per chunk: 4 MB of 2048 features."""


@dataclass(frozen=True)
class ArrayOf:
    """The array of a store of features, per location and season."""

    name: str
    dims: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: str
    per_chunk: int
    """Locations of one season per chunk."""
    long_name: str


def embeddings_of(n_features: int) -> ArrayOf:
    """Describe the array of embeddings."""
    return ArrayOf(
        "embedding", ("feature",), (n_features,), "float32", CHUNK_LOCATIONS, "embedding of a patch"
    )


def locate_patches(patches: pd.DataFrame, *, coordinates: xr.Dataset) -> np.ndarray:
    """Give row and season position in the store of each patch that was retrieved.

    Parameters
    ----------
    patches : the dataset's index (`location_id`, `season`, `status`)
    coordinates : `location_id` and `season` of the store

    Returns
    -------
    int64 (n, 2), sorted

    Raises
    ------
    ValueError
        If the index names a location or season that the store does not have.
    """
    stored = patches[patches["status"] == "ok"]
    columns = []
    for name in ("location_id", "season"):
        known = pd.Index(coordinates[name].values.astype(object))
        position = known.get_indexer(stored[name].astype(str))
        if (position < 0).any():
            unknown = sorted(set(stored[name][position < 0]))
            raise ValueError(
                f"patches.parquet names {name} {unknown[:5]}, which patches.zarr does not have: run "
                "the target `patches` again"
            )
        columns.append(position)
    rows = np.stack(columns, axis=1).astype(np.int64)
    return rows[np.lexsort(rows.T[::-1])]


def embed_chunks(
    reader: PatchReader | None,
    embedder: Embedder,
    *,
    rows: np.ndarray,
    coordinates: xr.Dataset,
    device: str,
    per_block: int | None = None,
) -> Iterator[tuple[int, np.ndarray]]:
    """Embed patches, some hundred locations at a time.

    Parameters
    ----------
    reader : None for an encoder that sees no pixels
    rows : as of `locate_patches`
    coordinates : `location_id`, `lon`, `lat` and `season` of the store
    device : torch device
    per_block : locations at a time, `CHUNK_LOCATIONS` by default

    Yields
    ------
    first location and float32 (locations, season, feature), NaN where there is no patch, or the encoder
    knows nothing of the place
    """
    names = coordinates["location_id"].values.astype(object)
    lonlat = np.stack([coordinates["lon"].values, coordinates["lat"].values], axis=1)

    def read(batch: np.ndarray) -> Batch:
        seasons = batch[:, 1:]
        dn, shift60 = reader.read(batch[:, 0], seasons) if reader else ({}, None)
        return Batch(
            dn,
            shift60,
            season=torch.from_numpy(seasons),
            day_of_year=torch.zeros(seasons.shape),
            lonlat=torch.from_numpy(lonlat[batch[:, 0]]),
            location_id=tuple(names[batch[:, 0]]),
        )

    n_locations, n_seasons = coordinates.sizes["location"], coordinates.sizes["season"]
    per_block = per_block or CHUNK_LOCATIONS
    starts = range(0, n_locations, per_block)
    for first in progress(starts, len(starts), what=f"blocks of {per_block} locations"):
        last = min(first + per_block, n_locations)
        block = np.full((last - first, n_seasons, embedder.n_features), np.nan, np.float32)
        wanted = rows[(rows[:, 0] >= first) & (rows[:, 0] < last)]
        parts = [wanted[i : i + BATCH_SIZE] for i in range(0, len(wanted), BATCH_SIZE)]
        for part, batch in zip(parts, prefetch(read, parts), strict=True):
            with torch.inference_mode():
                values = embedder.embed(batch.to(torch.device(device)), reader and reader.plan)
            block[part[:, 0] - first, part[:, 1]] = values.float().cpu().numpy()
        missing = np.isnan(block).any(axis=2).sum() - (block.shape[0] * n_seasons - len(wanted))
        if missing and not embedder.may_lack:
            raise ValueError(
                f"{missing} embeddings of locations {first} to {last - 1} are not finite numbers: "
                "the encoder's weights or the patches are damaged (the target `verify` checks the patches)"
            )
        logger.info("embedded locations %d to %d, %d patches", first, last - 1, len(wanted))
        yield first, block


def write_embeddings(
    path: str | os.PathLike,
    chunks: Iterator[tuple[int, np.ndarray]],
    *,
    coordinates: xr.Dataset,
    array: ArrayOf,
    attributes: Mapping[str, Any],
) -> None:
    """Write a store of embeddings or feature maps; it takes the place of an older one when it is complete.

    Parameters
    ----------
    path : folder of the store
    chunks : as of `embed_chunks`
    coordinates : `location_id`, `lon`, `lat` and `season` of the patch store
    array : what the features of a patch are
    attributes : JSON values
    """
    with new_group(path) as root:
        n_locations, n_seasons = coordinates.sizes["location"], coordinates.sizes["season"]
        stored = root.create_array(
            array.name,
            shape=(n_locations, n_seasons, *array.shape),
            chunks=(min(array.per_chunk, n_locations), 1, *array.shape),
            dtype=array.dtype,
            fill_value=np.nan,
            dimension_names=("location", "season", *array.dims),
            attributes={"long_name": f"{array.long_name}; NaN = no patch", "units": "1"},
        )
        for first, block in chunks:
            stored[first : first + len(block)] = block.reshape(len(block), n_seasons, *array.shape)
        for name in ("location_id", "lon", "lat", "season"):
            variable = coordinates[name]
            is_text = variable.dtype.kind not in "fiu"
            values = variable.values.astype(object) if is_text else variable.values
            coordinate = root.create_array(
                name,
                shape=values.shape,
                chunks=values.shape,
                dtype=str if is_text else values.dtype,
                dimension_names=variable.dims,
                attributes=dict(variable.attrs),
            )
            coordinate[:] = values
        root.attrs.update({"coordinates": "location_id lon lat", **attributes})


def read_files(inputs: Any) -> Files:
    """Name the files an encoder is made of by a job's inputs; empty lists are none."""
    parts = [inputs.parts] if isinstance(inputs.parts, str) else inputs.parts
    return Files(
        weights=Path(str(inputs.encoder)) if inputs.encoder else None,
        table=Path(str(inputs.table)) if inputs.table else None,
        parts=tuple(Path(parent(part)) for part in parts),
    )


def run(
    job: Any,
    what: Callable[[Embedder, PatchReader | None, np.ndarray, str], tuple[Embedder, ArrayOf, dict[str, Any]]],
) -> None:
    """Do the work of a rule that computes something of every patch of a dataset with one model.

    Parameters
    ----------
    what : (embedder, reader, rows as of `locate_patches`, device) to an embedder that gives it, its array, and
        attributes of its own
    """
    device = job.params.model.get("device", "auto")
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    embedder = open_embedder(job.params.model, files=read_files(job.input), device=device)
    patches = tables.read_table(job.input.patches, "patches", ["location_id", "season", "status", "checksum"])
    store = parent(job.input.store)
    with open_store(store) as dataset:
        coordinates = dataset[["location_id", "lon", "lat", "season"]].load()
    rows = locate_patches(patches, coordinates=coordinates)
    n_locations = coordinates.sizes["location"]
    missing = n_locations - np.unique(rows[:, 0]).size
    logger.info("%d patches of %d locations, %d without any, on %s", len(rows), n_locations, missing, device)
    reader = PatchReader(store, embedder.bands, n_threads=job.threads) if embedder.bands else None
    embedder, array, attributes = what(embedder, reader, rows, device)
    write_embeddings(
        parent(job.output.store),
        embed_chunks(
            reader,
            embedder,
            rows=rows,
            coordinates=coordinates,
            device=device,
            per_block=array.per_chunk,
        ),
        coordinates=coordinates,
        array=array,
        attributes={
            "model": job.wildcards.model,
            "encoder_digest": embedder.digest,
            "dataset": job.wildcards.dataset,
            "dataset_digest": tables.dataset_digest(patches),
            "bands": list(embedder.bands),
            **embedder.facts,
            **attributes,
        },
    )


def main(job: Any) -> None:
    """Embed a dataset's patches with one model."""
    run(job, lambda embedder, *_: (embedder, embeddings_of(embedder.n_features), {}))


if "snakemake" in globals():
    run_stage(main, snakemake)  # noqa: F821
