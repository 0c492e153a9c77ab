"""What every encoder to compare is: bands, facts, and a function from patches to embeddings."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from pretrain.data import BandPlan, Batch


@dataclass(frozen=True)
class Files:
    """Files an encoder may be made of; which ones, its entry in the config says."""

    weights: Path | None = None
    """`encoder.safetensors` of a trained model, or the user's own file."""
    table: Path | None = None
    """A table with `location_id`."""
    parts: tuple[Path, ...] = ()
    """Folders of embeddings of the same dataset."""


@dataclass(frozen=True)
class Embedder:
    """An encoder with its preprocessing."""

    bands: tuple[str, ...]
    """What it reads of a patch; none for an encoder that sees no pixels."""
    n_features: int
    digest: str
    """Of the weights, or of what determines the embedding where there are none."""
    facts: Mapping[str, Any]
    """Attributes of the embeddings: scaling, size, backbone or statistics."""
    embed: Callable[[Batch, BandPlan | None], Tensor]
    """A batch of one season (N, 1, …) to embeddings (N, n_features); NaN only where `may_lack`."""
    features: Callable[[Batch, BandPlan | None], tuple[Tensor, ...]] | None = None
    """A batch of one season to feature maps (N, C, h, w), fine to coarse; None where the encoder has none."""
    may_lack: bool = field(default=False)
    """Whether it knows nothing of some locations: they are left out of its tasks."""


def fit_size(images: Tensor, size_px: int) -> Tensor:
    """Bring images (N, C, H, W) to size_px by a center crop, or by bicubic upsampling if smaller."""
    height, width = images.shape[-2:]
    if height >= size_px and width >= size_px:
        return crop_center(images, size_px)
    return functional.interpolate(images, size=(size_px, size_px), mode="bicubic", align_corners=False)


def crop_center(images: Tensor, size_px: int) -> Tensor:
    """Cut the middle size_px × size_px out of images (N, C, H, W)."""
    height, width = images.shape[-2:]
    top, left = (height - size_px) // 2, (width - size_px) // 2
    return images[..., top : top + size_px, left : left + size_px]


def network_functions(
    network: Callable[[Tensor], tuple[Tensor, tuple[Tensor, ...]]],
    images: Callable[[Batch, BandPlan], Tensor],
    *,
    size_px: int,
    extents_px: Sequence[int] | None,
) -> dict[str, Any]:
    """Give `embed` and `features` of a network.

    Parameters
    ----------
    network : images (N, C, size_px, size_px) to pooled features and maps
    images : a batch to images (N, C, H, W) on the 10 m grid, scaled
    extents_px : sides of the center crops to embed, each brought to size_px, their embeddings one after the
        other; None for the whole patch as `fit_size` takes it
    """

    def crop(batch: Batch, plan: BandPlan, extent: int | None) -> Tensor:
        whole = images(batch, plan)
        if extent is None:
            return fit_size(whole, size_px)
        if extent > min(whole.shape[-2:]):
            raise ValueError(
                f"extents_px names {extent} px, but patches are {whole.shape[-2]} x {whole.shape[-1]} px of 10 m"
            )
        return functional.interpolate(
            crop_center(whole, extent), size=(size_px, size_px), mode="bicubic", align_corners=False
        )

    def embed(batch: Batch, plan: BandPlan) -> Tensor:
        return torch.cat([network(crop(batch, plan, extent))[0] for extent in extents_px or [None]], dim=1)

    return {"embed": embed, "features": lambda batch, plan: network(crop(batch, plan, None))[1]}
