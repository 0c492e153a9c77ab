"""Compute the coarsest feature map of every patch of a dataset with one frozen encoder, for targets with y and x.

Reads
    as embed_patches
Writes
    results/embeddings/{model}/{dataset}/maps.zarr: `features` float16 (location, season, channel, y, x), NaN where
    there is no patch; coordinates and attributes as of the embeddings, and `map_share`: side of the square
    about the patch's center that the map covers, as a share of the patch's side

Asked for by tasks with `cells`. A map of a ResNet-50 has 2048 × 7 × 7 numbers: 0.2 MB a patch; `PER_CHUNK` patches
of each season are in memory at a time.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pretrain.data import BandPlan, Batch, PatchReader
from pretrain.downstream.embed_patches import ArrayOf, run
from pretrain.downstream.embedder import Embedder
from workflow_scripts.core.objects import parent
from workflow_scripts.core.stage import run_stage
from workflow_scripts.core.store import layout

PER_CHUNK = 16
"""Locations of one season per chunk: 3 MB of 2048 × 7 × 7 features."""
LARGEST = float(np.finfo(np.float16).max)
PIXEL_M = 10
"""Of what networks see."""


def coarsest_map(
    embedder: Embedder, reader: PatchReader | None, rows: np.ndarray, *, device: str
) -> tuple[Embedder, tuple[int, ...]]:
    """Give an embedder whose embedding is the last feature map, flattened, and the map's shape (C, h, w).

    Raises
    ------
    ValueError
        If the encoder has no maps, or no patch is there to learn their shape from.
    """
    name = embedder.facts.get("adapter", embedder.facts["encoder"])
    if embedder.features is None or reader is None or not len(rows):
        raise ValueError(
            f"encoder {name!r} has no feature maps, or the dataset no patch; a task with `cells` needs both. "
            "List the tasks it is evaluated on under `tasks` of the model."
        )

    def last(batch: Batch, plan: BandPlan | None) -> Tensor:
        maps = embedder.features(batch, plan)
        if not maps:
            raise ValueError(
                f"encoder {name!r}: its network gives no feature maps, which a task with `cells` needs. List "
                "the tasks it is evaluated on under `tasks` of the model."
            )
        return maps[-1]

    dn, shift60 = reader.read(rows[:1, 0], rows[:1, 1:])
    nothing = torch.zeros(1, 1)
    probe = Batch(dn, shift60, torch.from_numpy(rows[:1, 1:]), nothing, torch.zeros(1, 2), ("",))
    with torch.inference_mode():
        shape = tuple(last(probe.to(torch.device(device)), reader.plan).shape[1:])

    def flat(batch: Batch, plan: BandPlan | None) -> Tensor:
        values = last(batch, plan).flatten(1)
        if values.abs().max() > LARGEST:
            raise ValueError(
                f"encoder {name!r}: features of {values.abs().max():.3g}, above {LARGEST:g}, what float16 can hold"
            )
        return values

    return replace(embedder, n_features=int(np.prod(shape)), embed=flat), shape


def main(job: Any) -> None:
    """Compute the feature maps of a dataset's patches with one model."""
    side_px = layout(parent(job.input.store))["size_m"] / PIXEL_M

    def what(
        embedder: Embedder, reader: PatchReader | None, rows: np.ndarray, device: str
    ) -> tuple[Embedder, ArrayOf, dict[str, Any]]:
        flat, shape = coarsest_map(embedder, reader, rows, device=device)
        array = ArrayOf(
            "features", ("channel", "y", "x"), shape, "float16", PER_CHUNK, "feature map of a patch"
        )
        # larger patches are cropped about their center, smaller ones enlarged whole (`fit_size`)
        return flat, array, {"map_share": min(1.0, embedder.facts["size_px"] / side_px)}

    run(job, what)


if "snakemake" in globals():
    run_stage(main, snakemake)  # noqa: F821
