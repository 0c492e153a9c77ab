"""What is told about the intermediate stores."""

import fabricate
import numpy as np
import pytest
import xarray as xr

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
