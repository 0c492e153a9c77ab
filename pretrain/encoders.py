"""Encoders: patches with any number of bands in, pooled features and feature maps out.

Networks are those of the `transformers` library. ResNet-18 and -50 equal torchvision's (the paper's)
to the last bit but name their parameters differently; files carry torchvision's names, without `fc`,
so that TorchGeo, timm and torchvision users load them. ViT-S/16 and ViT-B/16 are filed under timm's
names, without `head`. A further backbone needs an entry in `BACKBONES`.
"""

import json
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from pretrain.distribution import gather_with_gradient, world
from pretrain.recipes import VIT_PATCH_PX
from workflow_scripts.core.stage import atomic_path

SCALING = "published"
"""Inputs are harmonized DN / 255 and NDVI × 10000 / 255 (NDVI clipped at 0), as in the paper's code."""


class Features(NamedTuple):
    """What an encoder gives."""

    pooled: Tensor
    """(N, feature_size)"""
    maps: tuple[Tensor, ...]
    """Feature maps (N, C, h, w), fine to coarse; the last has `feature_size` channels."""


class Encoder(nn.Module):
    """A backbone with the facts needed to feed it and to name its weights."""

    def __init__(self, backbone: str, n_bands: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.n_bands = n_bands
        self.feature_size = BACKBONES[backbone].feature_size
        self.metadata: dict[str, Any] = {}

    def published_state(self) -> dict[str, Tensor]:
        """Weights under the names that files carry."""
        raise NotImplementedError

    def load_published(self, tensors: Mapping[str, Tensor]) -> None:
        """Take weights from what `published_state` gave."""
        raise NotImplementedError

    @property
    def bands(self) -> tuple[str, ...]:
        """Bands in channel order, for an encoder read from a file."""
        return tuple(self.metadata["bands"])


class ResNet(Encoder):
    """A ResNet without its classifier (He et al., 2016; stride in the 3 × 3 convolution)."""

    def __init__(self, backbone: str, n_bands: int, **shape: Any) -> None:
        from transformers import ResNetConfig
        from transformers.models.resnet.modeling_resnet import ResNetModel

        super().__init__(backbone, n_bands)
        model = ResNetModel(ResNetConfig(num_channels=n_bands, embedding_size=64, **shape))
        self.embedder = model.embedder
        self.stages = model.encoder.stages
        _initialize(self)

    def forward(self, images: Tensor) -> Features:
        """Encode images (N, n_bands, H, W)."""
        maps = [self.embedder(images)]
        for stage in self.stages:
            maps.append(stage(maps[-1]))
        return Features(maps[-1].mean(dim=(2, 3)), tuple(maps[1:]))

    def published_names(self) -> dict[str, str]:
        """Map parameter names to torchvision's."""
        return {name: torchvision_name(name) for name in self.state_dict()}

    def published_state(self) -> dict[str, Tensor]:
        """Weights under torchvision's names."""
        return {torchvision_name(name): value for name, value in self.state_dict().items()}

    def load_published(self, tensors: Mapping[str, Tensor]) -> None:
        """Take weights under torchvision's names."""
        self.load_state_dict({name: tensors[published] for name, published in self.published_names().items()})


_NAME_RULES = (
    (r"^embedder\.embedder\.convolution\.", "conv1."),
    (r"^embedder\.embedder\.normalization\.", "bn1."),
    (r"^stages\.(\d+)\.layers\.(\d+)\.shortcut\.convolution\.", r"layer\1.\2.downsample.0."),
    (r"^stages\.(\d+)\.layers\.(\d+)\.shortcut\.normalization\.", r"layer\1.\2.downsample.1."),
    (r"^stages\.(\d+)\.layers\.(\d+)\.layer\.(\d+)\.convolution\.", r"layer\1.\2.conv\3."),
    (r"^stages\.(\d+)\.layers\.(\d+)\.layer\.(\d+)\.normalization\.", r"layer\1.\2.bn\3."),
)


def torchvision_name(name: str) -> str:
    """Translate the name of a ResNet parameter or buffer to torchvision's.

    torchvision counts stages (`layer1` …) and the convolutions of a block from 1, blocks from 0.
    """
    for pattern, replacement in _NAME_RULES:
        match = re.match(pattern, name)
        if match:
            numbers = [int(group) for group in match.groups()]
            counted_from_one = [
                str(number + 1) if position != 1 else str(number) for position, number in enumerate(numbers)
            ]
            for position, number in enumerate(counted_from_one, start=1):
                replacement = replacement.replace(f"\\{position}", number)
            return replacement + name[match.end() :]
    raise ValueError(f"no torchvision name is known for the ResNet parameter {name!r}")


class VisionTransformer(Encoder):
    """A vision transformer without classifier (Dosovitskiy et al., 2021); pooled is the class token.

    Position embeddings are those of 224 px, interpolated for images of another size.
    """

    def __init__(self, backbone: str, n_bands: int, *, size: int, depth: int, n_heads: int) -> None:
        from transformers import ViTConfig, ViTModel

        super().__init__(backbone, n_bands)
        self.feature_size = size
        shape = {"hidden_size": size, "num_hidden_layers": depth, "num_attention_heads": n_heads}
        shape |= {"intermediate_size": 4 * size, "patch_size": VIT_PATCH_PX, "image_size": 224}
        settings = ViTConfig(num_channels=n_bands, layer_norm_eps=1e-6, **shape)
        self.model = ViTModel(settings, add_pooling_layer=False)

    def forward(self, images: Tensor) -> Features:
        """Encode images (N, n_bands, H, W), sides multiples of 16 px; the map is that of the last layer."""
        height, width = images.shape[-2:]
        if height % VIT_PATCH_PX or width % VIT_PATCH_PX:
            raise ValueError(
                f"{self.backbone!r} cuts images into squares of {VIT_PATCH_PX} px; found {height} x {width}. "
                f"Set crop_px to a multiple of {VIT_PATCH_PX}."
            )
        tokens = self.model(images, interpolate_pos_encoding=True).last_hidden_state
        grid = (height // VIT_PATCH_PX, width // VIT_PATCH_PX)
        return Features(tokens[:, 0], (tokens[:, 1:].transpose(1, 2).unflatten(2, grid),))

    def published_state(self) -> dict[str, Tensor]:
        """Weights under timm's names, queries, keys and values joined."""
        state = self.model.state_dict()
        return {
            published: torch.cat([state[name] for name in names])
            for published, names in timm_names(state).items()
        }

    def load_published(self, tensors: Mapping[str, Tensor]) -> None:
        """Take weights under timm's names."""
        state = {}
        for published, names in timm_names(self.model.state_dict()).items():
            state |= dict(zip(names, tensors[published].chunk(len(names)), strict=True))
        self.model.load_state_dict(state)


_TIMM_RULES = (
    ("embeddings.cls_token", "cls_token"),
    ("embeddings.position_embeddings", "pos_embed"),
    ("embeddings.patch_embeddings.projection.", "patch_embed.proj."),
    ("layers.", "blocks."),
    (".attention.o_proj.", ".attn.proj."),
    (".attention.q_proj.", ".attn.qkv."),
    (".attention.k_proj.", ".attn.qkv."),
    (".attention.v_proj.", ".attn.qkv."),
    (".layernorm_before.", ".norm1."),
    (".layernorm_after.", ".norm2."),
)


def timm_names(names: Iterable[str]) -> dict[str, list[str]]:
    """Group the parameter names of a vision transformer by timm's name; q, k, v stand in this order."""
    grouped: dict[str, list[str]] = {}
    for name in names:
        published = name.replace("layernorm.", "norm.") if name.startswith("layernorm.") else name
        for own, other in _TIMM_RULES:
            published = published.replace(own, other)
        grouped.setdefault(published, []).append(name)
    return {published: sorted(own, key=_order_of_qkv) for published, own in grouped.items()}


def _order_of_qkv(name: str) -> int:
    return next((i for i, part in enumerate(("q_proj", "k_proj", "v_proj")) if part in name), 0)


@dataclass(frozen=True)
class Backbone:
    """How a backbone is built."""

    feature_size: int
    """Length of the pooled features."""
    build: Callable[[int], Encoder]
    """Number of bands → encoder."""


BACKBONES: Mapping[str, Backbone] = {
    "resnet18": Backbone(
        512,
        lambda n_bands: ResNet(
            "resnet18",
            n_bands,
            layer_type="basic",
            depths=[2, 2, 2, 2],
            hidden_sizes=[64, 128, 256, 512],
        ),
    ),
    "resnet50": Backbone(
        2048,
        lambda n_bands: ResNet(
            "resnet50",
            n_bands,
            layer_type="bottleneck",
            depths=[3, 4, 6, 3],
            hidden_sizes=[256, 512, 1024, 2048],
        ),
    ),
    "vit_small": Backbone(
        384, lambda n_bands: VisionTransformer("vit_small", n_bands, size=384, depth=12, n_heads=6)
    ),
    "vit_base": Backbone(
        768, lambda n_bands: VisionTransformer("vit_base", n_bands, size=768, depth=12, n_heads=12)
    ),
}


def _initialize(encoder: nn.Module) -> None:
    """Draw initial weights as torchvision does: He normal by fan-out, normalization 1 and 0."""
    for module in encoder.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.BatchNorm2d):
            module.reset_parameters()


def build_encoder(backbone: str, n_bands: int, seed: int) -> Encoder:
    """Build an encoder with random weights.

    Parameters
    ----------
    backbone : a key of `BACKBONES`
    n_bands : input channels
    seed : of the weights; the caller's random state is left alone

    Returns
    -------
    Encoder in training mode, on the CPU
    """
    if backbone not in BACKBONES:
        raise ValueError(f"backbone {backbone!r} is not one of {sorted(BACKBONES)}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return BACKBONES[backbone].build(n_bands)


class GroupedBatchNorm2d(nn.BatchNorm2d):
    """Batch normalization over groups of consecutive samples, each with its own statistics.

    A group may be a part of a rank's samples or span those of several ranks, so with ``group_size``
    samples per group a batch means the same on one process as on many. Running statistics move once
    per step, by the mean over the groups.
    """

    def __init__(
        self, num_features: int, *, group_size: int | None, n_parts: int = 1, **settings: float
    ) -> None:
        super().__init__(num_features, **settings)
        self.group_size = group_size
        self.n_parts = n_parts
        """Forward passes per step (gradient accumulation)."""
        self._seen: list[tuple[Tensor, Tensor]] = []

    def forward(self, x: Tensor) -> Tensor:
        """Normalize (N, C, H, W)."""
        size = self.group_size or len(x)
        if not self.training or (len(x) == size and self.n_parts == 1):
            return super().forward(x)
        if len(x) < size:
            return self._over_ranks(x, size)
        if len(x) % size:
            raise ValueError(f"a batch of {len(x)} is not whole groups of bn.group_size = {size}")
        outputs, means, variances = [], [], []
        for group in x.split(size):
            mean, variance = torch.zeros_like(self.running_mean), torch.ones_like(self.running_var)
            outputs.append(
                functional.batch_norm(
                    group, mean, variance, self.weight, self.bias, training=True, momentum=1.0, eps=self.eps
                )
            )
            means.append(mean)
            variances.append(variance)
        self._follow(torch.stack(means).mean(0), torch.stack(variances).mean(0))
        return torch.cat(outputs)

    def _over_ranks(self, x: Tensor, size: int) -> Tensor:
        """Normalize this rank's part of a group that spans consecutive ranks."""
        rank, n_ranks = world()
        n_joined = size // len(x)
        if size % len(x) or n_ranks % n_joined:
            raise ValueError(
                f"{n_ranks} ranks with batches of {len(x)} are not whole groups of bn.group_size = {size}"
            )
        values = x.to(torch.promote_types(x.dtype, torch.float32))
        own = torch.stack(torch.var_mean(values, dim=(0, 2, 3), correction=0))
        first = rank // n_joined * n_joined
        variances, means = gather_with_gradient(own)[first : first + n_joined].unbind(1)
        mean = means.mean(0)
        variance = variances.mean(0) + (means - mean).square().mean(0)
        count = size * x.shape[2] * x.shape[3]
        self._follow(mean.detach(), variance.detach() * count / (count - 1))
        scale = self.weight * torch.rsqrt(variance + self.eps)
        shift = self.bias - mean * scale
        return (values * scale.view(-1, 1, 1) + shift.view(-1, 1, 1)).to(x.dtype)

    @torch.no_grad()
    def _follow(self, mean: Tensor, variance: Tensor) -> None:
        """Move the running statistics, in a step of several parts after the last."""
        if self.n_parts > 1:
            self._seen.append((mean, variance))
            if len(self._seen) < self.n_parts:
                return
            mean, variance = (torch.stack(values).mean(0) for values in zip(*self._seen, strict=True))
            self._seen = []
        self.num_batches_tracked += 1
        self.running_mean.lerp_(mean.to(self.running_mean), self.momentum)
        self.running_var.lerp_(variance.to(self.running_var), self.momentum)


def group_batch_norm(module: nn.Module, group_size: int | None, *, n_parts: int = 1) -> None:
    """Make every batch normalization of a module work over groups of `group_size` samples, in place."""
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.BatchNorm2d):
                grouped = GroupedBatchNorm2d(
                    child.num_features,
                    group_size=group_size,
                    n_parts=n_parts,
                    eps=child.eps,
                    momentum=child.momentum,
                )
                grouped.load_state_dict(child.state_dict())
                setattr(parent, name, grouped)


def save_encoder(path: str | os.PathLike, encoder: Encoder, *, bands: Sequence[str], **facts: Any) -> None:
    """Write an encoder's weights under their published names, atomically.

    Parameters
    ----------
    path : a `.safetensors` file
    bands : in channel order
    facts : further metadata, JSON values (dataset, dataset_digest, git_commit, config_digest, …)
    """
    if len(bands) != encoder.n_bands:
        raise ValueError(f"{len(bands)} bands {tuple(bands)!r} for an encoder of {encoder.n_bands} channels")
    state = encoder.published_state()
    tensors = {name: value.detach().cpu().contiguous() for name, value in state.items()}
    metadata = {
        "backbone": encoder.backbone,
        "feature_size": encoder.feature_size,
        "bands": list(bands),
        "scaling": SCALING,
        **facts,
    }
    text = {key: value if isinstance(value, str) else json.dumps(value) for key, value in metadata.items()}
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, metadata={"format": "pt", **text})


