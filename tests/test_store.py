"""The patch store: what is written is read back, by anyone, and never half."""

import multiprocessing
import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from workflow_scripts.core import bands, store

SEASONS = ["spring", "summer", "autumn", "winter"]
OPTIONS = {"seasons": SEASONS, "size_m": 320, "per_shard": 4}


def locations(n, start=0):
    rows = np.arange(start, n)
    return pd.DataFrame({"location_id": [f"p{i}" for i in rows], "lon": rows * 0.1, "lat": 47 + rows * 0.1})


def fill(arrays, seed=0):
    rng = np.random.default_rng(seed)
    for name in store.PIXELS:
        arrays[name][:] = rng.integers(1, 11, arrays[name].shape)
    for name in ("origin_x", "origin_y"):
        arrays[name][:] = 600_000
    arrays["origin60_x"][:] = 600_000 - 20
    arrays["origin60_y"][:] = 600_000 + 40
    arrays["datetime"][:] = 1_600_000_000
    arrays["epsg"][:] = 32632
    return arrays


@pytest.fixture
def path(tmp_path):
    store.create_store(tmp_path / "patches.zarr", locations=locations(6), **OPTIONS)
    return tmp_path / "patches.zarr"


def test_objects_named_by_the_rules_are_those_of_the_arrays():
    assert {name: len(spec.dims) for name, spec in store.ARRAYS.items()} == store.OBJECT_DIMENSIONS


@pytest.mark.parametrize("codec", store.CODECS)
def test_shards_come_back_through_plain_xarray(tmp_path, codec):
    path = tmp_path / "a.zarr"
    store.create_store(path, locations=locations(6), codec=codec, **OPTIONS)
    written = {shard: fill(store.empty_shard(path, shard), shard) for shard in (0, 1)}
    for shard, arrays in written.items():
        store.write_shard(path, shard, arrays)
    dataset = xr.open_zarr(path)
    assert dataset["dn10"].dims == ("location", "season", "band10", "y10", "x10")
    assert dataset["season"].values.tolist() == SEASONS
    for name in ("dn10", "dn20", "dn60", "scl", "epsg"):
        both = np.concatenate([written[0][name], written[1][name]])
        np.testing.assert_array_equal(dataset[name].values, both)
    assert (dataset["datetime"].values == np.datetime64("2020-09-13T12:26:40")).all()
    assert dataset["location_id"].values.tolist() == [f"p{i}" for i in range(6)]


def test_every_object_of_a_shard_without_patches_is_there_and_reads_as_missing(path):
    store.write_shard(path, 0, store.empty_shard(path, 0))
    assert all((path / name).is_file() for name in store.shard_objects(0))
    dataset = store.open_store(path)
    assert not dataset["dn10"][:4].values.any()
    assert np.isnat(dataset["datetime"][:4].values).all()
    assert (dataset["epsg"][:4].values == 0).all()
    assert np.isnan(dataset["cloud_fraction"][:4].values).all()


def test_jobs_write_no_common_file(path):
    assert not set(store.shard_objects(0)) & set(store.shard_objects(1))
    store.write_shard(path, 0, fill(store.empty_shard(path, 0)))
    before = {name: (path / name).read_bytes() for name in store.shard_objects(0)}
    store.write_shard(path, 1, fill(store.empty_shard(path, 1)))
    assert before == {name: (path / name).read_bytes() for name in store.shard_objects(0)}
    assert not path.with_name("patches.zarr.staging").exists()


def test_two_processes_that_write_the_same_shard_both_finish(path, monkeypatch):
    """A job of a run that was given up, beside the one that a new run sent."""
    fork = multiprocessing.get_context("fork")
    staged, go_on = fork.Event(), fork.Event()
    arrays, flush = fill(store.empty_shard(path, 0)), os.fsync

    def hesitate(handle):
        staged.set()
        go_on.wait(60)
        flush(handle)

    monkeypatch.setattr(os, "fsync", hesitate)
    first = fork.Process(target=store.write_shard, args=(path, 0, arrays))
    first.start()
    assert staged.wait(60)
    monkeypatch.undo()
    second = fork.Process(target=store.write_shard, args=(path, 0, arrays))
    second.start()
    second.join(0.5)
    go_on.set()
    first.join(60)
    second.join(60)
    assert (first.exitcode, second.exitcode) == (0, 0)
    np.testing.assert_array_equal(store.read_shard(path, 0)[0]["dn10"], arrays["dn10"])


def test_a_failure_while_encoding_leaves_the_old_objects(path, monkeypatch):
    first = fill(store.empty_shard(path, 0))
    store.write_shard(path, 0, first)
    second = fill(store.empty_shard(path, 0), seed=9)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        store.write_shard(path, 0, second)
    arrays, readable = store.read_shard(path, 0)
    assert all(readable.values())
    np.testing.assert_array_equal(arrays["dn10"], first["dn10"])


