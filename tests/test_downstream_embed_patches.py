"""Embeddings of a small store: preprocessing, gaps, what is written."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr

from pretrain import encoders as training_encoders
from pretrain.downstream import baselines, embed_patches
from pretrain.downstream.embed_patches import locate_patches
from pretrain.downstream.embedder import Files, fit_size
from pretrain.downstream.encoders import open_embedder
from workflow_scripts.core import bands, store, tables

N, SEASONS, SIZE_M = 7, ("winter", "summer"), 320
BANDS = ["B08", "B04", "B11", "B01", "NDVI"]


@pytest.fixture
def dataset(tmp_path: Path) -> SimpleNamespace:
    """A store of 7 locations and 2 seasons, two patches missing, and its index."""
    rng = np.random.default_rng(0)
    locations = pd.DataFrame(
        {
            "location_id": [f"p{i}" for i in range(N)],
            "lon": 12 + 0.01 * np.arange(N),
            "lat": 47 + 0.01 * np.arange(N),
        }
    )
    path = tmp_path / "patches.zarr"
    store.create_store(path, locations=locations, seasons=SEASONS, size_m=SIZE_M, per_shard=4)
    present = np.ones((N, 2), bool)
    present[2, 0] = present[5] = False
    for shard in range(2):
        arrays = store.empty_shard(path, shard)
        first, last = store.shard_range(path, shard)
        for location in range(first, last):
            for season in np.flatnonzero(present[location]):
                i = location - first
                for name in ("dn10", "dn20", "dn60"):
                    shape = arrays[name].shape[2:]
                    arrays[name][i, season] = rng.integers(200, 5000, shape)
                arrays["origin_x"][i, season], arrays["origin_y"][i, season] = 500_020, 5_200_000
                arrays["origin60_x"][i, season], arrays["origin60_y"][i, season] = 500_000, 5_200_020
        store.write_shard(path, shard, arrays)
    index = pd.DataFrame(
        {
            "location_id": np.repeat(locations["location_id"].to_numpy(), 2),
            "season": list(SEASONS) * N,
            "status": np.where(present.ravel(), "ok", "missing"),
            "checksum": [f"c{i}" for i in range(2 * N)],
        }
    ).sample(frac=1, random_state=1)
    index.to_parquet(tmp_path / "patches.parquet")
    return SimpleNamespace(path=path, index=index, folder=tmp_path, present=present)


def run(
    dataset: SimpleNamespace,
    model: dict,
    *,
    encoder: str | list = (),
    table: str | list = (),
    parts: list = (),
    name: str = "m",
) -> xr.Dataset:
    """Run the rule and open what it wrote."""
    output = dataset.folder / "embeddings" / name / "embeddings.zarr" / "zarr.json"
    output.parent.mkdir(parents=True, exist_ok=True)
    job = SimpleNamespace(
        input=SimpleNamespace(
            encoder=encoder,
            table=table,
            parts=parts,
            patches=str(dataset.folder / "patches.parquet"),
            store=str(dataset.path / "zarr.json"),
        ),
        output=SimpleNamespace(store=str(output)),
        params=SimpleNamespace(model=model),
        wildcards=SimpleNamespace(model=name, dataset="set"),
        threads=2,
    )
    embed_patches.main(job)
    return xr.open_zarr(output.parent, chunks=None).load()


@pytest.fixture(autouse=True)
def small_steps(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Several batches and chunks, the last ones ragged; one thread, as the machine may be busy."""
    monkeypatch.setattr(embed_patches, "BATCH_SIZE", 3)
    monkeypatch.setattr(embed_patches, "CHUNK_LOCATIONS", 3)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_mean_spectrum_by_hand(dataset: SimpleNamespace) -> None:
    """Means and deviations of reflectance by band name, each where its patch is, gaps NaN."""
    result = run(dataset, {"encoder": "mean_spectrum", "bands": BANDS, "seed": 0})
    assert result["embedding"].dims == ("location", "season", "feature")
    assert result["embedding"].dtype == np.float32
    np.testing.assert_array_equal(np.isfinite(result["embedding"].values).all(axis=2), dataset.present)
    assert np.isnan(result["embedding"].values[~dataset.present]).all()
    assert result["location_id"].values.tolist() == [f"p{i}" for i in range(N)]
    assert result["season"].values.tolist() == list(SEASONS)
    patches = store.open_store(dataset.path)
    for location, season in ((6, 1), (0, 0)):
        patch = patches.isel(location=location, season=season)
        dn10 = dict(zip(bands.BANDS10, patch["dn10"].values.astype(float), strict=True))
        dn20 = dict(zip(bands.BANDS20, patch["dn20"].values.astype(float), strict=True))
        dn60 = dict(zip(bands.BANDS60, patch["dn60"].values.astype(float), strict=True))
        pixels = [dn10["B08"] / 1e4, dn10["B04"] / 1e4, dn20["B11"] / 1e4, dn60["B01"] / 1e4]
        pixels.append((dn10["B08"] - dn10["B04"]) / (dn10["B08"] + dn10["B04"]))
        expected = [values.mean() for values in pixels] + [values.std() for values in pixels]
        # float32 sums over 1024 pixels
        np.testing.assert_allclose(
            result["embedding"][location, season].values, expected, rtol=1e-4, atol=1e-6
        )
    assert result.attrs["bands"] == BANDS
    assert result.attrs["encoder"] == "mean_spectrum"
    assert set(result.coords) == {"location_id", "lon", "lat", "season"}


