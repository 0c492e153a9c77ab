"""The built world: same seed same values, whole after a kill, readable by the usual libraries."""

import dataclasses
import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pystac
import pytest
import rasterio
from small_world import SMALL, build_in, small_world

from workflow_scripts.core import bands
from workflow_scripts.core.grid import project
from workflow_scripts.demo import acquisitions, truth
from workflow_scripts.demo.geography import to_lonlat
from workflow_scripts.demo.parameters import World
from workflow_scripts.demo.sentinel2 import footprint, in_swath, render
from workflow_scripts.demo.tile_ground import scene_window

TINY = dataclasses.replace(SMALL, islands=SMALL.islands[:1], max_scenes=2, window_m=1200, radius_km=0.4)


def digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@pytest.fixture(scope="module")
def items():
    return json.loads((small_world() / "items.json").read_text())["features"]


def test_same_seed_same_files_whatever_the_processes_and_leftovers(tmp_path):
    build_in(tmp_path / "one", TINY)
    stale = tmp_path / "two" / "scenes" / "S2A_32TQT_19990101_0_L2A" / "B02.tif"
    stale.parent.mkdir(parents=True)
    stale.write_bytes(b"left by a killed build")
    build_in(tmp_path / "two", TINY, n_processes=2)
    assert digests(tmp_path / "one") == digests(tmp_path / "two")
    other = dataclasses.replace(TINY, seed=TINY.seed + 1)
    scene = acquisitions.scenes(TINY)[0]
    assert not np.array_equal(render(TINY, scene).dn["B04"], render(other, scene).dn["B04"])


def test_items_are_valid_and_their_files_are_where_they_say(items):
    assert len({item["id"] for item in items}) == len(items)
    for entry in items:
        item = pystac.Item.from_dict(entry)
        assert item.datetime is not None and set(item.assets) == set(
            bands.ASSET_NAMES["earth-search"].values()
        )
        epsg = entry["properties"]["proj:epsg"]
        for band, key in bands.ASSET_NAMES["earth-search"].items():
            asset = entry["assets"][key]
            with rasterio.open(small_world() / asset["href"]) as file:
                assert file.crs.to_epsg() == epsg
                assert list(file.shape) == asset["proj:shape"]
                assert list(file.transform)[:6] == asset["proj:transform"]
                assert file.nodata == 0
                assert file.dtypes == (("uint16",) if band != "SCL" else ("uint8",))
                assert file.res[0] == bands.RESOLUTION_M.get(band, 20)
                assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"


def test_parquet_and_json_hold_the_same_items(items):
    frame = gpd.read_parquet(small_world() / "items.parquet").set_index("id")
    assert list(frame.index) == [item["id"] for item in items]
    for item in items:
        row = frame.loc[item["id"]]
        assert row.datetime == pd.Timestamp(item["properties"]["datetime"])
        assert row["eo:cloud_cover"] == item["properties"]["eo:cloud_cover"]
        assert row["earthsearch:boa_offset_applied"] == item["properties"]["earthsearch:boa_offset_applied"]
        assert row.assets["red"]["href"] == item["assets"]["red"]["href"]
        np.testing.assert_allclose(row.geometry.bounds, item["bbox"])


def test_windows_lie_on_the_lattice_of_the_real_tiles():
    world = World()
    phases = set()
    for island in world.islands:
        for tile in island.tiles:
            window = scene_window(world, island, tile)
            left, top = tile.tile_origin
            assert (window.origin_x - left) % 60 == 0 and (top - window.origin_y) % 60 == 0
            phases.add(window.origin_y % 60)
    assert phases == {0, 40}  # in UTM south the lattice counts from the equator at 10,000 km
    south = world.islands[2]
    first, second = (scene_window(world, south, tile) for tile in south.tiles)
    assert (first.origin_x, first.origin_y) != (second.origin_x, second.origin_y)


