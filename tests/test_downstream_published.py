"""Published encoders from made weights in their published layouts; no real weights are here."""

import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from pretrain.data import Batch, plan_bands, to_images
from pretrain.downstream import published
from pretrain.downstream.embedder import Embedder, Files
from pretrain.downstream.encoders import open_embedder
from pretrain.downstream.published import PUBLISHED, SEQUENTIAL
from pretrain.encoders import build_encoder, save_encoder
from workflow_scripts.core import bands

ARRAYS = {
    "dn10": SimpleNamespace(bands=bands.BANDS10),
    "dn20": SimpleNamespace(bands=bands.BANDS20),
    "dn60": SimpleNamespace(bands=bands.BANDS60),
}
SIZE = 40


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Small products; the machine may be busy."""
    torch.set_num_threads(1)


def make_batch(embedder: Embedder) -> tuple:
    """Two patches of 400 m as an embedder wants them, and the plan of their bands."""
    generator = torch.Generator().manual_seed(0)
    plan = plan_bands(embedder.bands, ARRAYS, store="made")
    sizes = {"dn10": SIZE, "dn20": SIZE // 2, "dn60": 8}
    dn = {
        name: torch.randint(1, 6000, (2, 1, len(names), sizes[name], sizes[name]), generator=generator).to(
            torch.uint16
        )
        for name, names in plan.stored.items()
    }
    one = torch.zeros(2, 1)
    return Batch(dn, torch.ones(2, 1, 2), one.long(), one, torch.zeros(2, 2), ("a", "b")), plan


def made_state(n_bands: int, backbone: str = "resnet18") -> dict[str, Tensor]:
    """Weights of a ResNet under torchvision's names."""
    return build_encoder(backbone, n_bands, seed=3).published_state()


@pytest.fixture
def small_seco(monkeypatch: pytest.MonkeyPatch) -> None:
    """The adapter of SeCo around a smaller ResNet and image."""
    small = replace(PUBLISHED["seco"], network="resnet18", n_features=512, size_px=64)
    monkeypatch.setattr(published, "PUBLISHED", {**PUBLISHED, "seco": small})


def open_file(adapter: str, path: Path) -> Embedder:
    """Open a published encoder from a file."""
    return open_embedder(
        {"encoder": "published", "adapter": adapter}, files=Files(weights=path), device="cpu"
    )


def test_seco_eco_equals_an_encoder_of_our_own(tmp_path: Path) -> None:
    """The same weights as a published file and as a file of ours: the same embedding, bit for bit nearly."""
    encoder = build_encoder("resnet50", 9, seed=3)
    save_encoder(tmp_path / "own.safetensors", encoder, bands=PUBLISHED["seco-eco"].bands, crop_px=224)
    torch.save({**made_state(9, "resnet50"), "fc.weight": torch.zeros(3, 2048)}, tmp_path / "published.pth")
    own = open_embedder({}, files=Files(weights=tmp_path / "own.safetensors"), device="cpu")
    other = open_file("seco-eco", tmp_path / "published.pth")
    batch, plan = make_batch(own)
    with torch.inference_mode():
        torch.testing.assert_close(other.embed(batch, plan), own.embed(batch, plan), rtol=1e-4, atol=1e-4)
        maps = other.features(batch, plan)
    assert [m.shape[1] for m in maps] == [256, 512, 1024, 2048]


@pytest.mark.usefixtures("small_seco")
def test_layouts_of_files_are_the_same_network(tmp_path: Path) -> None:
    """torchvision's names, a training script's prefix, a Sequential's numbers: one embedding."""
    state = made_state(3)
    numbers = {name: number for number, name in SEQUENTIAL.items()}
    sequential = {
        f"encoder_q.{numbers[key.split('.')[0]]}.{key.split('.', 1)[1]}": value
        for key, value in state.items()
    }
    layouts = {
        "plain.safetensors": state,
        "prefix.pth": {"state_dict": {f"module.encoder_q.{key}": value for key, value in state.items()}},
        "sequential.pth": {"state_dict": {**sequential, "queue": torch.zeros(2)}},
    }
    found = []
    for name, content in layouts.items():
        if name.endswith("safetensors"):
            save_file(content, tmp_path / name)
        else:
            torch.save(content, tmp_path / name)
        embedder = open_file("seco", tmp_path / name)
        batch, plan = make_batch(embedder)
        with torch.inference_mode():
            found.append(embedder.embed(batch, plan))
    torch.testing.assert_close(found[0], found[1])
    torch.testing.assert_close(found[0], found[2])


def test_scalings_by_hand() -> None:
    """One value per channel through each adapter's scaling."""

    def scaled(name: str, value: float) -> Tensor:
        adapter = PUBLISHED[name]
        return adapter.scale(torch.full((1, len(adapter.bands), 2, 2), value))[0, :, 0, 0]

    torch.testing.assert_close(scaled("seco-eco", 510.0), torch.full((9,), 2.0))
    torch.testing.assert_close(scaled("ssl4eo-s12", 2500.0), torch.full((13,), 0.25))
    red = ((1000 * 255 / 10000) / 129 - 0.485) / 0.229
    blue = ((1000 * 255 / 10000 - 3) / 85 - 0.406) / 0.225
    torch.testing.assert_close(
        scaled("seco", 1000.0)[[0, 2]], torch.tensor([red, blue]), rtol=1e-5, atol=1e-6
    )
    assert scaled("satlas", 4080.0).tolist() == [1.0] * 3 + [0.5] * 6
    middle = (1000 - (1184.38 - 2 * 650.28)) / (4 * 650.28)
    assert scaled("satmae", 1000.0)[0].item() == pytest.approx(middle, rel=1e-5)
    dn = torch.tensor([0.0, 10, 20, 30]).view(1, 1, 2, 2)
    spread = dn.std()
    expected = ((dn - dn.mean() + 2 * spread) / (4 * spread)).clamp(0, 1)
    torch.testing.assert_close(PUBLISHED["croma"].scale(dn), expected)