def test_no_data_pixels_do_not_count(dataset: SimpleNamespace) -> None:
    """Zeros are holes, not dark ground; a band of holes alone gives 0."""
    arrays, _ = store.read_shard(dataset.path, 0)
    arrays["dn10"][0, 0, :, :16] = 0
    arrays["dn10"][0, 0, :, 16:] = 4000
    arrays["dn20"][0, 0] = 0
    store.write_shard(dataset.path, 0, arrays)
    result = run(dataset, {"encoder": "mean_spectrum", "bands": ["B08", "B11", "NDVI"], "seed": 0})
    np.testing.assert_allclose(result["embedding"][0, 0].values, [0.4, 0, 0, 0, 0, 0], rtol=1e-6, atol=1e-7)


def test_trained_encoder_sees_the_training_scale(dataset: SimpleNamespace, tmp_path: Path) -> None:
    """DN / 255 and NDVI × 10000 / 255 at 10 m, bands by name, center crop, pooled features."""
    model = training_encoders.build_encoder("resnet18", 3, seed=3)
    file = tmp_path / "encoder.safetensors"
    training_encoders.save_encoder(file, model, bands=["B04", "B08", "NDVI"], crop_px=16)
    result = run(dataset, {"device": "cpu"}, encoder=str(file))
    patch = store.open_store(dataset.path).isel(location=4, season=1)
    dn = patch["dn10"].sel(band10=["B04", "B08"]).values.astype(np.float32)
    ndvi = np.floor(np.maximum(bands.ndvi(dn[1], dn[0]), 0) * 1e4)
    image = torch.tensor(np.concatenate([dn, ndvi[None]]) / 255)[None, :, 8:24, 8:24]
    with torch.inference_mode():
        expected = model.eval()(image).pooled[0].numpy()
    scale = np.abs(expected).max()
    np.testing.assert_allclose(result["embedding"][4, 1].values, expected, atol=1e-4 * scale)
    assert result.attrs["size_px"] == 16
    assert result.attrs["backbone"] == "resnet18"
    assert result.attrs["scaling"] == training_encoders.SCALING


def test_file_without_image_size_is_refused(dataset: SimpleNamespace, tmp_path: Path) -> None:
    """The size an encoder was trained on is never guessed."""
    model = training_encoders.build_encoder("resnet18", 1, seed=3)
    file = tmp_path / "encoder.safetensors"
    training_encoders.save_encoder(file, model, bands=["B04"])
    with pytest.raises(ValueError, match="does not say for which image size"):
        run(dataset, {}, encoder=str(file))


