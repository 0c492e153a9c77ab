"""Batches hold exactly the stored pixels of the right bands, seasons and locations."""

import logging
import os
import pickle
import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest
import torch

from pretrain.cache import fill_cache, objects_to_copy
from pretrain.data import (
    ORIGINS,
    BandPlan,
    PatchDataset,
    PatchReader,
    plan_bands,
    prefetch,
    to_images,
    to_valid,
)
from pretrain.reader import ShardedPatchArray, open_arrays
from pretrain.samples import (
    read_dataset,
    read_samples,
    read_side_table,
    select_samples,
    shares_of_draws,
    write_samples,
)
from tests.pretrain_world import make_world, serve_bucket
from workflow_scripts.core import bands, store, tables
from workflow_scripts.core.seasons import SEASONS
from workflow_scripts.core.tables import dataset_digest
from workflow_scripts.demo.server import DemoServer

BANDS = ("B04", "NDVI", "B8A", "B02", "B01", "B12")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def chosen(world):
    return select_samples(
        tables.read_table(world / "patches.parquet", "patches"),
        tables.read_table(world / "weights.parquet", "weights"),
        seasons=SEASONS,
    )


def test_locations_with_fewer_than_two_seasons_are_left_out(chosen):
    assert chosen.location.tolist() == [0, 1, *range(3, 12)]
    assert chosen.location_id.tolist() == [f"{i}U_{i}R" for i in chosen.location]
    assert chosen.available.sum(axis=1).tolist() == [4, 2] + [4] * 9
    assert np.isnan(chosen.day_of_year[1]).tolist() == [False, False, True, True]
    assert chosen.weight.tolist() == [0.25 if i % 3 == 0 else 1.0 for i in chosen.location]


def test_samples_come_back(chosen, tmp_path):
    write_samples(tmp_path / "samples.npz", chosen)
    loaded = read_samples(tmp_path / "samples.npz")
    for name, value in vars(chosen).items():
        np.testing.assert_array_equal(getattr(loaded, name), value)


def test_nothing_to_train_on_is_told(world):
    patches = tables.read_table(world / "patches.parquet", "patches")
    weights = tables.read_table(world / "weights.parquet", "weights")
    with pytest.raises(ValueError, match="none of 12 locations has patches of 2 season"):
        select_samples(patches.assign(status="missing"), weights, seasons=SEASONS)
    with pytest.raises(ValueError, match="weights cover 10 of 11"):
        select_samples(patches, weights[weights["location_id"] != "4U_4R"], seasons=SEASONS)


def test_the_digest_follows_what_is_stored(world):
    patches = tables.read_table(world / "patches.parquet", "patches")
    digest = dataset_digest(patches)
    assert dataset_digest(patches.sample(frac=1, random_state=1)) == digest
    other = patches.copy()
    other.loc[5, "checksum"] = "changed"
    assert dataset_digest(other) != digest


def test_both_readers_give_the_stored_pixels(world):
    direct, plain = (open_arrays(world / "patches.zarr", direct=d) for d in (True, False))
    cube = store.open_store(world / "patches.zarr")
    assert all(isinstance(array, ShardedPatchArray) for array in direct.values())
    for name in ("dn10", "dn20", "dn60"):
        stored = cube[name].values
        assert direct[name].bands == plain[name].bands == tuple(cube[f"band{name[2:]}"].values)
        some = np.arange(len(direct[name].bands))[::-1][:2]
        for location, season in ((0, 0), (4, 3), (5, 1), (11, 2), (2, 3)):
            for array in (direct[name], plain[name]):
                out = np.full((2, *stored.shape[-2:]), 7, np.uint16)
                array.read_into(location, season, some, out)
                np.testing.assert_array_equal(out, stored[location, season][some])
            np.testing.assert_array_equal(direct[name].read(location, season), stored[location, season])
            np.testing.assert_array_equal(plain[name].read(location, season), stored[location, season])


