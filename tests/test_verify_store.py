"""Index, verification, repair and the story of a location, on a small retrieved world."""

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from made_scenes import CENTER, SIZE_M, World, make_item, write_files

from workflow_scripts import explain, index_patches, repair, verify_store
from workflow_scripts.core import grid, store, tables

POINTS = (CENTER, (CENTER[0] - 700, CENTER[1] + 300), (CENTER[0] + 333, CENTER[1] - 777))


def cloudy_corner(scl):
    return np.where(np.add.outer(np.arange(len(scl)), np.arange(len(scl))) > 185, 9, 5).astype(np.uint8)


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """A world that was retrieved: three locations in two shards; one winter is missing."""
    folder = tmp_path_factory.mktemp("world")
    items = []
    for item_id, day, offset in (("A", "2021-07-01", "02.14"), ("C", "2021-12-20", "04.00")):
        write_files(folder / "scenes", item_id, scl=5 if item_id == "A" else cloudy_corner)
        items.append(make_item(item_id, day, **{"s2:processing_baseline": offset}))
    made = World(folder, items, points=POINTS)
    made.run()
    return made


@pytest.fixture
def world(template, tmp_path):
    """A copy to break."""
    folder = tmp_path / "world"
    shutil.copytree(template.folder, folder)
    copy = World.__new__(World)
    copy.__dict__.update(template.__dict__, folder=folder, store=folder / "patches.zarr")
    make_index(copy)
    return copy


def make_index(world):
    index_patches.main(
        SimpleNamespace(
            input=SimpleNamespace(
                locations=world.folder / "locations.parquet",
                retrieved=[world.folder / f"retrieved/{s}.parquet" for s in range(world.n_shards)],
            ),
            output=SimpleNamespace(patches=world.folder / "patches.parquet"),
            params=SimpleNamespace(size_m=SIZE_M, scenes={"catalog": "made", "years": [2020, 2022]}),
            wildcards=SimpleNamespace(dataset="made"),
        )
    )
    return tables.read_table(world.folder / "patches.parquet", "patches")


def verification(world):
    index = tables.read_table(world.folder / "patches.parquet", "patches")
    locations = tables.read_table(
        world.folder / "locations.parquet", "locations", ["location_id", "lon", "lat"]
    )
    return verify_store.verify(world.store, index, locations, threads=2)


def test_index_has_a_row_for_every_location_and_season(world):
    index = tables.read_table(world.folder / "patches.parquet", "patches")
    assert list(index["location"]) == [0, 0, 1, 1, 2, 2]
    assert list(index["season"]) == ["summer", "winter"] * 3
    missing = index[index["status"] != "ok"]
    assert list(missing["reason"]) == ["cloudy"] and missing.geometry.isna().all()
    assert list(index["is_complete"]) == [True, True, True, True, False, False]
    there = index[index["status"] == "ok"].to_crs(32632)
    for row in there.itertuples():
        expected = (row.origin_x, row.origin_y - SIZE_M, row.origin_x + SIZE_M, row.origin_y)
        np.testing.assert_allclose(row.geometry.bounds, expected, atol=0.01)


def test_footprint_at_the_antimeridian():
    x, y = grid.project(180.0, 65.0, 32601)
    patch = pd.DataFrame({"epsg": [32601, 0], "origin_x": [x - 320, np.nan], "origin_y": [y + 320, np.nan]})
    shape, none = index_patches.footprints(patch, SIZE_M)
    assert none is None and shape.geom_type == "MultiPolygon" and shape.is_valid
    assert shape.bounds[0] == -180 and shape.bounds[2] == 180 and shape.area < 0.001


def test_index_refuses_doubled_and_unknown_rows(world):
    locations = tables.read_table(
        world.folder / "locations.parquet", "locations", ["location_id", "lon", "lat"]
    )
    retrieved = world.retrieved()
    with pytest.raises(ValueError, match="'P0', summer was retrieved by two shards"):
        index_patches.index(pd.concat([retrieved, retrieved[:1]]), locations, size_m=SIZE_M)
    with pytest.raises(ValueError, match="1 locations stand in only one"):
        index_patches.index(retrieved, locations[:2], size_m=SIZE_M)