def test_damaged_and_absent_objects_are_told_apart_from_good_ones(path):
    store.write_shard(path, 0, fill(store.empty_shard(path, 0)))
    (path / "dn20" / "c.0.0.0.0.0").write_bytes(b"rubbish")
    (path / "epsg" / "c.0.0").unlink()
    arrays, readable = store.read_shard(path, 0)
    assert [name for name, good in readable.items() if not good] == ["dn20", "epsg"]
    assert not arrays["dn20"].any()
    assert arrays["dn10"].any()


def test_store_behind_a_link_to_another_disk(path, tmp_path):
    moved = tmp_path / "elsewhere" / "moved.zarr"
    moved.parent.mkdir()
    path.rename(moved)
    path.symlink_to(moved)
    seen = []
    original = os.replace
    try:
        os.replace = lambda a, b: (seen.append((a, b)), original(a, b))
        store.write_shard(path, 0, fill(store.empty_shard(path, 0)))
    finally:
        os.replace = original
    assert seen and all(moved.parent in Path(a).parents for a, _ in seen)
    assert store.open_store(path)["dn10"][:4].values.all()


def test_store_grows_at_its_end_and_keeps_what_it_has(path):
    first = fill(store.empty_shard(path, 1))
    store.write_shard(path, 1, first)
    store.create_store(path, locations=locations(9), **OPTIONS)
    dataset = store.open_store(path)
    assert dataset.sizes["location"] == 9
    np.testing.assert_array_equal(dataset["dn10"][4:6].values, first["dn10"])
    assert not dataset["dn10"][6:].values.any()
    assert dataset["location_id"].values[-1] == "p8"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"per_shard": 8}, "per_shard: store has 4, asked for 8"),
        ({"size_m": 640}, "size_m: store has 320"),
        ({"seasons": ["summer"]}, "seasons"),
        ({"codec": "blosc-zstd3-shuffle"}, "codec"),
    ],
)
def test_another_layout_is_refused_and_nothing_is_lost(path, change, message):
    store.write_shard(path, 0, fill(store.empty_shard(path, 0)))
    with pytest.raises(ValueError, match=message):
        store.create_store(path, locations=locations(6), **{**OPTIONS, **change})
    assert store.open_store(path)["dn10"][:4].values.all()


def test_other_locations_are_refused(path):
    with pytest.raises(ValueError, match="different from location 0 on"):
        store.create_store(path, locations=locations(7, start=1), **OPTIONS)
    with pytest.raises(ValueError, match="only grows at its end"):
        store.create_store(path, locations=locations(5), **OPTIONS)


def test_wrong_shapes_are_refused(path):
    arrays = store.empty_shard(path, 0)
    arrays["dn10"] = arrays["dn10"][:, :, :, :-1]
    with pytest.raises(ValueError, match="dn10"):
        store.write_shard(path, 0, arrays)
    with pytest.raises(ValueError, match="lies beyond"):
        store.empty_shard(path, 2)
    with pytest.raises(FileNotFoundError, match="holds no store"):
        store.open_store(path.parent / "nothing.zarr")


def test_store_opens_without_our_code_and_without_consolidated_metadata(path):
    store.write_shard(path, 0, fill(store.empty_shard(path, 0)))
    group = zarr.open_group(path, mode="r", use_consolidated=False)
    assert group["dn10"][0, 0].shape == (4, 32, 32)
    copy = path.with_name("copy.zarr")
    shutil.copytree(path, copy)
    assert xr.open_zarr(copy)["dn10"].shape == (6, 4, 4, 32, 32)


@pytest.mark.parametrize("codec", sorted(store.CODECS))
def test_tensorstore_and_zarr_python_read_the_same_pixels(tmp_path, codec):
    """As docs/patches.md shows it."""
    tensorstore = pytest.importorskip("tensorstore")
    path = tmp_path / "a.zarr"
    store.create_store(path, locations=locations(6), codec=codec, **OPTIONS)
    arrays = fill(store.empty_shard(path, 0))
    store.write_shard(path, 0, arrays)
    for name in ("dn10", "dn20", "dn60", "scl", "cloud_fraction", "datetime"):
        spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(path / name)}}
        array = tensorstore.open(spec, read=True).result()
        np.testing.assert_array_equal(array[:4].read().result(), arrays[name][:4])
        np.testing.assert_array_equal(zarr.open_array(path / name, mode="r")[:4], arrays[name][:4])
        assert array[4:].read().result().shape[0] == 2  # the shard that is not there yet reads as missing


def bilinear(coarse, factor, y, x):
    """Slow, obvious bilinear value at a fine pixel's center."""
    py, px = (y + 0.5) / factor - 0.5, (x + 0.5) / factor - 0.5
    py = min(max(py, 0), coarse.shape[0] - 1)
    px = min(max(px, 0), coarse.shape[1] - 1)
    y0, x0 = int(py), int(px)
    y1, x1 = min(y0 + 1, coarse.shape[0] - 1), min(x0 + 1, coarse.shape[1] - 1)
    a, b = py - y0, px - x0
    top = coarse[y0, x0] * (1 - b) + coarse[y0, x1] * b
    return top * (1 - a) + (coarse[y1, x0] * (1 - b) + coarse[y1, x1] * b) * a


