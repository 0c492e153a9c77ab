"""What is told about the intermediate stores."""

import fabricate
import numpy as np
import pytest
import xarray as xr
from matplotlib.figure import Figure

from workflow_scripts import inspect_store
from workflow_scripts.core import store


@pytest.fixture
def folder(tmp_path):
    fabricate.write_dataset(tmp_path, n=6)
    return tmp_path


def told(capsys, path, *arguments):
    assert inspect_store.command([str(path), *arguments]) == 0
    return capsys.readouterr().out


def test_patches(folder, capsys):
    path = folder / "patches.zarr"
    is_patch = store.open_store(path)["epsg"].values > 0
    text = told(capsys, path)
    assert f"patches: {is_patch.sum()} of {is_patch.size}" in text and (folder / "patches.png").stat().st_size
    assert "days from first to last scene" in text
    (path / store.shard_objects(1)[0]).unlink()
    assert "objects not there: 1, such as dn10/c.1" in told(capsys, path)


@pytest.mark.filterwarnings("ignore:Failed to open Zarr store with consolidated")
def test_greenness(folder, capsys):
    text = told(capsys, folder / "greenness.zarr", "--png", str(folder / "quick.png"))
    assert "of 6 locations" in text and "reliability: good" in text and (folder / "quick.png").exists()


@pytest.mark.filterwarnings("ignore:Consolidated metadata")
def test_embeddings(tmp_path, capsys):
    values = np.random.default_rng(0).normal(size=(30, 2, 5)).astype(np.float32)
    values[3, 1] = np.nan
    values[..., 4] = np.where(np.isnan(values[..., 0]), np.nan, 1)
    dataset = xr.Dataset(
        {"embedding": (("location", "season", "feature"), values)},
        {"season": np.array(["summer", "winter"], object)},
        {"model": "m"},
    )
    dataset.to_zarr(tmp_path / "embeddings.zarr")
    text = told(capsys, tmp_path / "embeddings.zarr")
    assert "5 features of 30 locations" in text and "winter: 29 of 30" in text
    assert "features that never change: 1" in text and (tmp_path / "embeddings.png").exists()


@pytest.mark.filterwarnings("ignore:Consolidated metadata")
def test_what_is_no_store_is_told(tmp_path, capsys):
    assert inspect_store.command([str(tmp_path / "none.zarr")]) == 1
    assert "holds no store" in capsys.readouterr().err
    xr.Dataset({"other": ("x", [1])}).to_zarr(tmp_path / "other.zarr")
    assert inspect_store.command([str(tmp_path / "other.zarr")]) == 1
    assert "none of ['embeddings', 'greenness', 'patches']" in capsys.readouterr().err


def test_true_color_is_drawn_of_the_right_bands():
    """An imported archive has all it publishes at 10 m in one array."""
    names = ["B01", "B02", "B03", "B04"]
    values = np.arange(4, dtype=np.uint16)[:, None, None] * 1000 * np.ones((1, 1, 4, 8, 8), np.uint16)
    dataset = xr.Dataset(
        {
            "dn10": (("location", "season", "band10", "y10", "x10"), values),
            "epsg": (("location", "season"), [[32632]]),
            "datetime": (("location", "season"), np.array([["2021-07-01"]], "datetime64[ns]")),
        },
        {"band10": names, "season": ["summer"], "location_id": ("location", ["P"])},
    )
    figure = Figure()
    inspect_store._draw_patches(dataset, figure, np.array([0]))
    (shown,) = figure.axes[0].images
    np.testing.assert_allclose(shown.get_array()[0, 0], np.array([3, 2, 1]) * 0.1 / 0.3, atol=1e-6)
