"""What the options of `locations` do together: regions, exclusions, strata from files, growth, summary."""

import json
import logging

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import rasterio
import shapely
from rasterio.transform import from_origin

from tests.sampling_world import make_world, run
from workflow_scripts.core import grid, store


@pytest.fixture
def world(tmp_path):
    return make_world(tmp_path)


WINDOW = (9, 43, 21, 49)
"""West, south, east and north of all land, with a margin."""
STRATIFIED = {"design": "stratified", "n_locations": 40}


def summary(folder, output="out"):
    return json.loads((folder / output / "sampling.json").read_text())


def write_soils(folder, crs=3035):
    """Soil polygons of three codes in another CRS; "clay" lies over the others and comes first by name."""
    shapes = [shapely.box(10, 44, 13, 48), shapely.box(13, 44, 16, 48), shapely.box(12, 45, 14, 47)]
    frame = gpd.GeoDataFrame({"SOIL": ["sand", "loam", "clay"]}, geometry=shapes, crs=4326)
    frame.geometry = frame.geometry.segmentize(0.05)
    frame.to_crs(crs).to_file(folder / "soils.gpkg")
    return str(folder / "soils.gpkg")


def write_raster(folder):
    """Classes 1 and 2 in the west and east, no data in the north."""
    values = np.where(np.arange(60) < 20, 1, 2).astype("uint8") * np.ones((40, 1), "uint8")
    values[:10] = 0
    with rasterio.open(
        folder / "cover.tif", "w", driver="GTiff", height=40, width=60, count=1, dtype="uint8",
        crs="EPSG:4326", transform=from_origin(10, 48, 0.1, 0.1), nodata=0,
    ) as file:  # fmt: skip
        file.write(values, 1)
    return str(folder / "cover.tif")


def test_a_region_by_attribute_is_that_part_of_the_file(world):
    eco = str(world / "eco.parquet")
    one, _ = run(world, region={"path": eco, "where": {"ECO_NAME": "one"}})
    assert set(one["eco_name"]) == {"one"}
    some, _ = run(world, region={"path": eco, "where": {"eco_id": [1, 3], "realm": "P"}})
    assert set(some["eco_id"]) == {1, 3}
    with pytest.raises(ValueError, match=r"locations\.region\.where: no feature of .* = \['four'\].*'one'"):
        run(world, region={"path": eco, "where": {"ECO_NAME": "four"}})


def test_exclusions_are_files_boxes_and_parts_of_files(world):
    everything, _ = run(world, "all")
    gpd.GeoDataFrame(geometry=[shapely.box(14, 44, 17, 49)], crs=4326).to_parquet(world / "lake.parquet")
    exclude = [
        [10, 44, 11, 45],
        str(world / "lake.parquet"),
        {"path": str(world / "eco.parquet"), "where": {"BIOME_NAME": "N/A"}},
    ]
    locations, _ = run(world, exclude=exclude)
    kept = ~everything["lon"].between(14, 17) & (everything["biome_name"] != "N/A")
    kept &= ~((everything["lon"] <= 11) & (everything["lat"] <= 45))
    assert locations["location_id"].tolist() == everything.loc[kept, "location_id"].tolist()
    with pytest.raises(ValueError, match=r"locations\.exclude\[1\] = \[0, 5, 9, 2\] is not"):
        run(world, exclude=[[0, 0, 1, 1], [0, 5, 9, 2]])


def test_any_polygons_name_the_strata(world):
    soils = write_soils(world)
    locations, _ = run(world, **STRATIFIED, strata="SOIL", strata_path=soils, allocation="equal")
    assert locations["stratum"].value_counts().to_dict() == {"sand": 14, "clay": 13, "loam": 13} or set(
        locations["stratum"].value_counts()
    ) == {13, 14}
    inside = locations["lon"].between(12, 14) & locations["lat"].between(45, 47)
    assert (locations.loc[inside, "stratum"] == "clay").all() and (locations["eco_id"] >= 0).any()
    alone, _ = run(
        world, "alone", **STRATIFIED, strata="SOIL", strata_path=soils, allocation="equal", ecoregions=None
    )
    assert alone["location_id"].tolist() == locations["location_id"].tolist()
    assert set(alone["eco_id"]) == {-1}
    with pytest.raises(ValueError, match=r"locations\.strata_path: .* lacks the column\(s\) \['eco_id'\]"):
        run(world, **STRATIFIED, strata_path=soils)


