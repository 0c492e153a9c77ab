"""Exported GeoTIFFs hold the stored pixels where they lie."""

import fabricate
import numpy as np
import pytest
import rasterio

from workflow_scripts import export
from workflow_scripts.core import bands, store, tables


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("dataset")
    fabricate.write_dataset(path, n=6)
    return path


@pytest.fixture
def index(folder):
    return tables.read_table(folder / "patches.parquet", "patches")


def patch_of(folder, row):
    return store.open_store(folder / "patches.zarr").isel(location=row.location).sel(season=row.season).load()


def test_native_files_are_the_stored_pixels_in_place(folder, index, tmp_path):
    row = next(index[index["status"] == "ok"].itertuples())
    arguments = ["--locations", row.location_id, "--seasons", row.season]
    assert export.command([str(folder / "patches.zarr"), "--to", str(tmp_path), *arguments]) == 0
    patch = patch_of(folder, row)
    for name, part, step in (
        ("10m", "dn10", 10),
        ("20m", "dn20", 20),
        ("60m", "dn60", 60),
        ("scl", "scl", 20),
    ):
        with rasterio.open(tmp_path / row.location_id / f"{row.season}_{name}.tif") as file:
            expected = patch[part].values
            np.testing.assert_array_equal(file.read(), expected[None] if part == "scl" else expected)
            assert file.crs.to_epsg() == row.epsg and file.nodata == 0 and file.res == (step, step)
            if part == "dn60":
                assert (file.bounds.left, file.bounds.top) == (patch["origin60_x"], patch["origin60_y"])
                assert file.descriptions == bands.BANDS60 and file.scales[0] == bands.REFLECTANCE_SCALE
            else:
                assert (file.bounds.left, file.bounds.top) == (row.origin_x, row.origin_y)
            assert file.tags()["item_id"] == row.item_id
    assert not list(tmp_path.rglob(".*"))


def test_published_layout(folder, index, tmp_path):
    rows = index[index["status"] == "ok"].head(3)
    files = export.export(folder / "patches.zarr", rows, tmp_path, layout="published")
    assert len(set(files)) == 3
    for row, path in zip(rows.itertuples(), files, strict=True):
        assert path == tmp_path / f"imgs/{row.location:06d}/{row.datetime:%Y%m%d}_T{row.mgrs_tile}.tif"
        patch = patch_of(folder, row)
        with rasterio.open(path) as file:
            values = file.read()
            assert file.descriptions == (*bands.ALL_BANDS, "NDVI")
            assert file.compression.name == "lzw" and values.dtype == np.uint16
        np.testing.assert_array_equal(
            values[[bands.ALL_BANDS.index(name) for name in bands.BANDS10]], patch["dn10"].values
        )
        red, near = (values[bands.ALL_BANDS.index(name)].astype(float) for name in ("B04", "B08"))
        expected = np.clip((near - red) / (near + red), 0, None) * 10_000
        np.testing.assert_allclose(values[12], expected, atol=1.01)  # truncated, from float32


def test_choices_that_give_nothing_are_told(folder, index, tmp_path, capsys):
    path = str(folder / "patches.zarr")
    assert export.command([path, "--to", str(tmp_path), "--locations", "nowhere"]) == 1
    assert "no location_id ['nowhere']" in capsys.readouterr().err
    missing = index[index["status"] != "ok"].head(1)
    if len(missing):
        with pytest.raises(ValueError, match="there is no patch"):
            export.chosen_patches(index, list(missing["location_id"]), list(missing["season"]))


def test_two_scenes_of_one_name_are_refused(folder, index, tmp_path):
    rows = index[index["status"] == "ok"].copy()
    rows = rows[rows["location"] == rows["location"].iloc[0]].head(2)
    rows["datetime"], rows["mgrs_tile"] = rows["datetime"].iloc[0], "32TQT"
    with pytest.raises(ValueError, match="same day and tile"):
        export.export(folder / "patches.zarr", rows, tmp_path, layout="published")