def test_cube_at_10_m_equals_the_slow_interpolation(path):
    arrays = fill(store.empty_shard(path, 0))
    store.write_shard(path, 0, arrays)
    dataset = store.open_store(path)
    cube = store.cube10(dataset.isel(location=[1]), ["B11", "B04", "B01"]).isel(location=0, season=2)
    assert cube["band"].values.tolist() == ["B11", "B04", "B01"]
    for y, x in [(0, 0), (7, 20), (31, 31), (16, 3)]:
        b11 = bilinear(arrays["dn20"][1, 2, bands.BANDS20.index("B11")].astype(float), 2, y, x)
        b01 = bilinear(arrays["dn60"][1, 2, 0].astype(float), 6, y + 4, x + 2)
        expected = [b11, arrays["dn10"][1, 2, 2, y, x], b01]
        np.testing.assert_allclose(cube.values[:, y, x], expected, rtol=1e-5)


def test_lazy_cube_equals_the_eager_one(path):
    store.write_shard(path, 0, fill(store.empty_shard(path, 0)))
    lazy = store.reflectance(store.open_store(path, chunks={}).isel(location=slice(0, 2)))
    assert lazy.chunks is not None
    eager = store.reflectance(store.open_store(path).isel(location=slice(0, 2)))
    np.testing.assert_array_equal(lazy.values, eager.values)


def test_no_data_is_nan_in_the_views(path):
    arrays = fill(store.empty_shard(path, 0))
    arrays["dn10"][0, 0, :, 3, 3] = 0
    store.write_shard(path, 0, arrays)
    dataset = store.open_store(path).isel(location=0)
    assert np.isnan(store.cube10(dataset, ["B04"]).isel(season=0).values[0, 3, 3])
    assert np.isnan(store.ndvi10(dataset).isel(season=0).values[3, 3])


@settings(max_examples=50)
@given(st.integers(0, 65535), st.sampled_from([0, 1000]))
def test_harmonized_dn_keeps_no_data_apart(dn, offset):
    value = int(bands.harmonize(np.array([dn], np.uint16), offset)[0])
    assert value == (0 if dn == 0 else max(1, dn - offset) if offset else dn)


def test_checksum_sees_any_change():
    a, b = np.zeros((2, 3), np.uint16), np.ones(4, np.uint8)
    first = store.patch_checksum(a, b)
    a[1, 2] = 1
    assert store.patch_checksum(a, b) != first


def test_an_imported_archive_lists_its_own_bands_and_lacks_the_other_arrays(tmp_path):
    """What was published at 10 m stands in dn10, whatever the band; absent arrays are absent."""
    path = tmp_path / "imported.zarr"
    arrays = {
        "dn10": {"bands": ["B02", "B8A", "B04", "B08"], "side_px": 6},
        "dn60": {"bands": ["B09"], "side_px": 1},
    }
    options = {"seasons": ["single"], "size_m": 60, "per_shard": 4}
    store.create_store(path, locations=locations(6), arrays=arrays, **options)
    shard = store.empty_shard(path, 1)
    assert "scl" not in shard and "dn20" not in shard and shard["dn10"].shape == (2, 1, 4, 6, 6)
    shard["dn10"][:] = np.arange(1, 289).reshape(shard["dn10"].shape)
    shard["dn60"][:] = 7
    shard["origin_x"][:], shard["origin_y"][:] = 600_000, 5_000_000
    shard["origin60_x"][:], shard["origin60_y"][:] = 600_000, 5_000_000
    store.write_shard(path, 1, shard)
    dataset = store.open_store(path)
    assert dataset["band10"].values.tolist() == ["B02", "B8A", "B04", "B08"]
    part = dataset.isel(location=slice(4, 6))
    cube = store.cube10(part, ["B8A", "B09"])
    np.testing.assert_array_equal(cube[0, 0, 0], shard["dn10"][0, 0, 1])
    assert (cube[:, :, 1] == 7).all()
    expected = bands.ndvi(shard["dn10"][:, :, 3], shard["dn10"][:, :, 2])
    np.testing.assert_array_equal(store.ndvi10(part), expected)
    with pytest.raises(ValueError, match=r"the store has no bands \['B11'\]"):
        store.cube10(part, ["B11"])
    assert not store.is_own(store.layout(path))
    with pytest.raises(ValueError, match="another layout"):
        store.create_store(path, locations=locations(6), arrays={"dn10": arrays["dn10"]}, **options)


@pytest.mark.parametrize("name", ["dn_offset", "datetime", "epsg", "sun_zenith"])
def test_a_changed_byte_is_never_read_as_another_value(path, name):
    """Every byte of a small array in turn: an error, or the value that was stored."""
    arrays = fill(store.empty_shard(path, 0))
    store.write_shard(path, 0, arrays)
    (object_path,) = (path / name).glob("c.*")
    content = object_path.read_bytes()
    for position in range(len(content)):
        object_path.write_bytes(
            content[:position] + bytes([content[position] ^ 0xFF]) + content[position + 1 :]
        )
        found, readable = store.read_shard(path, 0)
        assert not readable[name] or np.array_equal(found[name], arrays[name], equal_nan=True)