def test_index_without_any_patch_is_one_clear_message(world):
    empty = tables.read_table(world.folder / "patches.parquet", "patches").assign(
        status="missing", reason="no_candidate"
    )
    with pytest.raises(
        RuntimeError, match=r"none of 6 location-seasons has a patch \(no_candidate 6\).*2020 to 2022"
    ):
        index_patches.check_not_empty(empty, "made", {"catalog": "made", "years": [2020, 2022]})


def test_good_store_is_good(world):
    job = SimpleNamespace(
        input=SimpleNamespace(
            store=world.store / "zarr.json",
            patches=world.folder / "patches.parquet",
            locations=world.folder / "locations.parquet",
        ),
        output=SimpleNamespace(verification=world.folder / "verification.json"),
        threads=1,
    )
    verify_store.main(job)
    result = json.loads((world.folder / "verification.json").read_text())
    assert result["is_good"] and result["n_patches"] == 5 and result["findings"] == {}
    assert result["n_missing_by_reason"] == {"cloudy": 1}
    assert result["n_patches_by_offset"] == {"0": 3, "1000": 2} and result["n_locations_complete"] == 2
    arrays, _ = store.read_shard(world.store, 1)
    arrays["dn20"][0, 0, 0, 0, 0] += 1
    store.write_shard(world.store, 1, arrays)
    with pytest.raises(RuntimeError, match=r"problems: \{'checksum': 1\}; the first: P2, summer.*repair"):
        verify_store.main(job)


def spoil(world, shard, name, where, value):
    arrays, _ = store.read_shard(world.store, shard)
    arrays[name][where] = value
    store.write_shard(world.store, shard, arrays)


@pytest.mark.parametrize(
    ("name", "where", "value", "kinds"),
    [
        ("dn10", (0, 0, 0, 0, 0), 7, {"checksum"}),
        ("scl", (0, 0, 0, 0), 9, {"checksum", "cloud"}),
        ("dn60", (0, 0, 0, 3, 3), 0, {"checksum", "no_data"}),
        ("epsg", (0, 0), 32633, {"facts"}),
        ("datetime", (0, 0), 5, {"facts"}),
        ("origin60_x", (0, 0), 0.0, {"place"}),
        ("scl_fraction", (0, 0, 4), 0.5, {"cloud"}),
    ],
)
def test_spoiled_values_are_found(world, name, where, value, kinds):
    spoil(world, 0, name, where, value)
    result = verification(world)
    assert not result["is_good"] and set(result["findings"]) <= kinds and set(result["findings"]) & kinds
    assert all("P0" in what for whats in result["findings"].values() for what in whats)


def test_spoiled_facts_of_locations_are_found(world):
    for name, value in (("aligned", False), ("span_days", 3.0)):
        spoil(world, 0, name, 0, value)
    facts = verification(world)["findings"]["facts"]
    assert [what.split(" is ")[0] for what in facts] == ["P0: aligned", "P0: span_days"]


def test_pixels_where_there_is_no_patch_are_found(world):
    spoil(world, 1, "dn10", (0, 1, 0, 0, 0), 7)
    assert set(verification(world)["findings"]) == {"missing"}