def test_random_weights_follow_the_seed(dataset: SimpleNamespace) -> None:
    """Same seed, same embeddings and digest; another seed, others. Small patches are enlarged."""
    model = {"encoder": "random", "backbone": "resnet18", "bands": ["B02", "B05"], "crop_px": 48}
    first = run(dataset, model | {"seed": 1})
    again = run(dataset, model | {"seed": 1}, name="again")
    other = run(dataset, model | {"seed": 2}, name="other")
    np.testing.assert_array_equal(first["embedding"], again["embedding"])
    assert first.attrs["encoder_digest"] == again.attrs["encoder_digest"]
    assert first.attrs["encoder_digest"] != other.attrs["encoder_digest"]
    assert first.attrs["dataset_digest"] == other.attrs["dataset_digest"]
    assert np.nanmax(np.abs(first["embedding"] - other["embedding"])) > 0
    assert first.sizes["feature"] == 512
    assert first.attrs["size_px"] == 48


def test_untrained_defaults_are_the_trained_ones() -> None:
    """Bands and size of an untrained row are the published ones unless named."""
    embedder = open_embedder(
        {"encoder": "random", "backbone": "resnet18", "seed": 0}, files=Files(), device="cpu"
    )
    assert embedder.bands[-1] == "NDVI"
    assert len(embedder.bands) == 9
    assert embedder.facts["size_px"] == 224


def test_rerun_replaces_the_store(dataset: SimpleNamespace) -> None:
    """A second run with other bands leaves nothing of the first."""
    run(dataset, {"encoder": "mean_spectrum", "bands": ["B02", "B03"], "seed": 0})
    result = run(dataset, {"encoder": "mean_spectrum", "bands": ["B12"], "seed": 0})
    assert result.sizes["feature"] == 2
    assert result.attrs["bands"] == ["B12"]
    assert not list((dataset.folder / "embeddings" / "m").glob("*.staging"))


def test_index_and_store_must_agree(dataset: SimpleNamespace) -> None:
    """A location in the index that the store lacks is named."""
    stranger = pd.DataFrame({"location_id": ["x9"], "season": ["summer"], "status": ["ok"]})
    with pytest.raises(ValueError, match=r"location_id \['x9'\]"):
        locate_patches(stranger, coordinates=store.open_store(dataset.path))


def test_unknown_encoder_and_missing_weights() -> None:
    """Both say what to do."""
    with pytest.raises(ValueError, match="encoder 'resnet' is not one of"):
        open_embedder({"encoder": "resnet"}, files=Files(), device="cpu")
    with pytest.raises(ValueError, match="run the target `pretrained`"):
        open_embedder({}, files=Files(), device="cpu")


def test_fit_size() -> None:
    """Larger images are cropped about the center, smaller ones enlarged as by torch's bicubic."""
    image = torch.arange(36.0).view(1, 1, 6, 6)
    torch.testing.assert_close(fit_size(image, 2), image[..., 2:4, 2:4])
    torch.testing.assert_close(fit_size(image, 6), image)
    enlarged = torch.nn.functional.interpolate(image, size=(9, 9), mode="bicubic")
    torch.testing.assert_close(fit_size(image, 9), enlarged)


def test_index_columns_are_those_of_the_table() -> None:
    """The columns read here exist in the index's contract."""
    assert {"location_id", "season", "status", "checksum"} <= set(tables.COLUMNS["patches"])


def test_band_quantiles_by_hand(dataset: SimpleNamespace) -> None:
    """Quantiles of reflectance, band after band."""
    result = run(dataset, {"encoder": "band_quantiles", "bands": ["B04", "B11"], "seed": 0})
    with store.open_store(dataset.path) as patches:
        red = patches["dn10"].isel(location=3, season=1).sel(band10="B04").values
        swir = patches["dn20"].isel(location=3, season=1).sel(band20="B11").values
    expected = [np.quantile(band / 10000, (0.05, 0.25, 0.5, 0.75, 0.95)) for band in (red, swir)]
    np.testing.assert_allclose(result["embedding"].values[3, 1], np.concatenate(expected), rtol=1e-4)


