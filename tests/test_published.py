"""A published choice of scenes, taken over by Earth Engine ids."""

import json

import numpy as np
import pandas as pd
import pytest
from made_scenes import CENTER, World, make_item, write_files

from workflow_scripts import index_patches
from workflow_scripts.core.items import sentinel2_frame, sentinel2_row
from workflow_scripts.selection import published

DAY = pd.Timestamp("2023-08-11")


def row(item_id, *, tile="30TYN", moment="2023-08-11T10:59:39Z", convention="earth-search", **properties):
    """Row of table `items` of a bare item."""
    item = {
        "id": item_id,
        "base": "x",
        "assets": {},
        "geometry": {"type": "Point", "coordinates": [0.0, 42.0]},
        "properties": {"grid:code": f"MGRS-{tile}", **properties},
    }
    return sentinel2_row(item, {"conventions": convention}, pd.Timestamp(moment).tz_localize(None))


def resolved(image_id, rows):
    """Ids of the items an image id is resolved to, the best first."""
    items = sentinel2_frame(rows)
    found = published.resolve(pd.DataFrame({"location_id": ["P0"], "image_id": [image_id]}), items)
    return list(items["item_id"].to_numpy()[found.sort_values("order")["item"]])


def test_ids_are_taken_apart_with_and_without_collection():
    ids = pd.Series(
        [
            "20230811T105629_20230811T105939_T30TYN",
            "COPERNICUS/S2_SR_HARMONIZED/20170714T112111_20170714T112114_T29SMC",
            "20230811_T30TYN",
            "20231311T105629_20230811T105939_T30TYN",
        ]
    )
    parsed = published.parse_image_ids(ids)
    assert list(parsed["mgrs_tile"]) == ["30TYN", "29SMC", "", "30TYN"]
    assert parsed["start"][0] == pd.Timestamp("2023-08-11 10:56:29") and parsed["start"].isna()[[2, 3]].all()
    assert parsed["second"][1] == pd.Timestamp("2017-07-14 11:21:14")


def test_the_data_take_and_the_tile_decide_whatever_the_catalog_calls_the_item():
    image = "20230811T105629_20230811T105939_T30TYN"
    earth_search = row(
        "S2A_30TYN_20230811_0_L2A",
        **{
            "s2:datatake_id": "GS2A_20230811T105629_042491_N05.09",
            "s2:datastrip_id": "S2A_OPER_MSI_L2A_DS_2APS_20230811T163859_S20230811T105939_N05.09",
        },
    )
    computer = row(
        "S2A_MSIL2A_20230811T105629_R094_T30TYN_20230811T181157",
        moment="2023-08-11T10:56:29.024Z",
        convention="planetary-computer",
    )
    bare = row("something", moment="2023-08-11T10:59:39Z")
    for some in (earth_search, computer, bare):
        assert resolved(image, [some]) == [some["item_id"]]
    others = [
        row("next tile", tile="30TXN", **{"s2:datatake_id": "GS2A_20230811T105629_042491_N05.09"}),
        row("next take", **{"s2:datatake_id": "GS2B_20230811T114559_033582_N05.09"}),
        row("orbit before", moment="2023-08-11T09:16:00Z"),
        row("fifty minutes later", moment="2023-08-11T11:46:00Z"),
        row("day after", moment="2023-08-12T10:59:39Z"),
    ]
    assert resolved(image, others) == []
    assert resolved(image, [*others, earth_search]) == [earth_search["item_id"]]


def test_strips_and_processings_of_one_take_come_in_order():
    take = {"s2:datatake_id": "GS2A_20230811T105629_042491_N05.09"}

    def strip(second, number):
        return {
            **take,
            "s2:datastrip_id": f"S2A_OPER_MSI_L2A_DS_2APS_20230811T163859_S20230811T{second}_N{number}",
            "s2:processing_baseline": number,
        }

    rows = [
        row("other strip", **strip("105629", "05.10")),
        row("same strip, old", **strip("105939", "05.09")),
        row("same strip, new", **strip("105939", "05.10")),
    ]
    image = "20230811T105629_20230811T105939_T30TYN"
    assert resolved(image, rows) == ["same strip, new", "same strip, old", "other strip"]