def test_bands_by_name_and_cirrus_zero() -> None:
    """Channels stand in the encoder's order; B10, which no surface product has, is DN 0."""
    adapter = PUBLISHED["ssl4eo-s12"]
    embedder = SimpleNamespace(bands=tuple(band for band in adapter.bands if band != "B10"))
    batch, plan = make_batch(embedder)
    images = published.scaled_images(batch, plan, adapter)
    assert images.shape == (2, 13, SIZE, SIZE)
    assert not images[:, 10].any()
    plain = to_images(batch, plan)[:, 0] * 255 / 10000
    torch.testing.assert_close(images[:, 11], plain[:, plan.bands.index("B11")])
    torch.testing.assert_close(images[:, 3], batch.dn["dn10"][:, 0, 2].float() / 10000)


def test_exported_program(tmp_path: Path) -> None:
    """Any network as an exported program: SatMAE's bands, scaling and size around the user's own file."""

    class Means(torch.nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images.mean(dim=(2, 3)).repeat(1, 103)[:, :1024]

    batch_size = torch.export.Dim("n", min=1, max=64)
    program = torch.export.export(Means(), (torch.zeros(2, 10, 96, 96),), dynamic_shapes=({0: batch_size},))
    torch.export.save(program, tmp_path / "satmae.pt2")
    embedder = open_file("satmae", tmp_path / "satmae.pt2")
    batch, plan = make_batch(embedder)
    with torch.inference_mode():
        result = embedder.embed(batch, plan)
    assert result.shape == (2, 1024)
    images = published.scaled_images(batch, plan, PUBLISHED["satmae"])
    torch.testing.assert_close(result[:, :10], images.mean(dim=(2, 3)), atol=0.02, rtol=0)


def test_missing_weights_say_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No file and no TorchGeo; a file that is not there; a file of another network; no file of weights at all."""
    monkeypatch.setitem(sys.modules, "torchgeo.models", None)
    for adapter in ("seco", "dofa", "croma"):
        with pytest.raises(ValueError, match=r"needs TorchGeo.*envs/torchgeo.yaml.*downloads models\."):
            open_embedder({"encoder": "published", "adapter": adapter}, files=Files(), device="cpu")
    with pytest.raises(ValueError, match=r"no network here.*exported with torch\.export"):
        open_embedder({"encoder": "published", "adapter": "satmae"}, files=Files(), device="cpu")
    with pytest.raises(FileNotFoundError, match=r"absent.pth does not exist. Weights are not part"):
        open_file("seco", tmp_path / "absent.pth")
    torch.save({"conv1.weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match="is not of this network: of 318 weights 317 are missing"):
        open_file("seco", tmp_path / "other.pth")
    (tmp_path / "broken.pth").write_bytes(b"not weights")
    with pytest.raises(ValueError, match="cannot be read as weights"):
        open_file("seco", tmp_path / "broken.pth")


@pytest.mark.usefixtures("small_seco")
def test_torchgeo_is_asked_for_the_named_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in of TorchGeo's interface: which weights are asked for, what DOFA and CROMA are fed."""
    asked = {}

    class Weights:
        def get_state_dict(self, progress: bool) -> dict[str, Tensor]:
            return made_state(3)

    class Dofa(torch.nn.Module):
        def forward_features(self, images: Tensor, wavelengths: list[float]) -> Tensor:
            asked["wavelengths"] = wavelengths
            return images.mean(dim=(2, 3)).repeat(1, 86)[:, :768]

    class Croma(torch.nn.Module):
        def forward(self, x_optical: Tensor) -> dict[str, Tensor]:
            asked["size"] = tuple(x_optical.shape[1:])
            return {"optical_GAP": torch.zeros(2, 768), "optical_encodings": torch.zeros(2, 225, 768)}

    module = SimpleNamespace(
        ResNet50_Weights=SimpleNamespace(SENTINEL2_RGB_SECO=Weights()),
        DOFABase16_Weights=SimpleNamespace(DOFA_MAE="dofa's"),
        CROMABase_Weights=SimpleNamespace(CROMA_VIT="croma's"),
        dofa_base_patch16_224=lambda weights: asked.update(dofa=weights) or Dofa(),
        croma_base=lambda weights, modalities: asked.update(croma=(weights, modalities)) or Croma(),
    )
    monkeypatch.setitem(sys.modules, "torchgeo", SimpleNamespace(models=module))
    monkeypatch.setitem(sys.modules, "torchgeo.models", module)
    for adapter, size in (("seco", 512), ("dofa", 768), ("croma", 768)):
        embedder = open_embedder({"encoder": "published", "adapter": adapter}, files=Files(), device="cpu")
        batch, plan = make_batch(embedder)
        with torch.inference_mode():
            assert embedder.embed(batch, plan).shape == (2, size) == (2, embedder.n_features)
    assert asked["dofa"] == "dofa's"
    assert asked["croma"] == ("croma's", ["optical"])
    assert asked["wavelengths"][:3] == [0.49, 0.56, 0.665]
    assert asked["size"] == (12, 120, 120)
