"""Encoders to compare, each an entry of `models` in the config: trained, random, mean spectrum.

An adapter states which bands it needs and turns a batch of native-resolution patches into
embeddings by its own preprocessing. That of networks is the training's own (`pretrain.data`), then
a center crop, or bicubic upsampling of smaller patches, to the size the encoder was trained on.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from pretrain import recipes
from pretrain.data import NDVI_BANDS, BandPlan, Batch, to_images
from pretrain.encoders import SCALING, Encoder, build_encoder, load_encoder
from workflow_scripts.core import provenance
from workflow_scripts.core.bands import REFLECTANCE_SCALE

STATISTICS = ("mean", "std")
"""What the mean spectrum holds of each band."""


@dataclass(frozen=True)
class Embedder:
    """An encoder with its preprocessing."""

    bands: tuple[str, ...]
    n_features: int
    digest: str
    """Of the weights, or of what determines the embedding where there are none."""
    facts: Mapping[str, Any]
    """Attributes of the embeddings: scaling, size, backbone or statistics."""
    embed: Callable[[Batch, BandPlan], Tensor]
    """A batch of one season (N, 1, …) to embeddings (N, n_features)."""


def open_embedder(settings: Mapping[str, Any], *, weights: Path | None, device: str) -> Embedder:
    """Build the embedder of a model.

    Parameters
    ----------
    settings : the model's entry in the config, its seed filled in; without `encoder` it is trained
    weights : `encoder.safetensors` of a trained model
    device : torch device
    """
    kind = settings.get("encoder", "trained")
    if kind not in ADAPTERS:
        raise ValueError(f"encoder {kind!r} is not one of {sorted(ADAPTERS)}")
    return ADAPTERS[kind](settings, weights, device)


def fit_size(images: Tensor, size_px: int) -> Tensor:
    """Bring images (N, C, H, W) to size_px by a center crop, or by bicubic upsampling if smaller."""
    height, width = images.shape[-2:]
    if height >= size_px and width >= size_px:
        top, left = (height - size_px) // 2, (width - size_px) // 2
        return images[..., top : top + size_px, left : left + size_px]
    return functional.interpolate(images, size=(size_px, size_px), mode="bicubic", align_corners=False)


def _network(encoder: Encoder, *, size_px: int, device: str) -> Callable[[Batch, BandPlan], Tensor]:
    encoder = encoder.to(device).eval()

    def embed(batch: Batch, plan: BandPlan) -> Tensor:
        return encoder(fit_size(to_images(batch, plan)[:, 0], size_px)).pooled

    return embed


def _open_trained(settings: Mapping[str, Any], weights: Path | None, device: str) -> Embedder:
    if weights is None:
        raise ValueError("a trained model needs its encoder.safetensors; run the target `pretrained`")
    encoder = load_encoder(weights)
    if "crop_px" not in encoder.metadata:
        raise ValueError(
            f"encoder file {weights} does not say for which image size it was trained (metadata "
            "`crop_px`); train the model again, or write it into the file"
        )
    with open(weights, "rb") as file:
        digest = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=8)).hexdigest()
    size_px = int(encoder.metadata["crop_px"])
    return Embedder(
        bands=encoder.bands,
        n_features=encoder.feature_size,
        digest=digest,
        facts={
            "encoder": "trained",
            "backbone": encoder.backbone,
            "scaling": encoder.metadata["scaling"],
            "size_px": size_px,
        },
        embed=_network(encoder, size_px=size_px, device=device),
    )


def _open_random(settings: Mapping[str, Any], weights: Path | None, device: str) -> Embedder:
    options = _fill(settings)
    encoder = build_encoder(options.backbone, len(options.bands), options.seed)
    facts = {
        "encoder": "random",
        "backbone": options.backbone,
        "scaling": SCALING,
        "size_px": options.crop_px,
        "seed": options.seed,
    }
    return Embedder(
        bands=options.bands,
        n_features=encoder.feature_size,
        digest=provenance.digest({**facts, "bands": options.bands}),
        facts=facts,
        embed=_network(encoder, size_px=options.crop_px, device=device),
    )


def _open_mean_spectrum(settings: Mapping[str, Any], weights: Path | None, device: str) -> Embedder:
    bands = _fill(settings).bands
    facts = {
        "encoder": "mean_spectrum",
        "statistics": list(STATISTICS),
        "scaling": "reflectance (0 to about 1), NDVI (-1 to 1)",
    }
    return Embedder(
        bands=bands,
        n_features=len(bands) * len(STATISTICS),
        digest=provenance.digest({**facts, "bands": bands}),
        facts=facts,
        embed=spectrum,
    )


def _fill(settings: Mapping[str, Any]) -> recipes.Options:
    """Give an untrained model the bands, backbone and image size a trained one has by default."""
    return recipes.resolve({"objective": "seco", **settings})


ADAPTERS: Mapping[str, Callable[[Mapping[str, Any], Path | None, str], Embedder]] = MappingProxyType(
    {
        "trained": _open_trained,
        "random": _open_random,
        "mean_spectrum": _open_mean_spectrum,
    }
)


def spectrum(batch: Batch, plan: BandPlan) -> Tensor:
    """Describe each patch by the mean and standard deviation of its bands' reflectance.

    Parameters
    ----------
    batch : one season; bands at native resolution, 60 m bands over their covering window

    Returns
    -------
    float32 (N, 2 × bands): means, then deviations, over the pixels with data; 0 where a band has none
    """
    values: dict[str, Tensor] = {}
    for name, bands in plan.stored.items():
        dn = batch.dn[name][:, 0].to(torch.float32).flatten(2)
        reflectance = torch.where(dn > 0, dn * REFLECTANCE_SCALE, torch.nan)
        values |= dict(zip(bands, reflectance.unbind(1), strict=True))
    if "NDVI" in plan.bands:
        near_infrared, red = (values[band] for band in NDVI_BANDS)
        values["NDVI"] = (near_infrared - red) / (near_infrared + red)
    means = [values[band].nanmean(dim=1) for band in plan.bands]
    deviations = [
        (values[band] - mean[:, None]).square().nanmean(dim=1).sqrt()
        for band, mean in zip(plan.bands, means, strict=True)
    ]
    return torch.nan_to_num(torch.stack([*means, *deviations], dim=1))