_NUMBERS_AND_LISTS = ("feature_size", "bands", "seed", "steps", "crop_px", "n_locations")


def load_encoder(path: str | os.PathLike) -> Encoder:
    """Read an encoder written by `save_encoder`.

    Returns
    -------
    Encoder on the CPU, in evaluation mode; `.metadata` holds the file's facts, `.bands` the bands
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"encoder file {path} does not exist; train the model first")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = dict(file.metadata() or {})
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(
            f"encoder file {path} cannot be read ({error}). Delete it and train again."
        ) from None
    missing = [key for key in ("backbone", "bands", "scaling") if key not in metadata]
    if missing:
        raise ValueError(f"encoder file {path} lacks the metadata {missing}; expected a file of save_encoder")
    facts = {
        key: json.loads(value) if key in _NUMBERS_AND_LISTS else value
        for key, value in metadata.items()
        if key != "format"
    }
    if facts["scaling"] != SCALING:
        raise ValueError(f"encoder file {path} has scaling {facts['scaling']!r}; expected {SCALING!r}")
    encoder = build_encoder(facts["backbone"], len(facts["bands"]), seed=0)
    own = encoder.published_state()
    unknown, absent = sorted(tensors.keys() - own.keys()), sorted(own.keys() - tensors.keys())
    if unknown or absent:
        raise ValueError(
            f"encoder file {path} does not fit {facts['backbone']!r}: unknown {unknown[:3]}, missing {absent[:3]}"
        )
    encoder.load_published(tensors)
    encoder.metadata = facts
    return encoder.eval()
