"""The stage as a whole: designs, splits, shards and jobs, and what it says when it cannot."""

import logging

import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import shapely
import workflow_runs
from hypothesis import given
from hypothesis import strategies as st
from threadpoolctl import threadpool_limits

from tests.sampling_world import OUTPUTS, make_world, run
from workflow_scripts.core import grid
from workflow_scripts.sample_locations import finish, split_by_blocks


@pytest.fixture
def world(tmp_path):
    return make_world(tmp_path)


def test_a_polygon_file_and_a_spacing_are_a_whole_configuration(tmp_path):
    """A GeoJSON in another CRS, run as users do; nothing else is made."""
    land = gpd.GeoDataFrame(geometry=[shapely.box(5, 40, 20, 50)], crs=4326)
    land.to_crs(3857).to_file(tmp_path / "land.geojson")
    options = {"design": "grid", "spacing_m": 100_000, "land": "land.geojson", "ecoregions": None}
    workflow_runs.run(tmp_path, "sample", config={"datasets": {"mine": {"locations": options}}}, cores=1)
    out = tmp_path / "results" / "datasets" / "mine"
    assert sorted(file.name for file in out.iterdir()) == ["jobs.json", "locations.parquet", "sampling.json"]
    cells = grid.cells(100_000, bounds=(5, 40, 20, 50))
    assert sorted(gpd.read_parquet(out / "locations.parquet")["location_id"]) == sorted(cells["cell_id"])


def test_grid_takes_every_cell_on_land(world):
    locations, jobs = run(world)
    cells = grid.cells(20_000, bounds=(0, 30, 40, 60))
    land = gpd.read_parquet(world / "land.parquet").union_all()
    expected = cells.loc[shapely.intersects_xy(land, cells["lon"], cells["lat"]), "cell_id"]
    assert sorted(locations["location_id"]) == sorted(expected)
    assert (locations["inclusion_probability"] == 1).all()
    in_north = locations["lat"] >= 47
    assert (locations["is_mountain"] == in_north).all()
    assert (locations.loc[in_north, "biome_name"] == "N/A").all()
    assert (locations.loc[in_north, "eco_id"] == 0).all()
    far_island = locations["lon"] > 19
    assert (locations.loc[far_island, "stratum"] == "unassigned").all() and far_island.any()
    assert (locations.loc[~far_island, "eco_id"] >= 0).all()
    assert locations.crs == 4326 and np.allclose(locations.geometry.x, locations["lon"])
    center = np.array([grid.cell_center(name, 20_000) for name in locations["location_id"]])
    np.testing.assert_allclose(center, locations[["lon", "lat"]], atol=1e-9)
    assert jobs["n_locations"] == len(locations)


def test_shards_are_compact_and_listed_with_their_tiles(world):
    locations, jobs = run(world)
    np.testing.assert_array_equal(locations["shard"], np.arange(len(locations)) // 32)
    assert list(jobs["shards"]) == [str(k) for k in range(-(-len(locations) // 32))]
    for shard, entry in jobs["shards"].items():
        rows = locations.iloc[entry["first"] : entry["last"]]
        assert (rows["shard"] == int(shard)).all()
        tiles = {t for some in grid.mgrs_tiles(rows["lon"], rows["lat"], 2560) for t in some}
        assert entry["mgrs_tiles"] == sorted(tiles)
    assert sum(e["last"] - e["first"] for e in jobs["shards"].values()) == jobs["n_locations"]
    assert jobs["modis_tiles"] == sorted(set(grid.modis_tile(locations["lon"], locations["lat"])))
    distance = grid.great_circle_km(*locations[["lon", "lat"]].to_numpy().T,
                                    *locations[["lon", "lat"]].shift(-1, fill_value=10).to_numpy().T)  # fmt: skip
    assert np.median(distance) < 45


def test_stratified_draw_keeps_its_promises(world):
    few, _ = run(world, "few", design="stratified", n_locations=40, allocation="sqrt")
    many, _ = run(world, "many", design="stratified", n_locations=70, allocation="sqrt")
    census, _ = run(world, "census")
    assert len(few) == 40 and len(many) == 70
    assert set(few["location_id"]) <= set(many["location_id"])
    assert set(few["stratum"]) == {"0", "1", "2", "3"}
    size = census.groupby("stratum").size()
    for stratum, rows in few.groupby("stratum"):
        assert (rows["inclusion_probability"] == len(rows) / size[stratum]).all()
    share = few.groupby("stratum").size() / 40
    root = np.sqrt(size.drop("unassigned"))
    np.testing.assert_allclose(share, root / root.sum(), atol=0.03)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"allocation": "equal"}, [10, 10, 10, 10]),
        ({"allocation": "equal", "min_per_stratum": 2, "max_per_stratum": 11}, [10, 10, 10, 10]),
        ({"allocation": "equal", "strata": "biome_num"}, [14, 13, 13]),
        ({"allocation": "neyman", "spread": True}, [0, 40, 0, 0]),
    ],
)
def test_allocations(world, options, expected):
    if options.get("spread"):
        options = options | {"spread": str(world / "spread.csv"), "min_per_stratum": 0}
        (world / "spread.csv").write_text("stratum,spread\n0,0\n1,5\n2,0\n3,0\nother,9\n")
    locations, _ = run(world, design="stratified", n_locations=40, **options)
    strata = sorted(set(locations["stratum"]) | ({"0", "1", "2", "3"} if expected[0] == 0 else set()))
    counts = [int((locations["stratum"] == name).sum()) for name in strata]
    assert sorted(counts) == sorted(expected)