def test_tables_of_both_published_forms(tmp_path):
    """The index of the dataset (index, image_id_1 to 4) and those of the tasks (ind, image_id_1)."""
    (tmp_path / "index.csv").write_text(
        "index,lon,lat,image_id_1,image_id_2\n7,1.5,2.5,20230811T105629_20230811T105939_T30TYN,\n"
    )
    table = published.read_index(tmp_path / "index.csv", ["spring", "summer", "autumn"])
    assert table.to_dict("records") == [
        {"location_id": "000007", "season": "spring", "image_id": "20230811T105629_20230811T105939_T30TYN"}
    ]
    (tmp_path / "task.csv").write_text("ind,lon,lat,type,image_id_1\n0012,1,2,x,A\n")
    assert published.read_index(tmp_path / "task.csv", ["summer"])["location_id"].tolist() == ["000012"]
    for content in (
        "lon,lat,image_id_1\n1,2,A\n",
        "index,lon,lat\n1,2,3\n",
        "index,image_id_1,image_id_2\n1,A,B\n",
    ):
        (tmp_path / "wrong.csv").write_text(content)
        with pytest.raises(
            ValueError, match=r"wrong.csv' has columns .* expected one of .* per season .*summer"
        ):
            published.read_index(tmp_path / "wrong.csv", ["summer"])


def test_a_dataset_is_rebuilt_scene_for_scene_and_unresolved_ids_are_listed(tmp_path, monkeypatch, caplog):
    """The published scene is taken although clearer ones are in the window; limits of the choice do not count."""
    monkeypatch.chdir(tmp_path)
    scenes = (("A", "2021-07-01", 90.0), ("B", "2021-08-01", 0.0), ("C", "2021-12-20", 2.0))
    for item_id, _, _ in scenes:
        write_files("scenes", item_id)
    items = [make_item(i, day, **{"eo:cloud_cover": cloud}) for i, day, cloud in scenes]
    world = World(tmp_path, items, points=(CENTER, (CENTER[0] - 500, CENTER[1])))
    (tmp_path / "index.csv").write_text(
        "location_id,image_id_1,image_id_2\n"
        "P0,20210701T101031_20210701T101031_T32TQT,20211221T101031_20211221T101031_T32TQT\n"
        "P1,,20211220T101031_20211220T101031_T32TQT\n"
    )
    world.settings |= {"source": "index", "path": "index.csv"}
    world.index = ["index.csv"]
    table = world.run().set_index(["location_id", "season"])
    assert table.loc[("P0", "summer"), "item_id"] == "A" and table.loc[("P1", "winter"), "item_id"] == "C"
    # 2021-07-01 is day 182; the window's middle is day 198
    assert table.loc[("P0", "summer"), "days_from_target"] == -16
    assert table["reason"].to_dict() == {
        ("P0", "summer"): "candidate",
        ("P0", "winter"): "unresolved",
        ("P1", "summer"): "no_image",
        ("P1", "winter"): "candidate",
    }
    unresolved = world.scenes().query("reason == 'unresolved'")
    assert list(unresolved["item_id"]) == ["20211221T101031_20211221T101031_T32TQT"]
    assert "no item of the catalog is image 20211221T101031" in caplog.text
    locations = pd.read_parquet("locations.parquet")[["location_id", "lon", "lat"]]
    index = index_patches.index(table.reset_index(), locations, size_m=640)
    assert (
        not index["is_complete"].any() and np.isfinite(index.query("status == 'ok'")["cloud_fraction"]).all()
    )
    assert all(json.loads(text) for text in table.loc[table["status"] == "ok", "screened"])
