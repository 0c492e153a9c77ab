"""Catalogs in many files: the scenes of a search, each file read once, wherever the files lie."""

import json
from types import SimpleNamespace

import pandas as pd
import pyarrow.parquet as pq
import pytest
from made_scenes import make_item, write_geoparquet

from workflow_scripts import gather_items, select_scenes
from workflow_scripts.core import network, stac, tables
from workflow_scripts.core.stage import write_json
from workflow_scripts.demo import faults
from workflow_scripts.demo.server import DemoServer

TILES = ("32TQT", "33TTN", "01WCQ")
YEARS = (2020, 2022)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three files with scenes of four tiles, one of which nobody wants; ids count up."""
    path = tmp_path_factory.mktemp("files")
    number = 0
    for name, days in (
        ("a", ("2020-01-03", "2020-02-03")),
        ("b", ("2021-07-01",)),
        ("c", ("2022-12-31", "2023-01-01")),
    ):
        items = []
        for day in days:
            for tile in (*TILES, "32TQS"):
                items.append(make_item(f"I{number:02d}", day, tile=tile.lstrip("0")))
                number += 1
        write_geoparquet(path / f"{name}.parquet", items)
    (path / "items.json").write_text(json.dumps({"type": "FeatureCollection", "features": []}))
    return path


def catalog(path):
    return {"type": "geoparquet", "path": path, "conventions": "earth-search"}


def check(path, entry):
    """What was gathered is what a search per tile finds."""
    for tile in TILES:
        gathered = select_scenes.read_items([path], [tile])
        found = stac.search_items({**entry, "name": "made"}, tile=tile, years=YEARS, kind="sentinel-2")
        assert len(found) == 4
        found = found.sort_values("item_id", ignore_index=True)
        facts = (frame.drop(columns="geometry") for frame in (gathered, found))
        pd.testing.assert_frame_equal(*facts, check_dtype=False)
        assert gathered.geometry.geom_equals(found.geometry).all() and gathered.crs == found.crs


def test_gathered_scenes_are_those_of_searches(folder, tmp_path):
    write_json(
        tmp_path / "jobs.json",
        {"shards": {"0": {"mgrs_tiles": list(TILES[:2])}, "1": {"mgrs_tiles": list(TILES[1:])}}},
    )
    entry = catalog(str(folder / "?.parquet"))
    job = SimpleNamespace(
        input=SimpleNamespace(jobs=tmp_path / "jobs.json"),
        output=SimpleNamespace(found=tmp_path / "items.parquet"),
        params=SimpleNamespace(catalogs={"made": entry}, years=list(YEARS)),
        threads=2,
    )
    gather_items.main(job)
    check(tmp_path / "items.parquet", entry)
    table = tables.read_table(tmp_path / "items.parquet", "items")
    assert list(table["mgrs_tile"]) == sorted(table["mgrs_tile"]) and len(table) == 12
    assert not list(tmp_path.glob(".gathering*"))


def test_rows_are_written_in_groups_that_hold_few_tiles(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(gather_items, "ROWS", 3)
    entry = catalog([str(folder / f"{name}.parquet") for name in "abc"])
    gather_items.gather({"made": entry}, tmp_path / "items.parquet", tiles=TILES, years=YEARS)
    check(tmp_path / "items.parquet", entry)
    metadata = pq.read_metadata(tmp_path / "items.parquet")
    assert metadata.num_row_groups >= 4


def test_files_over_http_are_read_in_ranges_and_through_faults(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(network, "FIRST_PAUSE_S", 0.01)
    with DemoServer(folder, catalogs=["items.json"]) as server:
        server.faults += [
            faults.unavailable(r"a\.parquet", times=2),
            faults.truncated(r"b\.parquet", times=1),
            faults.too_many_requests(r"c\.parquet", retry_after_s=0, times=1),
        ]
        entry = catalog([f"{server.url}/files/{name}.parquet" for name in "abc"])
        gather_items.gather({"made": entry}, tmp_path / "items.parquet", tiles=TILES, years=YEARS)
        check(tmp_path / "items.parquet", entry)
        assert all(status in (206, 429, 503) for _, _, status in server.requests), "ranges only"


def test_no_scene_at_all_is_one_clear_message(folder, tmp_path):
    with pytest.raises(
        ValueError, match=r"catalog 'made' .*none of its 1 files has a scene on the 1 tiles in 2020"
    ):
        gather_items.gather(
            {"made": catalog([str(folder / "a.parquet")])},
            tmp_path / "items.parquet",
            tiles=["31UGQ"],
            years=YEARS,
        )