def test_images_equal_the_10_m_view_of_the_store(world):
    reader = PatchReader(world / "patches.zarr", BANDS, n_threads=3)
    locations, seasons = np.array([3, 7, 11]), np.array([[0, 2], [1, 1], [3, 0]])
    dn, shift60 = reader.read(locations, seasons)
    batch = _batch(dn, shift60, seasons)
    images = to_images(batch, reader.plan)
    assert images.shape == (3, 2, len(BANDS), 32, 32)
    cube = store.open_store(world / "patches.zarr")
    reflecting = [band for band in BANDS if band != "NDVI"]
    for i, location in enumerate(locations):
        for k, season in enumerate(seasons[i]):
            patch = cube.isel(location=[location], season=[season])
            expected = store.cube10(patch, reflecting).values[0, 0]
            found = images[i, k, [BANDS.index(band) for band in reflecting]].numpy() * 255
            np.testing.assert_allclose(found, expected, rtol=1e-5, atol=0.01)  # DN, float32
            ndvi = store.ndvi10(patch).values[0, 0]
            found = images[i, k, 1].numpy() * 255
            # the published NDVI is cut to whole numbers; rounding may fall on either side of one
            np.testing.assert_allclose(found, np.floor(np.clip(ndvi, 0, None) * 10_000), atol=1.01)


def _batch(dn, shift60, seasons):
    from pretrain.data import Batch

    n = len(seasons)
    return Batch(dn, shift60, torch.from_numpy(seasons), torch.zeros(seasons.shape), torch.zeros(n, 2), ())


def test_ndvi_of_water_and_of_no_data_is_zero():
    red = torch.tensor([[1000, 0, 500, 0]], dtype=torch.uint16)
    near_infrared = torch.tensor([[200, 400, 1500, 0]], dtype=torch.uint16)
    dn = torch.stack([red, near_infrared]).view(1, 1, 2, 1, 4)
    plan = BandPlan(("NDVI",), {"dn10": ("B04", "B08")}, {"dn10": np.arange(2)})
    images = to_images(_batch({"dn10": dn}, None, np.zeros((1, 1), int)), plan)
    assert images.flatten().tolist() == pytest.approx([0, 0, 5000 / 255, 0])


def test_batches_are_the_drawn_samples_whatever_the_number_of_ranks(world, chosen):
    reader = PatchReader(world / "patches.zarr", ("B02", "B05"))
    common = {"seed": 3, "epoch": 1, "n_seasons": 3, "batch_size": 8}
    whole = reader.read_batch(chosen, 1, rank=0, n_ranks=1, **common)
    parts = [reader.read_batch(chosen, 1, rank=rank, n_ranks=2, **common) for rank in range(2)]
    for name in ("dn10", "dn20"):
        assert torch.equal(torch.cat([part.dn[name] for part in parts]), whole.dn[name])
    assert sum((part.location_id for part in parts), ()) == whole.location_id
    assert whole.slots.tolist() == list(range(8, 16))
    assert torch.isfinite(whole.day_of_year).all()
    row = chosen.location_id.tolist().index(whole.location_id[2])
    stored = store.open_store(world / "patches.zarr")["dn20"].values
    season = whole.season[2, 1]
    np.testing.assert_array_equal(whole.dn["dn20"][2, 1, 0].numpy(), stored[chosen.location[row], season, 0])
    expected = chosen.day_of_year[row, season]
    assert whole.day_of_year[2, 1] == expected


def test_bands_that_are_not_there_are_named(world):
    arrays = open_arrays(world / "patches.zarr")
    with pytest.raises(ValueError, match=r"bands \['B10', 'B99'\] are not in the store .*'B8A'"):
        plan_bands(("B02", "B10", "B99"), arrays, store=world)
    with pytest.raises(ValueError, match=r"\('B01', 'B09'\) are all of 60 m"):
        plan_bands(("B01", "B09"), arrays, store=world)
    with pytest.raises(ValueError, match="each named once"):
        plan_bands(("B02", "B02"), arrays, store=world)


def test_damaged_and_missing_shards_are_named(world, tmp_path):
    copy = tmp_path / "patches.zarr"
    shutil.copytree(world / "patches.zarr", copy)
    file = copy / "dn10" / "c.1.0.0.0.0"
    content = file.read_bytes()
    reader = PatchReader(copy, ("B02",))
    for damaged, reason in (
        (content[:-2] + b"xx", "checksum of the shard's index"),
        (content[:10], "the file has 10 bytes"),
        (b"\0" * 2000 + content[2000:], ""),
    ):
        file.write_bytes(damaged)
        reader = PatchReader(copy, ("B02",))
        with pytest.raises(ValueError, match=rf"dn10/c.1.0.0.0.0 cannot be read at location 5.*{reason}"):
            reader.read(np.array([5]), np.array([[0]]))
    file.unlink()
    with pytest.raises(FileNotFoundError, match=r"dn10/c.1.0.0.0.0 is missing"):
        reader.read(np.array([6]), np.array([[0]]))
    with pytest.raises(FileNotFoundError, match="is not a Zarr v3 store"):
        PatchReader(tmp_path / "nowhere", ("B02",))


