"""Published encoders: what each wants to see, and where its weights come from.

No weights are part of this project. They come from a file of the user's (`path`), or, without one, from TorchGeo,
which downloads them; it is an optional package (envs/torchgeo.yaml). Bands are taken by name and DN scaled as the
encoder's own code does, which for two of them is not what TorchGeo's transforms do (docs/downstream.md).

ResNets are built here and take files with torchvision's names, those of a `Sequential` of its children (the SeCo
code's) or either under a prefix of a training script. DOFA and CROMA are TorchGeo's own networks. Any of them, and
SatMAE, also comes as a program exported with `torch.export` (`.pt2`; images in, embeddings out, any batch size).
"""

import hashlib
import importlib
import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from pretrain.data import INPUT_SCALE, BandPlan, Batch, to_images
from pretrain.downstream.embedder import Embedder, Files, network_functions
from pretrain.encoders import build_encoder
from workflow_scripts.core.bands import WAVELENGTH_NM

logger = logging.getLogger(__name__)

ALL12 = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B11", "B12")
ALL13 = (*ALL12[:10], "B10", *ALL12[10:])
CIRRUS = "B10"
"""In no product at surface level; a channel for it gets DN 0."""
Network = Callable[[Tensor], tuple[Tensor, tuple[Tensor, ...]]]


@dataclass(frozen=True)
class Published:
    """What an encoder takes and gives."""

    bands: tuple[str, ...]
    """In channel order."""
    scale: Callable[[Tensor], Tensor]
    """DN (N, C, H, W), NDVI × 10000, to the network's input."""
    scaling: str
    """The same in words."""
    size_px: int
    n_features: int
    network: str
    """A backbone of `pretrain.encoders`, a function of TorchGeo (`module.function`), or "" where only an exported
    program will do."""
    weights: str
    """TorchGeo's name of them, `module.Class.MEMBER`; "" where it has none."""
    source: str


def _affine(low: tuple[float, ...], width: tuple[float, ...]) -> Callable[[Tensor], Tensor]:
    """Give (DN - low) / width, cut off at 0 and 1."""

    def scale(dn: Tensor) -> Tensor:
        first, span = (dn.new_tensor(values).view(-1, 1, 1) for values in (low, width))
        return ((dn - first) / span).clamp(0, 1)

    return scale


def _seco(dn: Tensor) -> Tensor:
    """Scale as the SeCo code: to 8 bits, quantiles of each band to 0 and 1, ImageNet's mean and deviation."""
    unit = _affine((0.0, 2.0, 3.0), (129.0, 101.0, 85.0))(dn * 255 / 10000)
    mean, deviation = (
        dn.new_tensor(values).view(-1, 1, 1) for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    )
    return (unit - mean) / deviation


def _satlas(dn: Tensor) -> Tensor:
    """Scale as Satlas: the true-color image (8 bits for a reflectance of 0 to 0.3558), other bands by 8160."""
    return torch.cat([dn[:, :3] / 3558, dn[:, 3:] / 8160], dim=1).clamp(0, 1)


def _two_deviations(dn: Tensor) -> Tensor:
    """Scale each band of each patch from mean - 2 to mean + 2 deviations to 0 and 1.

    CROMA's guide takes the statistics of the batch, which would make a patch's embedding depend on its neighbors.
    """
    deviation, mean = torch.std_mean(dn, dim=(2, 3), keepdim=True)
    return ((dn - mean + 2 * deviation) / (4 * deviation).clamp(min=1e-6)).clamp(0, 1)