def test_lost_and_damaged_objects_are_found_repaired_and_fetched(world, capsys):
    before = store.open_store(world.store).load()
    (world.store / "dn60/c.0.0.0.0.0").unlink()
    path = world.store / "dn10/c.1.0.0.0.0"
    size = path.stat().st_size
    with open(path, "r+b") as file:
        file.seek(size // 3)
        file.write(bytes(size // 3))
        file.truncate(size - 10)
    result = verification(world)
    assert {"object", "checksum"} <= set(result["findings"])
    assert sorted(what.split(" is ")[1] for what in result["findings"]["object"]) == ["absent", "damaged"]
    assert repair.command([str(world.store), "--dry-run"]) == 0 and path.exists()
    assert repair.command([str(world.store)]) == 0 and not path.exists()
    assert "dn10/c.1.0.0.0.0: cannot be read" in capsys.readouterr().out
    world.retrieve()
    assert verification(world)["is_good"] and before.equals(store.open_store(world.store).load())


def test_repair_has_a_shard_with_wrong_pixels_looked_at_again(world, capsys):
    spoil(world, 0, "dn10", (1, 1, 2, 5, 5), 7)
    assert repair.command([str(world.store)]) == 0
    assert "aligned/c.0: 1 patches of the shard differ" in capsys.readouterr().out
    assert not (world.store / "aligned/c.0").exists() and (world.store / "dn10/c.0.0.0.0.0").exists()
    world.retrieve()
    assert verification(world)["is_good"]
    assert repair.command([str(world.folder)]) == 1


def test_swapped_shards_are_noticed_by_ids_and_checksums(world):
    index = tables.read_table(world.folder / "patches.parquet", "patches")
    locations = tables.read_table(
        world.folder / "locations.parquet", "locations", ["location_id", "lon", "lat"]
    )
    result = verify_store.verify(world.store, index, locations.iloc[::-1].reset_index(drop=True))
    assert "ids" in result["findings"] and not result["is_good"]
    copied = index.copy()
    copied.loc[2, "checksum"] = copied.loc[0, "checksum"]
    assert "duplicates" in verify_store.verify(world.store, copied, locations)["findings"]


def test_only_reading_again_notices_a_valid_block_from_a_wrong_place(world, capsys):
    """Pixels of another place, with checksum and index that agree with them."""
    arrays, _ = store.read_shard(world.store, 0)
    arrays["dn10"][0, 0] = arrays["dn10"][0, 0][:, ::-1]
    store.write_shard(world.store, 0, arrays)
    checksum = store.patch_checksum(*(arrays[part][0, 0] for part in store.PIXELS))
    index = tables.read_table(world.folder / "patches.parquet", "patches")
    index.loc[0, "checksum"] = checksum
    tables.write_table(index, world.folder / "patches.parquet", "patches")
    assert verification(world)["is_good"]
    assert verify_store.command([str(world.store)]) == 0
    capsys.readouterr()
    assert verify_store.command([str(world.store), "--reread", "1"]) == 1
    result = json.loads(capsys.readouterr().out)
    assert len(result["reread"]) == 1 and "P0, summer, item A" in result["reread"][0]


def test_reading_a_good_store_again_finds_nothing(world, capsys):
    assert verify_store.command([str(world.store), "--reread", "0.5"]) == 0
    assert json.loads(capsys.readouterr().out)["reread"] == []


def test_a_copy_in_a_second_catalog_is_not_read_for_the_first(world):
    """Mirrors name an item alike."""
    index = tables.read_table(world.folder / "patches.parquet", "patches")
    scenes = world.scenes()
    copies = scenes[scenes["rank"] >= 0].assign(catalog="mirror", hrefs="{}", reason="failover")
    both = pd.concat([scenes, copies], ignore_index=True)
    assert list(verify_store.reread(world.store, index, both, share=1, seed=0)) == []


def test_explain_tells_the_story(world, capsys):
    results = world.folder / "results"
    shutil.copytree(world.folder, results / "datasets" / "made", ignore=shutil.ignore_patterns("results"))
    assert explain.command(["P2", "--results", str(results)]) == 0
    text = capsys.readouterr().out
    assert "P2 in dataset made: lon 12.1" in text and "summer: days 152 to 244 of the year" in text
    assert "1. A 2021-07-01 (-16 days, cloud 5.0 %, EPSG:32632, offset 0): taken, patch 0 % cloud" in text
    assert "1. C 2021-12-20" in text and "too cloudy" in text and "nothing stored: cloudy" in text
    assert text.rstrip().endswith("1 of 2 seasons have a patch; one grid, 0 days from first to last scene")
    assert explain.command(["P9", "--results", str(results)]) == 1
    assert "'P9' is in none of the datasets made" in capsys.readouterr().err
    assert explain.command(["P2", "--results", str(results), "--dataset", "other"]) == 1
    assert "no locations.parquet" in capsys.readouterr().err


def test_explain_before_the_stages_ran(world, capsys):
    results = world.folder / "results"
    shutil.copytree(world.folder, results / "datasets" / "made", ignore=shutil.ignore_patterns("results"))
    shutil.rmtree(results / "datasets/made/retrieved")
    shutil.rmtree(results / "datasets/made/scenes")
    assert explain.command(["P2", "--results", str(results)]) == 0
    assert "scenes are not selected yet" in capsys.readouterr().out