def test_same_seed_same_bytes_whatever_the_cores_other_seed_other_places(world):
    options = {"design": "stratified", "n_locations": 40}
    for name, n_cores in (("one", 1), ("four", 4)):
        before = pa.cpu_count()
        pa.set_cpu_count(n_cores)
        with threadpool_limits(n_cores):
            run(world, name, **options)
        pa.set_cpu_count(before)
    for name in (f"{name}.{kind}" for name, kind in OUTPUTS.items()):
        assert (world / "one" / name).read_bytes() == (world / "four" / name).read_bytes()
    some, _ = run(world, "some", **options)
    other, _ = run(world, "other", seed=8, **options)
    assert set(other["location_id"]) != set(some["location_id"])


@given(st.lists(st.tuples(st.floats(-180, 180), st.floats(-85, 85)), min_size=2, max_size=60), st.data())
def test_locations_keep_their_order_when_others_are_added(places, data):
    """Among each other without rounds; row, shard and split with them."""
    everything = pd.DataFrame(places, columns=["lon", "lat"]).assign(
        location_id=[f"id{i}" for i in range(len(places))], eco_id=-1, biome_num=-1,
        inclusion_probability=1.0, distance_to_evaluation_km=np.nan,
        **dict.fromkeys(("eco_name", "biome_name", "realm", "stratum"), ""),
    )  # fmt: skip
    n_before = data.draw(st.integers(1, len(places) - 1))
    options = {
        "mountains": None,
        "splits": {"validation_fraction": 0.4, "block_km": 500},
        "per_shard": 7,
        "seed": 3,
    }
    before = finish(everything.iloc[:n_before].assign(round=0), **options)
    mixed = finish(everything.assign(round=0), **options)
    assert (
        mixed["location_id"][mixed["location_id"].isin(before["location_id"])].tolist()
        == before["location_id"].tolist()
    )
    later = (np.arange(len(places)) >= n_before).astype(int)
    grown = finish(everything.assign(round=later), **options)
    pd.testing.assert_frame_equal(pd.DataFrame(grown.iloc[:n_before]), pd.DataFrame(before))


@pytest.mark.parametrize("design", ["grid", "stratified"])
def test_spacing_follows_from_the_number(world, design, caplog):
    with caplog.at_level(logging.INFO):
        locations, _ = run(world, design=design, n_locations=60, spacing_m=None)
    assert len(locations) == 60 if design == "stratified" else abs(len(locations) - 60) <= 4
    assert "spacing_m derived from n_locations = 60" in caplog.text


def test_stratified_without_a_number_takes_all_cells(world, caplog):
    locations, _ = run(world, design="stratified", n_locations=None)
    assert "n_locations is null" in caplog.text
    assert "lie in no stratum and cannot be drawn" in caplog.text
    assert (locations["inclusion_probability"] == 1).all()


def test_region_cuts_the_frame(world):
    locations, _ = run(world, region=[10, 44, 12, 45])
    assert locations["lat"].max() <= 45 and locations["lon"].max() <= 12 and len(locations) > 20
    gpd.GeoDataFrame(geometry=[shapely.box(10, 44, 12, 45)], crs=4326).to_file(world / "region.geojson")
    same, _ = run(world, region=str(world / "region.geojson"))
    assert same["location_id"].tolist() == locations["location_id"].tolist()