def test_all_kinds_of_processing_and_sky_occur():
    scenes = acquisitions.scenes(World())
    assert 150 <= len(scenes) <= 220
    kinds = {(float(s.baseline) >= 4, s.is_offset_applied) for s in scenes}
    assert kinds == {(False, False), (True, False), (True, True)}
    early = [s for s in scenes if s.datatake.time.year == 2021 and s.sequence == 0]
    assert {s.baseline for s in early} == {"02.14", "03.00", "03.01"}
    again = [s for s in scenes if s.sequence == 1]
    originals = {(s.datatake.time, s.tile.name) for s in scenes if s.sequence == 0}
    assert len(again) >= 4 and all((s.datatake.time, s.tile.name) in originals for s in again)
    assert any(s.datatake.time.year == 2021 and s.dn_offset == 1000 for s in again)
    covers = [s.datatake.sky.cover for s in scenes]
    assert max(covers) == 1 and np.mean(np.array(covers) < 0.2) > 0.5
    assert any(s.datatake.swath_edge is not None for s in scenes)
    north = [s for s in scenes if s.tile.epsg in (32632, 32633)]
    elevation = [acquisitions.sun(s.datatake.island, s.datatake.time)[0] for s in north]
    assert 14 < min(elevation) < 20 and max(elevation) > 55


def test_sun_stands_as_the_almanac_says():
    north, tropical, _ = World().islands
    solar_noon = datetime(2021, 6, 21, 11, 12, tzinfo=UTC)  # 12 h minus 12° east
    elevation, azimuth = acquisitions.sun(north, solar_noon)
    assert elevation == pytest.approx(90 - 47.3 + 23.45, abs=0.1)
    assert azimuth == pytest.approx(180, abs=1)
    morning = datetime(2021, 3, 21, 7, 2, tzinfo=UTC)  # 8 h solar time at the equinox on the equator
    elevation, azimuth = acquisitions.sun(tropical, morning)
    assert elevation == pytest.approx(30, abs=1)
    assert azimuth == pytest.approx(90, abs=2)


def test_offset_stands_in_the_pixels_exactly_where_the_item_says():
    scene = acquisitions.scenes(TINY)[0]
    plain = dataclasses.replace(scene, baseline="03.01", is_offset_applied=False)
    left_in = dataclasses.replace(scene, baseline="04.00", is_offset_applied=False)
    removed = dataclasses.replace(scene, baseline="04.00", is_offset_applied=True)
    pixels = {name: render(TINY, s).dn for name, s in (("0", plain), ("in", left_in), ("out", removed))}
    for band in bands.ALL_BANDS:
        np.testing.assert_array_equal(pixels["0"][band], pixels["out"][band])
        np.testing.assert_array_equal(bands.harmonize(pixels["in"][band], 1000), pixels["0"][band])
        assert pixels["in"][band].min() > 900
    for scene in (plain, left_in, removed):
        properties = {
            "s2:processing_baseline": scene.baseline,
            "earthsearch:boa_offset_applied": scene.is_offset_applied,
        }
        assert bands.dn_offset(properties, "earth-search")[0] == scene.dn_offset


def test_swath_edge_is_no_data_in_all_bands_and_outside_the_footprint(items):
    scene = next(s for s in acquisitions.scenes(World()) if s.datatake.swath_edge is not None)
    world = dataclasses.replace(TINY, max_scenes=None)
    rendered = render(world, scene)
    share = [np.mean(array == 0) for array in (*rendered.dn.values(), rendered.scl)]
    assert 0.1 < share[0] < 0.9 and np.ptp(share) < 0.03
    window = scene_window(world, scene.datatake.island, scene.tile)
    whole = footprint(
        dataclasses.replace(scene, datatake=dataclasses.replace(scene.datatake, swath_edge=None)), window
    )
    part = footprint(scene, window)
    np.testing.assert_array_equal(rendered.scl == 0, ~in_swath(scene, window, 20))
    assert part.area / whole.area == pytest.approx(1 - share[-1], abs=0.02)


def test_cloud_cover_of_the_item_is_that_of_its_classes(items):
    for item in items[:6]:
        with rasterio.open(small_world() / item["assets"]["scl"]["href"]) as file:
            scl = file.read(1)
        valid = scl > 0
        cover = 100 * np.isin(scl, (8, 9, 10)).sum() / valid.sum()
        assert item["properties"]["eo:cloud_cover"] == pytest.approx(cover, abs=1e-5)
        assert item["properties"]["s2:nodata_pixel_percentage"] == pytest.approx(100 * np.mean(~valid))


