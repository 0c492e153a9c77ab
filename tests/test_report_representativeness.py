"""The report's comparison of locations with the land: shares, baseline, classes, distances."""

import json

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import shapely

from tests.sampling_world import make_world, run
from tests.test_sampling_options import write_raster
from workflow_scripts.core import grid
from workflow_scripts.core.polygons import areas_km2
from workflow_scripts.report import representativeness
from workflow_scripts.report.inputs import Dataset


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = make_world(tmp_path_factory.mktemp("world"))
    locations, _ = run(folder, design="stratified", n_locations=60, allocation="equal")
    return folder, locations, json.loads((folder / "out" / "sampling.json").read_text())


def write_baseline(folder):
    """Two places with two images each, as footprints without a CRS."""
    boxes = [shapely.box(12, 46, 12.02, 46.02), shapely.box(13, 47.5, 13.02, 47.52)]
    frame = pd.DataFrame(
        {"sample_id": ["a", "a", "b", "b"], "geometry": shapely.to_wkb([boxes[i // 2] for i in range(4)])}
    )
    frame.to_parquet(folder / "baseline.parquet")
    return str(folder / "baseline.parquet")


def test_shares_add_up_and_follow_the_areas(world):
    _, locations, facts = world
    groups = pd.DataFrame(facts["ecoregions"])
    shares = representativeness.share_table(groups, "biome_name", baseline=pd.Series(["moist", "mixed", ""]))
    np.testing.assert_allclose(shares.sum(), 100)
    assert shares.index[0] == "mixed" and shares["area"].is_monotonic_decreasing
    counts = locations["biome_name"].value_counts()
    assert shares.loc["moist", "locations"] == pytest.approx(100 * counts["moist"] / counts.sum())
    assert shares.loc["N/A", "baseline"] == 0 and shares.loc["moist", "baseline"] == 50


def test_a_baseline_is_read_from_footprints_points_or_columns(world):
    folder = world[0]
    eco = gpd.read_parquet(folder / "eco.parquet")
    found = representativeness.read_baseline(write_baseline(folder), eco)
    assert found["biome_name"].tolist() == ["mixed", "N/A"]
    np.testing.assert_allclose(found[["lon", "lat"]], [[12.01, 46.01], [13.01, 47.51]])
    found[["lon", "lat"]].to_csv(folder / "baseline.csv", index=False)
    points = gpd.GeoDataFrame(geometry=gpd.points_from_xy(found["lon"], found["lat"]), crs=4326).to_crs(3035)
    points.to_parquet(folder / "points.parquet")
    for name in ("baseline.csv", "points.parquet"):
        again = representativeness.read_baseline(str(folder / name), eco)
        np.testing.assert_allclose(again[["lon", "lat"]], found[["lon", "lat"]], atol=1e-6)
        assert again["eco_name"].tolist() == found["eco_name"].tolist()
    assert representativeness.read_baseline(None, eco) is None
    (folder / "wrong.csv").write_text("x,y\n1,2\n")
    with pytest.raises(ValueError, match=r"report\.compare\.baseline: .* neither the columns"):
        representativeness.read_baseline(str(folder / "wrong.csv"), eco)


def test_classes_of_a_raster_are_weighed_by_true_area(world):
    """The raster's classes lie south of 47 degrees, west (1) and east (2) of 12 degrees."""
    folder, locations, facts = world
    compare = {"land_cover": write_raster(folder)}
    dataset = Dataset("made", {}, land=str(folder / "land.parquet"), sampling=facts, compare=compare)
    land, all_land = representativeness.measured_land(dataset, with_all=True)
    exact = areas_km2(gpd.read_parquet(dataset.land)).sum()
    assert all_land is None and land["area_km2"].sum() == pytest.approx(exact, rel=0.002)
    shares = representativeness.cover_shares(locations, land, compare["land_cover"])
    west = (locations["lat"] < 47) & (locations["lon"] < 12)
    east = (locations["lat"] < 47) & locations["lon"].between(12, 16)
    assert shares.loc[1, "area"] == pytest.approx(100 / 3, abs=0.2)
    assert shares.loc[1, "locations"] == pytest.approx(100 * west.sum() / (west | east).sum())


def test_a_region_is_compared_with_itself_and_with_all_land(world):
    folder, _, _ = world
    lake = gpd.GeoDataFrame(geometry=[shapely.box(11, 45, 11.5, 46)], crs=4326)
    lake.to_parquet(folder / "lake.parquet")
    options = {"region": [11, 45.05, 14, 48], "exclude": [str(folder / "lake.parquet")]}
    locations, _ = run(folder, "part", **options)
    facts = json.loads((folder / "part" / "sampling.json").read_text())
    files = {"land_cover": write_raster(folder), "ecoregions": str(folder / "eco.parquet")}
    dataset = Dataset(
        "made", {"locations": options}, locations=locations, land=str(folder / "land.parquet"), sampling=facts,
        compare=files, areas={"exclude": options["exclude"]},
    )  # fmt: skip
    land, all_land = representativeness.measured_land(dataset, with_all=True)
    shares = representativeness.cover_shares(locations, land, files["land_cover"], all_land=all_land)
    # below 47 degrees a third of the region is west of 12, less the lake: 1 × 1.95 - 0.5 × 0.95 of 5.85 - 0.475
    assert shares.loc[1, "area"] == pytest.approx(100 * 1.475 / 5.375, abs=0.5)
    assert shares.loc[1, "all_land"] == pytest.approx(100 / 3, abs=0.2)
    html = representativeness.representativeness_section(dataset)
    assert html.count("All land %") == 2 and "region asked for" in html and "moist" not in html


def test_distances_to_the_nearest_neighbor_are_great_circles(world):
    locations = world[1]
    found = representativeness.nearest_neighbor_km(locations)
    lon, lat = locations["lon"].to_numpy(), locations["lat"].to_numpy()
    for i in range(0, len(lon), 7):
        others = np.arange(len(lon)) != i
        slow = grid.great_circle_km(lon[i], lat[i], lon[others], lat[others]).min()
        assert found[i] == pytest.approx(slow, rel=1e-6)


def test_the_section_says_what_was_chosen_from_and_what_was_missed(world):
    folder, locations, facts = world
    lacking = [{"stratum": "77", "area_km2": 25.9, "is_placed": False}]
    dataset = Dataset(
        name="made",
        settings={},
        locations=locations,
        land=str(folder / "land.parquet"),
        sampling=facts | {"without_location": lacking},
        compare={
            "baseline": write_baseline(folder),
            "ecoregions": str(folder / "eco.parquet"),
            "land_cover": write_raster(folder),
        },
    )
    html = representativeness.representativeness_section(dataset)
    for words in ("60 locations of", "at 20 km", "Spatial balance", "Baseline %", "2 places lie in 2",
                  "Share of locations and of land area by biome", "land-cover raster", "1 strata hold no",
                  "25.9", "distances to the nearest neighbor"):  # fmt: skip
        assert words in html
    assert html.count("<img") == html.count("alt=") == 2
    assert representativeness.representativeness_section(Dataset(name="made", settings={})) == ""