def test_unreadable_samples_are_skipped_only_if_asked(world, chosen, tmp_path, caplog):
    copy = tmp_path / "patches.zarr"
    shutil.copytree(world / "patches.zarr", copy)
    (copy / "dn10" / "c.1.0.0.0.0").write_bytes(b"damaged")
    reader = PatchReader(copy, ("B02",), n_threads=2)
    share = {"seed": 1, "epoch": 0, "n_seasons": 2, "batch_size": 8, "rank": 0, "n_ranks": 1}
    with pytest.raises(ValueError, match=r"c.1.0.0.0.0 cannot be read at location"):
        reader.read_batch(chosen, 0, **share)
    whole = PatchReader(world / "patches.zarr", ("B02",)).read_batch(chosen, 0, **share)
    batch = reader.read_batch(chosen, 0, skip_unreadable=True, **share)
    bad = {f"{i}U_{i}R" for i in range(5, 10)}
    assert set(whole.location_id) & bad
    for i, (before, after) in enumerate(zip(whole.location_id, batch.location_id, strict=True)):
        assert after not in bad
        if before in bad:
            assert f"location {before!r} is skipped: shard object {copy}" in caplog.text
        else:
            assert before == after
            assert torch.equal(whole.dn["dn10"][i], batch.dn["dn10"][i])
    again = reader.read_batch(chosen, 0, skip_unreadable=True, **share)
    assert again.location_id == batch.location_id
    for file in (copy / "dn10").glob("c.*"):
        file.unlink()
    with pytest.raises(FileNotFoundError, match="is missing"):
        PatchReader(copy, ("B02",)).read_batch(chosen, 0, skip_unreadable=True, **share)


def test_locations_can_be_left_out_and_shares_of_draws_are_told(world, chosen):
    patches = tables.read_table(world / "patches.parquet", "patches")
    weights = tables.read_table(world / "weights.parquet", "weights")
    fewer = select_samples(patches, weights, seasons=SEASONS, left_out={"0U_0R", "5U_5R"})
    assert fewer.location.tolist() == [1, 3, 4, *range(6, 12)]
    weights["is_mountain"] = weights["location_id"].isin(["4U_4R", "3U_3R", "2U_2R"])
    shares = shares_of_draws(chosen, weights, ["is_mountain", "is_non_vegetated"])
    # 11 locations are drawn from, 4 of them with weight 1/4, the others with 1
    assert shares["is_mountain"] == {"locations": round(2 / 11, 4), "draws": round(1.25 / 8, 4)}
    assert shares["is_non_vegetated"] == {"locations": 0, "draws": 0}


def test_prefetch_keeps_order_and_passes_errors_on():
    def read(step):
        if step == 7:
            raise ValueError("step seven")
        return step

    assert list(prefetch(read, range(5))) == [0, 1, 2, 3, 4]
    with pytest.raises(ValueError, match="step seven"):
        list(prefetch(read, range(5, 9)))


def test_patch_dataset_works_with_an_ordinary_loader(world, chosen):
    dataset = PatchDataset(world / "patches.zarr", chosen, ("B08", "B04", "NDVI"))
    assert len(dataset) == 42
    item = dataset[4]  # the second location with patches: its first season
    assert (item["location_id"], item["season"]) == ("1U_1R", "spring")
    assert item["bands"] == ("B08", "B04", "NDVI")
    assert item["wavelength_nm"][:2].tolist() == [bands.WAVELENGTH_NM["B08"], bands.WAVELENGTH_NM["B04"]]
    stored = store.open_store(world / "patches.zarr")["dn10"].values[1, 0]
    np.testing.assert_allclose(item["image"][0].numpy(), stored[3], rtol=1e-6)
    assert item["mask"].all()
    loaded = next(iter(torch.utils.data.DataLoader(dataset, batch_size=4)))
    assert loaded["image"].shape == (4, 3, 32, 32)


