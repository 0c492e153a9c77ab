"""Encoders equal torchvision's networks under torchvision's parameter names."""

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional

from pretrain.encoders import (
    BACKBONES,
    GroupedBatchNorm2d,
    VisionTransformer,
    build_encoder,
    group_batch_norm,
    load_encoder,
    save_encoder,
)
from pretrain.randomness import philox

torch.set_num_threads(1)  # as in tests/pretrain_world.py

BANDS = ("B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "NDVI")
DEPTHS = {"resnet18": (2, 2, 2, 2), "resnet50": (3, 4, 6, 3)}

GOLDEN = {
    "resnet18": [10.6624, 19.5117, 4.9131, 13.369, 16.0945, 18.5863, 3.17918, 18.4972],
    "resnet50": [243.006, 20.4941, 382.161, 509.29, 289.571, 0.0, 394.975, 574.557],
}
"""Pooled features 0, 100, 200, 300 of `plain_images` with `plain_weights`."""


def plain_weights(encoder):
    """Fill an encoder with numbers that follow from the published names and shapes alone."""
    names = encoder.published_names()
    state = {}
    for name, value in encoder.state_dict().items():
        if value.dtype == torch.int64:
            state[name] = torch.zeros_like(value)
            continue
        counter = np.zeros((value.numel(), 4), np.int64)
        counter[:, 0] = np.arange(value.numel())
        words = philox(counter, (sum(map(ord, names[name])), 0))[:, 0]
        wave = 2 * (words / 2**32) - 1
        if value.ndim == 4:
            wave *= np.sqrt(6 / np.prod(value.shape[1:]))
        else:
            wave = 1 + 0.2 * wave if not names[name].endswith(("bias", "mean")) else 0.1 * wave
        state[name] = torch.from_numpy(wave.astype(np.float32)).view(value.shape)
    encoder.load_state_dict(state)
    return encoder.eval()


def plain_images(n=2, size=64):
    y, x, c = np.meshgrid(np.arange(size), np.arange(size), np.arange(9), indexing="ij")
    images = [np.cos(0.05 * (k + 1) * y * (c + 1)) + np.sin(0.11 * x + c) for k in range(n)]
    return torch.from_numpy(np.stack(images).transpose(0, 3, 1, 2).astype(np.float32))


def torchvision_forward(state, x, depths):
    """Compute a torchvision ResNet from its state dict, written from its definition."""

    def norm(x, name):
        parts = [state[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")]
        return functional.batch_norm(x, *parts)

    def conv(x, name, stride=1):
        weight = state[f"{name}.weight"]
        return functional.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2)

    x = functional.max_pool2d(functional.relu(norm(conv(x, "conv1", 2), "bn1")), 3, 2, 1)
    for stage, depth in enumerate(depths, start=1):
        for block in range(depth):
            name = f"layer{stage}.{block}"
            stride = 2 if stage > 1 and block == 0 else 1
            n_convolutions = 3 if f"{name}.conv3.weight" in state else 2
            strided = n_convolutions - 1  # the 3 x 3 of a bottleneck, the first of a basic block
            y = x
            for k in range(1, n_convolutions + 1):
                y = norm(conv(y, f"{name}.conv{k}", stride if k == strided else 1), f"{name}.bn{k}")
                y = functional.relu(y) if k < n_convolutions else y
            if f"{name}.downsample.0.weight" in state:
                x = norm(conv(x, f"{name}.downsample.0", stride), f"{name}.downsample.1")
            x = functional.relu(x + y)
    return x.mean(dim=(2, 3))


@pytest.mark.parametrize("backbone", DEPTHS)
def test_output_is_that_of_torchvision_and_of_the_stored_numbers(backbone, tmp_path):
    encoder = plain_weights(build_encoder(backbone, 9, seed=0))
    save_encoder(tmp_path / "encoder.safetensors", encoder, bands=BANDS)
    with safe_open(tmp_path / "encoder.safetensors", framework="pt") as file:
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    images = plain_images()
    with torch.no_grad():
        features = encoder(images)
        expected = torchvision_forward(state, images, DEPTHS[backbone])
    assert not any(name.startswith("fc") for name in state)
    torch.testing.assert_close(features.pooled, expected, rtol=1e-5, atol=1e-5)
    found = features.pooled[:, :400:100].flatten().tolist()
    assert found == pytest.approx(GOLDEN[backbone], rel=1e-4)  # kernels differ between machines
    assert features.pooled.shape == (2, BACKBONES[backbone].feature_size)
    assert [tuple(map_.shape[2:]) for map_ in features.maps] == [(16, 16), (8, 8), (4, 4), (2, 2)]
    assert features.maps[-1].shape[1] == BACKBONES[backbone].feature_size


def timm_forward(state, x, *, depth, n_heads):
    """Compute a vision transformer from timm's state dict, written from its definition; the final tokens."""

    def norm(x, name):
        return functional.layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"], 1e-6)

    def linear(x, name):
        return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]

    x = functional.conv2d(x, state["patch_embed.proj.weight"], state["patch_embed.proj.bias"], stride=16)
    x = x.flatten(2).transpose(1, 2)
    x = torch.cat([state["cls_token"].expand(len(x), -1, -1), x], dim=1) + state["pos_embed"]
    for layer in range(depth):
        name = f"blocks.{layer}"
        q, k, v = linear(norm(x, f"{name}.norm1"), f"{name}.attn.qkv").chunk(3, dim=-1)
        q, k, v = (part.unflatten(2, (n_heads, -1)).transpose(1, 2) for part in (q, k, v))
        attention = torch.softmax(q @ k.transpose(2, 3) / q.shape[-1] ** 0.5, dim=-1)
        x = x + linear((attention @ v).transpose(1, 2).flatten(2), f"{name}.attn.proj")
        hidden = functional.gelu(linear(norm(x, f"{name}.norm2"), f"{name}.mlp.fc1"))
        x = x + linear(hidden, f"{name}.mlp.fc2")
    return norm(x, "norm")


def test_vision_transformer_is_that_of_timm():
    torch.manual_seed(0)
    encoder = VisionTransformer("vit_small", 9, size=32, depth=2, n_heads=4).eval()
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.normal_(0, 0.2)
        state = encoder.published_state()
        images = plain_images(size=224)
        features = encoder(images)
        expected = timm_forward(state, images, depth=2, n_heads=4)
        torch.testing.assert_close(features.pooled, expected[:, 0], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(
            features.maps[-1][1, :, 3, 5], expected[1, 1 + 3 * 14 + 5], rtol=1e-4, atol=1e-4
        )
        other = VisionTransformer("vit_small", 9, size=32, depth=2, n_heads=4).eval()
        other.load_published(state)
        assert torch.equal(other(images).pooled, features.pooled)
        assert encoder(images[..., :32, :48]).maps[-1].shape == (2, 32, 2, 3)
        with pytest.raises(ValueError, match=r"found 24 x 24\. Set crop_px to a multiple of 16"):
            encoder(images[..., :24, :24])


def test_vision_transformers_have_the_published_shapes():
    with torch.device("meta"):
        for backbone, n_parameters in (("vit_small", 21_665_664), ("vit_base", 85_798_656)):
            encoder = BACKBONES[backbone].build(3)
            state = encoder.published_state()
            assert sum(value.numel() for value in state.values()) == n_parameters
            assert encoder.feature_size == BACKBONES[backbone].feature_size
            assert state["blocks.11.attn.qkv.weight"].shape == (
                3 * encoder.feature_size,
                encoder.feature_size,
            )


def foreign_model(library, backbone, n_bands):
    module = pytest.importorskip(library)
    if library == "torchvision":
        model = getattr(pytest.importorskip("torchvision.models"), backbone)(weights=None)
        model.conv1 = nn.Conv2d(n_bands, 64, 7, stride=2, padding=3, bias=False)
        model.fc = nn.Identity()
        return model
    if library == "torchgeo":
        models = pytest.importorskip("torchgeo.models")
        name = {"vit_small": "vit_small_patch16_224"}.get(backbone, backbone)
        return getattr(models, name)(in_chans=n_bands, num_classes=0)
    name = {"vit_small": "vit_small_patch16_224"}.get(backbone, backbone)
    return module.create_model(name, in_chans=n_bands, num_classes=0)


@pytest.mark.parametrize(
    ("library", "backbone"),
    [
        ("torchvision", "resnet18"),
        ("timm", "resnet18"),
        ("timm", "vit_small"),
        ("torchgeo", "resnet18"),
        ("torchgeo", "vit_small"),
    ],
)
def test_files_load_into_the_models_of_other_libraries(library, backbone, tmp_path):
    model = foreign_model(library, backbone, 9)
    encoder = build_encoder(backbone, 9, seed=1).eval()
    save_encoder(tmp_path / "encoder.safetensors", encoder, bands=BANDS)
    model.load_state_dict(load_file(tmp_path / "encoder.safetensors"))
    images = plain_images(size=224)
    with torch.no_grad():
        torch.testing.assert_close(model.eval()(images), encoder(images).pooled, rtol=1e-4, atol=1e-4)


def test_saved_encoder_comes_back_with_its_facts(tmp_path):
    encoder = build_encoder("resnet18", 9, seed=3)
    path = tmp_path / "encoder.safetensors"
    save_encoder(path, encoder, bands=BANDS, dataset="demo", dataset_digest="ab12", seed=3, steps=10)
    loaded = load_encoder(path)
    assert loaded.bands == BANDS
    assert not loaded.training
    assert {
        key: loaded.metadata[key] for key in ("backbone", "feature_size", "dataset", "seed", "steps")
    } == {
        "backbone": "resnet18",
        "feature_size": 512,
        "dataset": "demo",
        "seed": 3,
        "steps": 10,
    }
    for name, value in encoder.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name


def test_unreadable_encoder_files_are_named(tmp_path):
    path = tmp_path / "encoder.safetensors"
    with pytest.raises(FileNotFoundError, match="does not exist"):
        load_encoder(path)
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(ValueError, match="cannot be read"):
        load_encoder(path)
    with pytest.raises(ValueError, match="2 bands"):
        save_encoder(path, build_encoder("resnet18", 3, seed=0), bands=BANDS[:2])
    with pytest.raises(ValueError, match="'resnet7' is not one of"):
        build_encoder("resnet7", 3, seed=0)


def test_initial_weights_follow_the_seed_alone():
    torch.manual_seed(5)
    one = build_encoder("resnet18", 4, seed=1)
    after = torch.rand(1)
    torch.manual_seed(5)
    assert torch.equal(torch.rand(1), after)  # the caller's random state is left alone
    two, other = build_encoder("resnet18", 4, seed=1), build_encoder("resnet18", 4, seed=2)
    first = next(iter(one.parameters()))
    assert torch.equal(first, next(iter(two.parameters())))
    assert not torch.equal(first, next(iter(other.parameters())))


def test_grouped_normalization_is_plain_normalization_of_each_group():
    torch.manual_seed(0)
    plain, grouped = nn.BatchNorm2d(3), GroupedBatchNorm2d(3, group_size=4)
    x = torch.randn(8, 3, 5, 5) * torch.tensor([1.0, 5.0]).repeat_interleave(4).view(8, 1, 1, 1)
    expected = torch.cat([plain(x[:4]), plain(x[4:])])
    torch.testing.assert_close(grouped(x), expected, rtol=0, atol=0)
    means = torch.stack([x[:4].mean(dim=(0, 2, 3)), x[4:].mean(dim=(0, 2, 3))])
    torch.testing.assert_close(grouped.running_mean, 0.1 * means.mean(0))
    variances = torch.stack(
        [x[:4].transpose(0, 1).flatten(1).var(1), x[4:].transpose(0, 1).flatten(1).var(1)]
    )
    torch.testing.assert_close(grouped.running_var, 0.9 + 0.1 * variances.mean(0))
    with pytest.raises(ValueError, match="not whole groups"):
        grouped(x[:6])


def test_every_normalization_of_an_encoder_is_grouped():
    encoder = build_encoder("resnet18", 4, seed=1)
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    group_batch_norm(encoder, 4)
    kinds = {type(m) for m in encoder.modules() if isinstance(m, nn.BatchNorm2d)}
    assert kinds == {GroupedBatchNorm2d}
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())