SATMAE_BANDS = ("B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12")
_SATMAE_MEAN = (1184.38, 1120.77, 1136.26, 1263.74, 1645.40, 1846.87, 1762.60, 1972.62, 1732.16, 1247.92)
_SATMAE_STD = (650.28, 712.13, 965.23, 948.98, 1108.07, 1258.36, 1233.15, 1364.39, 1310.37, 1087.60)
ECO9 = ("B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "NDVI")

PUBLISHED: Mapping[str, Published] = MappingProxyType(
    {
        "seco-eco": Published(
            bands=ECO9,
            scale=lambda dn: dn * INPUT_SCALE,
            scaling="DN / 255, NDVI x 10000 / 255, as in its training",
            size_px=224,
            n_features=2048,
            network="resnet50",
            weights="models.ResNet50_Weights.SENTINEL2_ALL_NDVI_SECO_ECO",
            source="SSL4Eco; Hugging Face torchgeo/seco-eco-ndvi",
        ),
        "seco": Published(
            bands=("B04", "B03", "B02"),
            scale=_seco,
            scaling="DN x 255 / 10000, quantiles of the SeCo code to 0..1, ImageNet mean and deviation",
            size_px=224,
            n_features=2048,
            network="resnet50",
            weights="models.ResNet50_Weights.SENTINEL2_RGB_SECO",
            source="Mañas et al. 2021; Hugging Face torchgeo/resnet50_sentinel2_rgb_seco",
        ),
        "ssl4eo-s12": Published(
            bands=ALL13,
            scale=lambda dn: dn / 10000,
            scaling="DN / 10000, B10 0",
            size_px=224,
            n_features=2048,
            network="resnet50",
            weights="models.ResNet50_Weights.SENTINEL2_ALL_MOCO",
            source="Wang et al. 2023 (MoCo); Hugging Face torchgeo/resnet50_sentinel2_all_moco",
        ),
        "satlas": Published(
            bands=("B04", "B03", "B02", "B05", "B06", "B07", "B08", "B11", "B12"),
            scale=_satlas,
            scaling="B04, B03, B02 / 3558 for its 8-bit true color, others / 8160, cut off at 0 and 1",
            size_px=256,
            n_features=2048,
            network="resnet50",
            weights="models.ResNet50_Weights.SENTINEL2_SI_MS_SATLAS",
            source="Bastani et al. 2023 (single image, multispectral); Hugging Face torchgeo/satlas",
        ),
        "dofa": Published(
            bands=("B02", "B03", "B04", "B05", "B06", "B07", "B08", "B11", "B12"),
            scale=lambda dn: dn / 10000,
            scaling="DN / 10000",
            size_px=224,
            n_features=768,
            network="models.dofa_base_patch16_224",
            weights="models.DOFABase16_Weights.DOFA_MAE",
            source="Xiong et al. 2024; Hugging Face torchgeo/dofa",
        ),
        "croma": Published(
            bands=ALL12,
            scale=_two_deviations,
            scaling="each band of a patch from mean - 2 to mean + 2 deviations to 0..1",
            size_px=120,
            n_features=768,
            network="models.croma_base",
            weights="models.CROMABase_Weights.CROMA_VIT",
            source="Fuller et al. 2023; Hugging Face torchgeo/croma",
        ),
        "satmae": Published(
            bands=SATMAE_BANDS,
            scale=_affine(
                tuple(m - 2 * s for m, s in zip(_SATMAE_MEAN, _SATMAE_STD, strict=True)),
                tuple(4 * s for s in _SATMAE_STD),
            ),
            scaling="each band from mean - 2 to mean + 2 deviations of fMoW-Sentinel to 0..1",
            size_px=96,
            n_features=1024,
            network="",
            weights="",
            source="Cong et al. 2022 (ViT-L, grouped channels)",
        ),
    }
)
"""Adapters by name. Scalings follow the encoders' own code where it was read: SeCo (datasets/seco_dataset.py),
SSL4EO-S12 and Satlas by TorchGeo's transforms, CROMA (README), SatMAE (util/datasets.py)."""


def open_published(settings: Mapping[str, Any], files: Files, device: str) -> Embedder:
    """Build a published encoder from the user's file or TorchGeo's weights.

    Raises
    ------
    ValueError, FileNotFoundError
        If the weights are not there or do not fit, with what to do.
    """
    name = settings["adapter"]
    adapter = PUBLISHED[name]
    if files.weights is not None and not files.weights.exists():
        raise FileNotFoundError(
            f"encoder {name!r}: weights file {files.weights} does not exist. {_advice(adapter)}"
        )
    if files.weights is not None and files.weights.suffix == ".pt2":
        program = torch.export.load(files.weights).module().to(device)

        def network(images: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
            return program(images), ()

    elif adapter.network.startswith("models."):
        network = _torchgeo_network(name, adapter, files.weights, device)
    elif adapter.network:
        network = _own_network(name, adapter, files.weights, device)
    else:
        raise ValueError(f"encoder {name!r} has no network here. {_advice(adapter)}")
    extents = settings.get("extents_px")
    facts = {
        "encoder": "published",
        "adapter": name,
        "scaling": adapter.scaling,
        "size_px": adapter.size_px,
        "source": adapter.source,
        "weights": str(files.weights) if files.weights else adapter.weights,
        "extents_px": list(extents) if extents else None,
    }
    digest = hashlib.blake2b(str(facts).encode(), digest_size=8)
    if files.weights is not None:
        digest.update(files.weights.read_bytes())
    functions = network_functions(
        network,
        lambda batch, plan: scaled_images(batch, plan, adapter),
        size_px=adapter.size_px,
        extents_px=extents,
    )
    return Embedder(
        bands=tuple(band for band in adapter.bands if band != CIRRUS),
        n_features=adapter.n_features * len(extents or [None]),
        digest=digest.hexdigest(),
        facts=facts,
        **functions,
    )


def scaled_images(batch: Batch, plan: BandPlan, adapter: Published) -> Tensor:
    """Give an adapter's channels (N, C, H, W) on the 10 m grid, scaled as its network wants them."""
    dn = to_images(batch, plan)[:, 0] / INPUT_SCALE
    channels = dict(zip(plan.bands, dn.unbind(1), strict=True))
    nothing = torch.zeros_like(dn[:, 0])
    return adapter.scale(torch.stack([channels.get(band, nothing) for band in adapter.bands], dim=1))


def _own_network(name: str, adapter: Published, path: Path | None, device: str) -> Network:
    encoder = build_encoder(adapter.network, len(adapter.bands), seed=0)
    state = read_state(path) if path else _torchgeo_weights(name, adapter).get_state_dict(progress=False)
    expected = encoder.published_state().keys()
    encoder.load_published(
        _rename(state, set(expected), where=f"encoder {name!r}: {path or adapter.weights}")
    )
    encoder = encoder.to(device).eval()
    return lambda images: tuple(encoder(images))


def _torchgeo_network(name: str, adapter: Published, path: Path | None, device: str) -> Network:
    models = _torchgeo(name, adapter)
    build = getattr(models, adapter.network.removeprefix("models."))
    options: dict[str, Any] = {"modalities": ["optical"]} if name == "croma" else {}
    if path is None:
        module: nn.Module = build(weights=_torchgeo_weights(name, adapter), **options)
    else:
        module = build(**options)
        state = read_state(path)
        _, unknown = module.load_state_dict(state, strict=False)
        absent = sorted(set(dict(module.named_parameters())) - set(state))
        if [key for key in absent if not key.startswith("head.")]:
            raise ValueError(f"encoder {name!r}: {path} lacks {absent[:3]}; it has {unknown[:3]} instead")
    module = module.to(device).eval()
    if name == "croma":

        def run(images: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
            result = module(x_optical=images)
            tokens = result["optical_encodings"]
            side = int(tokens.shape[1] ** 0.5)
            return result["optical_GAP"], (tokens.transpose(1, 2).unflatten(2, (side, side)),)

        return run
    wavelengths = [WAVELENGTH_NM[band] / 1000 for band in adapter.bands]
    return lambda images: (module.forward_features(images, wavelengths), ())


def _torchgeo(name: str, adapter: Published) -> Any:
    try:
        return importlib.import_module("torchgeo.models")
    except ImportError:
        raise ValueError(
            f"encoder {name!r} needs TorchGeo, which is not installed. {_advice(adapter)}"
        ) from None


def _torchgeo_weights(name: str, adapter: Published) -> Any:
    module = _torchgeo(name, adapter)
    for part in adapter.weights.split(".")[1:]:
        module = getattr(module, part)
    return module


def _advice(adapter: Published) -> str:
    """Say where weights come from."""
    ways = ["name a program exported with torch.export (.pt2) as `path` of the model"]
    if adapter.network and not adapter.network.startswith("models."):
        ways.append("name a file of its weights (.pth, .safetensors) as `path`")
    if adapter.weights:
        ways.append(
            f"install envs/torchgeo.yaml and leave `path` out, so that TorchGeo downloads {adapter.weights}"
        )
    return f"Weights are not part of this project ({adapter.source}): " + ", or ".join(ways) + "."


def read_state(path: Path) -> dict[str, Tensor]:
    """Read a file of weights: safetensors, or a torch file of tensors, alone or under `state_dict` or `model`."""
    if path.suffix == ".safetensors":
        return load_file(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ValueError(
            f"{path} cannot be read as weights ({type(error).__name__}): expected a .safetensors file, or tensors "
            "saved by torch.save without other objects"
        ) from None
    for key in ("state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    return {key: value for key, value in content.items() if isinstance(value, Tensor)}


PREFIXES = (
    "",
    "module.encoder_q.",
    "encoder_q.",
    "backbone.backbone.",
    "backbone.",
    "module.",
    "encoder.",
    "model.",
)
"""Of the names of weights in files of training scripts."""
SEQUENTIAL = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4"}
"""Child of a `Sequential` of a ResNet's children -> its name."""


def _rename(state: Mapping[str, Tensor], expected: set[str], *, where: str) -> dict[str, Tensor]:
    """Find the weights a ResNet needs under torchvision's names."""
    best: set[str] = set()
    for prefix in PREFIXES:
        inner = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
        numbered = {
            re.sub(r"^\d(?=\.)", lambda m: SEQUENTIAL.get(m[0], m[0]), k): v for k, v in inner.items()
        }
        for found in (inner, numbered):
            if expected <= found.keys():
                left = sorted(key for key in found.keys() - expected if not key.startswith(("fc.", "head")))
                if left:
                    logger.info("%s: not used: %s …", where, left[:5])
                return {key: found[key] for key in expected}
            best = max(best, expected & found.keys(), key=len)
    raise ValueError(
        f"{where} is not of this network: of {len(expected)} weights {len(expected) - len(best)} are missing, such as "
        f"{sorted(expected - best)[:3]}; the file has {sorted(state)[:3]} …"
    )