@pytest.fixture(scope="module")
def bucket(world):
    with serve_bucket(world) as (address, client):
        yield f"{address}/patches.zarr", client


def test_a_store_in_a_bucket_gives_the_same_batches(world, chosen, bucket):
    address, _ = bucket
    local, remote = PatchReader(world / "patches.zarr", BANDS), PatchReader(address, BANDS, n_threads=4)
    draw = {"seed": 1, "epoch": 0, "n_seasons": 3, "batch_size": 8, "rank": 0, "n_ranks": 1}
    expected, found = (reader.read_batch(chosen, 0, **draw) for reader in (local, remote))
    assert {name: tensor.dtype for name, tensor in found.dn.items()} == dict.fromkeys(
        ("dn10", "dn20", "dn60"), torch.uint16
    )
    assert all(torch.equal(found.dn[name], expected.dn[name]) for name in expected.dn)
    assert torch.equal(found.shift60, expected.shift60)
    assert store.layout(address) == store.layout(world / "patches.zarr")
    plain = open_arrays(address, direct=False)["dn20"]
    assert np.array_equal(plain.read(3, 1), local.arrays["dn20"].read(3, 1))
    dataset = PatchDataset(address, chosen, ("B08", "B01"))
    again = pickle.loads(pickle.dumps(dataset))  # as a loader sends it to a worker
    nearby = PatchDataset(world / "patches.zarr", chosen, ("B08", "B01"))
    assert torch.equal(again[7]["image"], nearby[7]["image"])


def test_damaged_and_missing_objects_of_a_bucket_are_named(chosen, bucket):
    address, client = bucket
    place = {"Bucket": "made-bucket", "Key": "data/patches.zarr/dn10/c.1.0.0.0.0"}
    content = client.get_object(**place)["Body"].read()
    try:
        for damaged, reason in (
            (content[:-2] + b"xx", "checksum of the shard's index"),
            (content[:10], "the file has 10 bytes"),
        ):
            client.put_object(**place, Body=damaged)
            with pytest.raises(
                ValueError, match=rf"{address}/dn10/c.1.0.* at location 5, season 0 .*{reason}"
            ):
                PatchReader(address, ("B02",)).read(np.array([5]), np.array([[0]]))
        client.delete_object(**place)
        with pytest.raises(FileNotFoundError, match=rf"{address}/dn10/c.1.0.0.0.0 is missing"):
            PatchReader(address, ("B02",)).read(np.array([5]), np.array([[0]]))
    finally:
        client.put_object(**place, Body=content)
    with pytest.raises(FileNotFoundError, match="s3://made-bucket/nothing is not a Zarr v3 store"):
        PatchReader("s3://made-bucket/nothing", ("B02",))
    with pytest.raises(OSError, match=r"^ftp://host/store cannot be read: .*recogni"):
        PatchReader("ftp://host/store", ("B02",))


def test_a_store_behind_a_web_server_gives_the_same_pixels(world):
    with DemoServer(world, catalogs=()) as server:
        reader = PatchReader(server.files_url + "patches.zarr", ("B02", "B05"))
        expected, _ = PatchReader(world / "patches.zarr", ("B02", "B05")).read(np.array([3]), np.array([[1]]))
        found, _ = reader.read(np.array([3]), np.array([[1]]))
        assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize("wanted", [("B02", "NDVI"), ("B01", "B05")])
