"""Encoders to compare, each an entry of `models` in the config.

An adapter states which bands it needs and turns a batch of native-resolution patches into embeddings by its own
preprocessing. That of our networks is the training's own (`pretrain.data`), then a center crop, or bicubic
upsampling of smaller patches, to the size the encoder was trained on. Encoders without a network are in
`baselines`, published ones in `published`.
"""

import hashlib
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from pretrain import recipes
from pretrain.data import to_images
from pretrain.downstream import baselines
from pretrain.downstream.embedder import Embedder, Files, network_functions
from pretrain.downstream.published import open_published
from pretrain.encoders import SCALING, Encoder, build_encoder, load_encoder
from workflow_scripts.core import provenance


def open_embedder(settings: Mapping[str, Any], *, files: Files, device: str) -> Embedder:
    """Build the embedder of a model.

    Parameters
    ----------
    settings : the model's entry in the config, its seed filled in; without `encoder` it is trained
    files : what it is made of
    device : torch device
    """
    kind = settings.get("encoder", "trained")
    if kind not in ADAPTERS:
        raise ValueError(f"encoder {kind!r} is not one of {sorted(ADAPTERS)}")
    return ADAPTERS[kind](settings, files, device)


def _functions(encoder: Encoder, settings: Mapping[str, Any], *, size_px: int, device: str) -> dict[str, Any]:
    encoder = encoder.to(device).eval()
    return network_functions(
        lambda images: tuple(encoder(images)),
        lambda batch, plan: to_images(batch, plan)[:, 0],
        size_px=size_px,
        extents_px=settings.get("extents_px"),
    )


def _open_trained(settings: Mapping[str, Any], files: Files, device: str) -> Embedder:
    weights = files.weights
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
        n_features=encoder.feature_size * len(settings.get("extents_px") or [None]),
        digest=digest,
        facts={
            "encoder": "trained",
            "backbone": encoder.backbone,
            "scaling": encoder.metadata["scaling"],
            "size_px": size_px,
            "extents_px": settings.get("extents_px"),
        },
        **_functions(encoder, settings, size_px=size_px, device=device),
    )


def _open_random(settings: Mapping[str, Any], files: Files, device: str) -> Embedder:
    # The bands, backbone and image size that a trained one has by default.
    options = recipes.resolve({"objective": "seco", **settings})
    encoder = build_encoder(options.backbone, len(options.bands), options.seed)
    facts = {
        "encoder": "random",
        "backbone": options.backbone,
        "scaling": SCALING,
        "size_px": options.crop_px,
        "seed": options.seed,
        "extents_px": settings.get("extents_px"),
    }
    return Embedder(
        bands=options.bands,
        n_features=encoder.feature_size * len(settings.get("extents_px") or [None]),
        digest=provenance.digest({**facts, "bands": options.bands}),
        facts=facts,
        **_functions(encoder, settings, size_px=options.crop_px, device=device),
    )


ADAPTERS: Mapping[str, Callable[[Mapping[str, Any], Files, str], Embedder]] = MappingProxyType(
    {
        "trained": _open_trained,
        "random": _open_random,
        "mean_spectrum": baselines.open_mean_spectrum,
        "band_quantiles": baselines.open_band_quantiles,
        "coordinates": baselines.open_coordinates,
        "table": baselines.open_table,
        "joined": baselines.open_joined,
        "published": open_published,
    }
)