def test_clouds_are_bright_and_shadows_dark():
    takes = [s for s in acquisitions.scenes(World()) if s.tile.name == "33MVV"]
    scene = next(s for s in takes if 0.3 < s.datatake.sky.cover < 0.7 and s.datatake.swath_edge is None)
    rendered = render(dataclasses.replace(SMALL, max_scenes=None), scene)
    blue = rendered.dn["B02"][::2, ::2].astype(float) - scene.dn_offset
    thick, land = rendered.scl == 9, np.isin(rendered.scl, (4, 5))
    assert thick.any() and land.any() and (rendered.scl == 3).any()
    assert blue[thick].mean() > 4 * blue[land].mean()
    assert blue[rendered.scl == 3].mean() < blue[land].mean()


def test_scene_ndvi_follows_the_true_cycle():
    world = dataclasses.replace(SMALL, max_scenes=None, islands=SMALL.islands[2:])
    island = world.islands[0]
    chosen = [s for s in acquisitions.scenes(world) if s.tile.name == "34HBJ"]
    chosen = [s for s in chosen if s.datatake.sky.cover == 0 and s.datatake.swath_edge is None][::4]
    east, north = np.array([0.45, -0.45, 0.45, -0.45]), np.array([0.45, 0.45, -0.45, -0.45])
    lon, lat = to_lonlat(island, east, north)
    dates = np.array([np.datetime64(s.datatake.time.date()) for s in chosen])
    expected, _ = truth.ndvi_at(world, island, lon, lat, dates)
    window = scene_window(world, island, chosen[0].tile)
    x, y = project(lon, lat, window.epsg)
    columns, rows = ((x - window.origin_x) // 10).astype(int), ((window.origin_y - y) // 10).astype(int)
    for scene, true in zip(chosen, expected):
        dn = render(world, scene).dn
        ndvi = bands.ndvi(*(bands.harmonize(dn[band], scene.dn_offset) for band in ("B08", "B04")))
        seen = [ndvi[r - 6 : r + 7, c - 6 : c + 7].mean() for r, c in zip(rows, columns)]
        # texture of the ground, slopes and haze remain in a mean over 130 m
        np.testing.assert_allclose(seen, true, atol=0.08)
    assert np.ptp(expected, axis=0).max() > 0.3


def test_two_tiles_of_a_datatake_show_the_same_ground():
    world = dataclasses.replace(SMALL, max_scenes=None)
    scenes = [s for s in acquisitions.scenes(world) if s.datatake.sky.cover == 0]
    by_tile = {}
    for scene in scenes:
        if scene.datatake.swath_edge is None and scene.datatake.island.name == "south":
            by_tile.setdefault(scene.datatake.time, {})[scene.tile.name] = scene
    pair = next(pair for pair in by_tile.values() if len(pair) == 2)
    (a, b) = pair["34HBJ"], pair["34HCJ"]
    first, second = (render(world, s).dn["B08"].astype(float) - s.dn_offset for s in (a, b))
    w1, w2 = (scene_window(world, s.datatake.island, s.tile) for s in (a, b))
    right, down = (w2.origin_x - w1.origin_x) // 10, (w1.origin_y - w2.origin_y) // 10
    # right is negative: the second window begins west of the first
    overlap1 = first[down:, : first.shape[1] + right]
    overlap2 = second[: second.shape[0] - down, -right:]
    assert np.abs(overlap1 - overlap2).mean() < 30  # only sensor noise differs
    assert np.corrcoef(overlap1.ravel(), overlap2.ravel())[0, 1] > 0.99


def test_truth_tables_have_the_promised_columns():
    phenology = pd.read_parquet(small_world() / "truth/phenology.parquet")
    assert {"lon", "lat", "year", "cycle", "greenup", "dormancy", "amplitude"} <= set(phenology.columns)
    assert phenology.greenup.dtype.kind == "M"
    ndvi = pd.read_parquet(small_world() / "truth/ndvi.parquet")
    assert {"lon", "lat", "date", "ndvi"} <= set(ndvi.columns)
    assert ndvi.groupby(["lon", "lat"]).size().eq(105).all() and len(ndvi) == 105 * 12
    assert ndvi.ndvi.between(-0.1, 1).all()