def test_cells_near_evaluation_points_are_not_drawn(world):
    (world / "eval.csv").write_text("name,lon,lat\na,12,46\n")
    evaluation = {"points": [str(world / "eval.csv")], "min_distance_km": 50}
    census, _ = run(world, "census")
    locations, _ = run(world, evaluation=evaluation)
    distance = grid.great_circle_km(locations["lon"], locations["lat"], 12, 46)
    np.testing.assert_allclose(locations["distance_to_evaluation_km"], distance, rtol=1e-6)
    assert distance.min() >= 50
    far = grid.great_circle_km(census["lon"], census["lat"], 12, 46) >= 50
    assert len(locations) == far.sum() < len(census)
    assert census["distance_to_evaluation_km"].isna().all()
    with pytest.raises(ValueError, match=r"all .* cells lie within"):
        run(world, evaluation=evaluation | {"min_distance_km": 5000})


def test_file_keeps_every_point_and_records_where_it_lies(world, caplog):
    (world / "sites.csv").write_text(
        "location_id,lon,lat,note\nsea,0,40,x\nforest,12,46,y\ncoast,16.05,46,z\n007,20.1,44.1,\n"
    )
    locations, jobs = run(world, design="file", path=str(world / "sites.csv"))
    rows = locations.set_index("location_id")
    assert set(rows.index) == {"sea", "forest", "coast", "007"}
    assert rows.loc["forest", ["eco_id", "stratum"]].tolist() == [2, "2"]
    for name in ("sea", "coast", "007"):
        assert rows.loc[name, ["eco_id", "stratum"]].tolist() == [-1, "unassigned"]
    assert rows["inclusion_probability"].isna().all()
    assert "2 of 4 locations lie outside the land polygons and are kept: sea, coast" in caplog.text
    assert "3 of 4 locations lie in no ecoregion" in caplog.text
    assert jobs["n_locations"] == 4


def test_file_needs_nothing_but_the_points(world):
    (world / "sites.csv").write_text("location_id,lon,lat\na,0,40\nb,12,46\n")
    nothing = {"land": None, "ecoregions": None, "mountains": None}
    locations, _ = run(world, design="file", path=str(world / "sites.csv"), **nothing)
    assert set(locations["stratum"]) == {"all"} and not locations["is_mountain"].any()


def test_split_is_by_block_and_does_not_change_with_other_locations():
    rng = np.random.default_rng(0)
    lon, lat = rng.uniform(-180, 180, 5000), rng.uniform(-60, 70, 5000)
    options = {"validation_fraction": 0.2, "block_km": 300, "seed": 1}
    split = split_by_blocks(lon, lat, **options)
    assert (split == "validation").mean() == pytest.approx(0.2, abs=0.03)
    by_block = pd.Series(split).groupby(grid.cell_at(lon, lat, 300_000)).nunique()
    assert (by_block == 1).all()
    np.testing.assert_array_equal(split_by_blocks(lon[::7], lat[::7], **options), split[::7])
    assert (split_by_blocks(lon, lat, **options | {"validation_fraction": 0}) == "train").all()
    assert (split_by_blocks(lon, lat, **options | {"validation_fraction": 1}) == "validation").all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"land": None}, r"locations\.land is null"),
        ({"design": "stratified", "ecoregions": None}, r"locations\.ecoregions is null"),
        ({"design": "file"}, r"locations\.path is null"),
        ({"spacing_m": None}, "both null"),
        ({"n_locations": 10}, "cannot both hold"),
        ({"region": [60, 10, 61, 11]}, r"no location .* locations\.region = \[60, 10, 61, 11\]"),
        ({"design": "stratified", "n_locations": 9999}, r"9999 is more than the \d+ cells"),
        ({"design": "stratified", "n_locations": 3}, "below the 4"),
        ({"design": "stratified", "n_locations": 9, "strata": "SOIL"}, r"lacks the column\(s\) \['SOIL'\]"),
        ({"design": "stratified", "n_locations": 9, "allocation": "neyman"}, r"needs locations\.spread"),
    ],
)
def test_what_cannot_be_sampled_is_said(world, options, message):
    with pytest.raises(ValueError, match=message):
        run(world, **options)
    assert not (world / "out" / "locations.parquet").exists()


def test_a_spread_table_must_cover_the_strata(world):
    (world / "spread.csv").write_text("stratum,spread\n0,1\n1,1\n")
    options = {"design": "stratified", "n_locations": 9, "allocation": "neyman"}
    with pytest.raises(ValueError, match=r"no row for 2 of 4 strata: \['2', '3'\]"):
        run(world, spread=str(world / "spread.csv"), **options)
    for value in ("nan", "inf", "-1", "", "much"):
        (world / "spread.csv").write_text(f"stratum,spread\n0,1\n1,{value}\n2,1\n3,1\n")
        with pytest.raises(
            ValueError, match=r"locations\.spread: .* finite number, 0 or above; found \{'1': "
        ):
            run(world, spread=str(world / "spread.csv"), **options)