def test_a_raster_names_the_strata(world, caplog):
    cover = write_raster(world)
    locations, _ = run(world, **STRATIFIED, strata="1", strata_path=cover, allocation="proportional")
    assert set(locations["stratum"]) == {"1", "2"}
    assert ((locations["lon"] < 12) == (locations["stratum"] == "1")).all()
    assert locations["lat"].max() < 47 and "lie in no stratum and cannot be drawn" in caplog.text
    with pytest.raises(ValueError, match=r"'eco_id', but locations\.strata_path = .* is a raster"):
        run(world, **STRATIFIED, strata_path=cover)


def test_areas_of_a_table_replace_those_of_the_cells(world):
    (world / "areas.csv").write_text("stratum,area_km2\n0,3000\n1,1000\n2,1000\n3,5000\n")
    options = STRATIFIED | {"strata_areas": str(world / "areas.csv"), "allocation": "proportional"}
    locations, _ = run(world, **options)
    assert locations["stratum"].value_counts().to_dict() == {"3": 20, "0": 12, "1": 4, "2": 4}
    for value in ("0", "-2", "inf", "", "many"):
        (world / "areas.csv").write_text(f"stratum,area_km2\n0,3000\n1,{value}\n2,1000\n3,5000\n")
        with pytest.raises(ValueError, match=r"strata_areas: the area of a stratum must be above 0 .*'1'"):
            run(world, **options)
    for text, message in [
        ("stratum,area_km2\n0,1\n", r"no row for 3 of 4 strata: \['1', '2', '3'\]"),
        ("name,area_km2\n0,1\n", r"lacks the column\(s\) \['stratum'\]; it has \['name', 'area_km2'\]"),
        ("stratum,area_km2\n0,1\n0,2\n", r"repeats the strata \['0'\]"),
    ]:
        (world / "areas.csv").write_text(text)
        with pytest.raises(ValueError, match=rf"locations\.strata_areas.*{message}"):
            run(world, **options)
    with pytest.raises(FileNotFoundError, match=r"locations\.strata_areas: no file 'none\.csv'"):
        run(world, **STRATIFIED, strata_areas="none.csv")


def test_strata_without_a_center_are_hit_inside_their_polygon(world, caplog):
    ecoregions = gpd.read_parquet(world / "eco.parquet")
    sliver = ecoregions.iloc[[0]].assign(
        ECO_ID=77, ECO_NAME="sliver", geometry=[shapely.box(12, 44.99, 12.05, 45.05)]
    )
    pd.concat([ecoregions, sliver]).to_parquet(world / "eco.parquet")
    run(world, "center", **STRATIFIED)
    assert "1 strata cannot be drawn, largest first: 77 (26 km2)" in caplog.text
    lacking = summary(world, "center")["without_location"]
    assert [entry["stratum"] for entry in lacking] == ["77"] and not lacking[0]["is_placed"]
    locations, _ = run(world, "polygon", **STRATIFIED, place="polygon")
    row = locations.set_index("stratum").loc["77"]
    assert shapely.box(12, 44.99, 12.05, 45.05).contains(row.geometry)
    assert (row["eco_id"], row["eco_name"], row["inclusion_probability"]) == (77, "sliver", 1)
    assert summary(world, "polygon")["without_location"][0]["is_placed"]
    assert len(locations) == 40 and locations["location_id"].is_unique


def test_a_random_offset_is_the_same_in_every_cell_and_follows_the_seed(world):
    locations, _ = run(world, place="random_offset")
    cells = grid.cells(20_000, bounds=WINDOW).set_index("cell_id").loc[locations["location_id"]]
    across = (locations["lon"].to_numpy() - cells["west"]) / cells["dlon"]
    assert 0 < across.iloc[0] < 1 and np.ptp(across) < 1e-9
    assert (grid.cell_at(locations["lon"], locations["lat"], 20_000) == locations["location_id"]).all()
    other, _ = run(world, "other", place="random_offset", seed=8)
    assert not np.isclose(other["lat"].iloc[0], locations["lat"].iloc[0])