def test_a_cache_holds_what_a_run_reads_and_no_more(chosen, bucket, tmp_path, wanted, caplog):
    address, _ = bucket
    locations = np.array([0, 3, 11])  # shards 0 and 2 of three
    names = objects_to_copy(address, wanted, locations)
    with ThreadPoolExecutor(2) as pool:  # as two processes of a machine
        for other in [pool.submit(fill_cache, address, tmp_path, names, share=(i, 2)) for i in range(2)]:
            other.result()
    files = {os.fspath(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert files == set(names)
    arrays = {"dn10"} if "B02" in wanted else {"dn20", "dn60", *ORIGINS}
    objects = {name for name in files if name.split("/")[-1].startswith("c.") and "band" not in name}
    assert {name.split("/")[0] for name in objects} == arrays
    assert {name.split("/")[1].split(".")[1] for name in objects} == {"0", "2"}
    expected, found = (
        PatchReader(place, wanted).read(locations, np.zeros((3, 1), int)) for place in (address, tmp_path)
    )
    assert all(torch.equal(found[0][name], expected[0][name]) for name in expected[0])
    caplog.set_level(logging.INFO)
    damaged = tmp_path / sorted(objects)[0]
    damaged.unlink()
    fill_cache(address, tmp_path, names)
    assert damaged.exists() and f"copying 1 of {len(names)} objects" in caplog.text
    damaged.unlink()
    with pytest.raises(RuntimeError, match="started this run is gone"):
        fill_cache(
            address,
            tmp_path,
            names,
            share=(names.index(sorted(objects)[0]) + 1, len(names)),
            is_alive=lambda: False,
        )


def test_side_tables_are_joined_by_location(world, tmp_path):
    patches = tables.read_table(world / "patches.parquet", "patches")
    weights = tables.read_table(world / "weights.parquet", "weights")
    table = pd.DataFrame({"location_id": ["5U_5R", "0U_0R", "9U_9R"], "rain": [5.0, 0.5, 9], "name": "x"})
    table.to_csv(tmp_path / "side.csv", index=False)
    joined = select_samples(patches, weights, seasons=SEASONS, side=read_side_table(tmp_path / "side.csv"))
    rain = dict(zip(joined.location_id.tolist(), joined.side_values(["rain"])[:, 0].tolist(), strict=True))
    assert (rain["0U_0R"], rain["5U_5R"], rain["9U_9R"]) == (0.5, 5, 9)
    assert np.isnan(rain["3U_3R"])
    with pytest.raises(
        ValueError, match=r"needs the columns \['name', 'snow'\] of a side table, which has \['rain'\]"
    ):
        joined.side_values(["snow", "name"])
    pd.concat([table, table.iloc[:1]]).to_parquet(tmp_path / "side.parquet")
    with pytest.raises(ValueError, match="names location '5U_5R' more than once"):
        read_side_table(tmp_path / "side.parquet")
    table.drop(columns="location_id").to_parquet(tmp_path / "side.parquet")
    with pytest.raises(ValueError, match="has no column location_id"):
        read_side_table(tmp_path / "side.parquet")


def test_views_of_one_season_if_asked(world, chosen):
    reader = PatchReader(world / "patches.zarr", ("B02",))
    draw = {"seed": 3, "epoch": 0, "n_seasons": 3, "batch_size": 8, "rank": 0, "n_ranks": 1}
    three, one = (reader.read_batch(chosen, 0, max_seasons=n, **draw).season for n in (None, 1))
    assert torch.equal(one, three[:, :1].expand(-1, 3))
    assert {len(set(row)) for row in three.tolist()} >= {3}


def test_valid_pixels_are_those_that_no_hole_has_touched():
    dn = {"dn10": torch.full((1, 1, 2, 8, 8), 1000), "dn20": torch.full((1, 1, 1, 4, 4), 1000)}
    dn["dn10"][0, 0, 1, 0, 7], dn["dn20"][0, 0, 0, 2, 1] = 0, 0
    dn = {name: values.to(torch.uint16) for name, values in dn.items()}
    batch = _batch(dn, None, np.zeros((1, 1), int))
    plan = BandPlan(("B02", "B03", "B05"), {"dn10": ("B02", "B03"), "dn20": ("B05",)}, {})
    images = to_images(batch, plan)
    untouched = torch.isclose(images, torch.tensor(1000 / 255)).all(dim=2)
    assert (~untouched).sum() == 1 + 16  # four pixels a side: the hole's two and one on either side
    assert torch.equal(to_valid(batch), untouched)
    batch.dn["dn60"] = torch.zeros((1, 1, 1, 2, 2), dtype=torch.uint16)  # may reach beyond the file
    assert torch.equal(to_valid(batch), untouched)


def test_a_dataset_is_opened_by_its_folder(world):
    everything = read_dataset(world)
    assert everything.location.tolist() == list(range(12))
    assert everything.available.sum() == 10 * 4 + 2 + 1
