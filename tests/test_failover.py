"""The same product from a second catalog, where the first cannot be read."""

import json
import shutil

import numpy as np
import pytest
from made_scenes import CENTER, World, make_item, read_by_hand, write_collection, write_files

from workflow_scripts import explain, search_tile
from workflow_scripts.core import store

SCENES = (("A", "2021-07-01", 1.0), ("B", "2021-08-01", 3.0), ("C", "2021-12-20", 2.0))


def take(item_id, baseline):
    """Data take of a scene: the same in both catalogs, whatever the processing."""
    return {
        "s2:datatake_id": f"GS2A_20210701T101031_0000{ord(item_id)}_N{baseline}",
        "s2:processing_baseline": baseline,
    }


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """Two copies of three scenes: the second has other pixels, as another processing would."""
    folder = tmp_path_factory.mktemp("failover")
    for item_id, _, _ in SCENES:
        write_files(folder / "first", item_id)
        write_files(folder / "second", f"{item_id}-again")
    return folder


@pytest.fixture
def world(scenes, tmp_path, monkeypatch):
    """A world that searches both catalogs; files of the first may be taken away."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(scenes, tmp_path, dirs_exist_ok=True)
    first = [
        make_item(i, day, base="first", **{"eo:cloud_cover": c}, **take(i, "02.14")) for i, day, c in SCENES
    ]
    second = [
        make_item(f"{i}-again", day, base="second", **{"eo:cloud_cover": c}, **take(i, "02.08"))
        for i, day, c in SCENES
    ]
    write_collection("second.json", second)
    world = World(tmp_path, first, points=(CENTER,))
    catalogs = {
        name: {"type": "static", "path": path, "conventions": "earth-search"}
        for name, path in (("made", "items.json"), ("other", "second.json"))
    }
    world.settings["failover"] = "other"
    world.catalogs = {name: {"conventions": "earth-search"} for name in catalogs}
    search_tile.main(
        world.job(
            inputs={},
            outputs={"found": tmp_path / "items/32TQT.parquet"},
            params={"catalogs": catalogs, "years": [2020, 2022]},
            tile="32TQT",
        )
    )
    world.select()
    world.create()
    return world


def test_the_second_catalog_offers_the_same_products_and_nothing_else(world):
    offered = world.scenes().query("rank >= 0 and season == 'summer'")
    assert list(zip(offered["item_id"], offered["rank"], offered["reason"], strict=True)) == [
        ("A", 0, "candidate"),
        ("A-again", 0, "failover"),
        ("B", 1, "candidate"),
        ("B-again", 1, "failover"),
    ]


def test_a_scene_that_can_be_read_is_not_asked_for_elsewhere(world):
    table = world.retrieve()
    assert list(table["item_id"]) == ["A", "C"] and set(table["failover_from"]) == {""}
    assert all(len(json.loads(text)) == 1 for text in table["screened"])


def test_an_unreadable_scene_comes_from_the_second_catalog_and_says_so(world, capsys):
    (world.folder / "first/A/B05.tif").unlink()
    row = world.retrieve().iloc[0]
    assert (row["item_id"], row["catalog"], row["failover_from"]) == ("A-again", "other", "made")
    assert row["baseline"] == "02.08" and row["rank"] == 0 and row["reason"] == "candidate"
    entries = json.loads(row["screened"])
    assert [(e["catalog"], e["outcome"]) for e in entries] == [("made", "read_error"), ("other", "ok")]
    stored = store.open_store(world.store)["dn20"].isel(location=0, season=0).values
    expected = read_by_hand(world.folder / "second", "A-again", "dn20", row["origin_x"], row["origin_y"])
    np.testing.assert_array_equal(stored, expected)
    told = "\n".join(explain.story(world.folder, "P0"))
    assert "the same from other" in told and "since made could not be read" in told
    # the file is back: what is stored stays as long as it is offered
    write_files(world.folder / "first", "A")
    assert world.retrieve().iloc[0]["item_id"] == "A-again"


def test_clouds_are_no_reason_to_ask_elsewhere(world):
    write_files(world.folder / "first", "A", scl=9)
    assert world.retrieve().iloc[0]["item_id"] == "B"


def test_a_product_that_fails_everywhere_gives_way_to_the_next(world):
    for name in ("first/A/B05.tif", "second/A-again/SCL.tif", "first/B/B02.tif"):
        (world.folder / name).unlink()
    row = world.retrieve().iloc[0]
    assert (row["item_id"], row["rank"]) == ("B-again", 1)


def test_scenes_of_a_catalog_that_is_no_longer_configured_are_refused(world):
    del world.catalogs["other"]
    with pytest.raises(ValueError, match=r"scenes are of catalogs \['other'\]"):
        world.retrieve()