def test_an_enlargement_appends_rows_and_the_store_grows(world):
    """Three rounds: rows, ids and shards of the earlier ones stay; the last shard is completed."""
    options = {"design": "stratified", "per_shard": 16}
    one, _ = run(world, "one", n_locations=40, **options)
    two, _ = run(world, "two", n_locations=75, rounds=[40], **options)
    three, jobs = run(world, "three", n_locations=120, rounds=[40, 75], **options)
    for before, after in ((one, two), (two, three)):
        same = ["location_id", "lon", "lat", "shard", "stratum", "split"]
        assert before[same].equals(after[same].iloc[: len(before)])
        new = after.iloc[len(before) :]
        position = grid.hilbert_index(new["lon"], new["lat"])
        assert (np.diff(position) >= 0).all(), "a round is compact in space"
    assert [jobs["shards"][k]["last"] for k in ("2", "4")] == [48, 80]
    fresh, _ = run(world, "fresh", n_locations=120, **options)
    assert set(fresh["location_id"]) == set(three["location_id"])
    layout = {"seasons": ["all"], "size_m": 640, "per_shard": 16, "codec": "blosc-lz4-bitshuffle"}
    path = world / "patches.zarr"
    store.create_store(path, locations=one, **layout)
    with pytest.raises(ValueError, match=r"list the 40 in locations\.rounds"):
        store.create_store(path, locations=fresh, **layout)
    for locations in (two, three):
        store.create_store(path, locations=locations, **layout)
        assert store.open_store(path)["location_id"].values.tolist() == locations["location_id"].tolist()


def test_points_added_to_a_file_follow_the_earlier_ones(world):
    lines = [f"s{i},{10 + i % 6},{44.2 + i / 10}" for i in range(30)]
    (world / "few.csv").write_text("\n".join(["location_id,lon,lat", *lines[:20]]))
    (world / "many.csv").write_text("\n".join(["location_id,lon,lat", *lines]))
    few, _ = run(world, "few", design="file", path=str(world / "few.csv"), spacing_m=None)
    many, _ = run(world, "many", design="file", path=str(world / "many.csv"), rounds=[20])
    assert many["location_id"].tolist()[:20] == few["location_id"].tolist()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rounds": [10]}, r"rounds = \[10\] needs design 'stratified'"),
        ({**STRATIFIED, "spacing_m": None, "rounds": [10]}, "with both spacing_m and n_locations"),
        ({**STRATIFIED, "rounds": [20, 10]}, r"\[20, 10\] must increase and stay below the 40"),
        ({**STRATIFIED, "rounds": [40]}, r"\[40\] must increase and stay below the 40"),
        ({**STRATIFIED, "rounds": [2]}, r"n_locations = 2 is below the 4"),
    ],
)
def test_rounds_that_cannot_be_are_named(world, options, message):
    with pytest.raises(ValueError, match=message):
        run(world, **options)


def test_polygons_in_any_crs_and_with_crossing_rings_give_the_same(world):
    expected, _ = run(world, "expected")
    for name in ("land", "eco"):
        frame = gpd.read_parquet(world / f"{name}.parquet")
        frame.geometry = frame.geometry.segmentize(0.02)
        frame.to_crs(3035).to_parquet(world / f"{name}.parquet")
    other, _ = run(world, "other")
    assert len(set(other["location_id"]) ^ set(expected["location_id"])) == 0
    bowtie = shapely.Polygon([(10, 44), (16, 48), (16, 44), (10, 48)])
    gpd.GeoDataFrame(geometry=[bowtie], crs=4326).to_parquet(world / "land.parquet")
    crossed, _ = run(world, "crossed")
    assert 0 < len(crossed) < len(expected)


def test_polygons_without_crs_and_regions_without_land_are_named(world):
    gpd.GeoDataFrame(geometry=[shapely.box(10, 44, 16, 48)]).to_parquet(world / "land.parquet")
    with pytest.raises(ValueError, match=r"locations\.land: .* names no coordinate reference system"):
        run(world)


def test_the_summary_counts_and_measures(world, caplog):
    with caplog.at_level(logging.INFO):
        locations, _ = run(world, **STRATIFIED)
    found = summary(world)
    cells = grid.cells(20_000, bounds=WINDOW).set_index("cell_id")
    assert found["spacing_m"] == 20_000 and found["n_locations"] == 40
    by_stratum = {entry["stratum"]: entry for entry in found["strata"]}
    assert {s: e["n_locations"] for s, e in by_stratum.items() if s != "unassigned"} == locations[
        "stratum"
    ].value_counts().to_dict()
    assert by_stratum["unassigned"]["n_locations"] == 0
    assert sum(e["area_km2"] for e in found["strata"]) == pytest.approx(found["land_area_km2"], rel=1e-6)
    census, _ = run(world, "census")
    area = pd.Series(grid.cell_area_km2(cells), cells.index).loc[census["location_id"]].to_numpy()
    by_biome = pd.DataFrame(found["ecoregions"]).groupby("biome_name")["area_km2"].sum()
    expected = pd.Series(area).groupby(census["biome_name"].to_numpy()).sum()
    pd.testing.assert_series_equal(by_biome, expected, check_names=False, rtol=1e-4)
    assert found["balance"]["sample"] < found["balance"]["simple_random"]
    assert summary(world, "census")["balance"] is None