def test_coordinates_see_the_place_alone(dataset: SimpleNamespace) -> None:
    """Sine and cosine of multiples of the angles; the same in every season; periodic in longitude."""
    values = run(dataset, {"encoder": "coordinates", "seed": 0})["embedding"].values
    np.testing.assert_array_equal(np.isfinite(values).all(axis=2), dataset.present)
    np.testing.assert_array_equal(values[0, 0], values[0, 1])
    lon, lat = np.radians(12), np.radians(47)
    expected = [*np.sin(lon * 2.0 ** np.arange(8)), *np.cos(lon * 2.0 ** np.arange(8))]
    np.testing.assert_allclose(values[0, 0, :16], expected, atol=1e-5)
    np.testing.assert_allclose(values[0, 0, 16:18], np.sin([lat, 2 * lat]), atol=1e-5)
    east, west = (baselines.waves(torch.tensor([[angle, 10.0]])) for angle in (190.0, -170.0))
    torch.testing.assert_close(east, west, atol=1e-5, rtol=0)


def test_tables_are_joined_by_id_and_parts_side_by_side(dataset: SimpleNamespace) -> None:
    """Rows in any order; z-scores; a missing value or place has no embedding; joined blocks are of equal weight."""
    frame = pd.DataFrame(
        {
            "location_id": [f"p{i}" for i in (6, 3, 0, 1, 4, 5)],
            "temp": [60.0, 30, 0, 10, np.nan, 50],
            "rain": 5.0,
        }
    )
    frame.to_csv(dataset.folder / "climate.csv", index=False)
    settings = {"encoder": "table", "columns": ["temp", "rain"], "seed": 0}
    climate = run(dataset, settings, table=str(dataset.folder / "climate.csv"), name="climate")
    values = climate["embedding"].values
    known = frame["temp"].dropna()
    for name, place in (("p3", 3), ("p0", 0)):
        wanted = (frame.set_index("location_id").loc[name, "temp"] - known.mean()) / known.std(ddof=0)
        np.testing.assert_allclose(values[place, 1], [wanted, 0], rtol=1e-5, atol=1e-6)
    assert np.isnan(values[[2, 4]]).all()  # not in the table, no value
    run(dataset, {"encoder": "mean_spectrum", "bands": ["B08"], "seed": 0}, name="color")
    parts = [
        str(dataset.folder / "embeddings" / name / "embeddings.zarr" / "zarr.json")
        for name in ("color", "climate")
    ]
    joined = run(dataset, {"encoder": "joined", "parts": ["color", "climate"]}, parts=parts, name="both")
    both = joined["embedding"].values
    assert both.shape[2] == 4
    usable = np.isfinite(both).all(axis=2)
    np.testing.assert_array_equal(usable, dataset.present & np.isfinite(values).all(axis=2))
    part = both[..., 2:] / values
    assert np.nanstd(part) < 1e-5  # one factor for all
    frame = pd.concat([frame, frame.iloc[:1]])
    frame.to_csv(dataset.folder / "climate.csv", index=False)
    with pytest.raises(ValueError, match="names a location_id twice"):
        run(dataset, settings, table=str(dataset.folder / "climate.csv"))
    with pytest.raises(ValueError, match=r"lacks columns \['soil'\]"):
        run(dataset, {**settings, "columns": ["soil"]}, table=str(dataset.folder / "climate.csv"))


def test_extents_are_crops_side_by_side(dataset: SimpleNamespace) -> None:
    """The embedding of each center crop, brought to the network's size; one that is too large is refused."""
    model = {"encoder": "random", "backbone": "resnet18", "bands": ["B08"], "crop_px": 32, "seed": 1}
    both = run(dataset, {**model, "extents_px": [32, 16]})["embedding"].values
    assert both.shape[2] == 1024
    whole = run(dataset, model)["embedding"].values
    np.testing.assert_allclose(both[0, 0, :512], whole[0, 0], rtol=1e-4, atol=1e-5)
    assert not np.allclose(both[0, 0, 512:], whole[0, 0], atol=1e-3)
    with pytest.raises(ValueError, match="extents_px names 64 px, but patches are 32 x 32"):
        run(dataset, {**model, "extents_px": [64]})
