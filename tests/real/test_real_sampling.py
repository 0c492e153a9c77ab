"""The global 23 km grid on real land and real ecoregions, and the published Major-TOM cells."""

import json
import logging
import resource
import time
from pathlib import Path
from types import SimpleNamespace

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import yaml

from workflow_scripts.core import grid
from workflow_scripts.core.land import Ground, land_cells
from workflow_scripts.core.polygons import read_polygons
from workflow_scripts.core.tables import read_table
from workflow_scripts.report import representativeness
from workflow_scripts.report.inputs import Dataset
from workflow_scripts.sample_locations import main

pytestmark = pytest.mark.real
logger = logging.getLogger(__name__)
OUTPUTS = {"locations": "parquet", "jobs": "json", "sampling": "json"}
SCHEMA = Path(__file__).parents[2] / "schemas" / "locations.schema.yaml"


def sample(real_data, out, **options):
    """Run the stage on the real polygons."""
    properties = yaml.safe_load(SCHEMA.read_text())["properties"]
    settings = {name: entry["default"] for name, entry in properties.items() if "default" in entry}
    settings |= {"splits": {"validation_fraction": 0.1, "block_km": 100}, **options}
    job = SimpleNamespace(
        input=SimpleNamespace(
            land=[str(real_data / "land" / "ne_10m_land.parquet")],
            ecoregions=[str(real_data / "ecoregions" / "ecoregions2017_simplified.parquet")],
            mountains=[],
            region=[],
            path=[],
            spread=[],
            evaluation=[],
            exclude=[entry for entry in options.get("exclude", []) if isinstance(entry, str)],
            strata_path=[],
            strata_areas=[options["strata_areas"]] if "strata_areas" in options else [],
        ),
        output=SimpleNamespace(
            **{name: str(out / f"{name}.{kind}") for name, kind in OUTPUTS.items()},
        ),
        params=SimpleNamespace(settings=settings, size_m=2560, seed=20250424),
        wildcards=SimpleNamespace(dataset="real"),
    )
    start = time.perf_counter()
    main(job)
    seconds = time.perf_counter() - start
    return read_table(job.output.locations, "locations"), seconds


@pytest.fixture(scope="module")
def census(real_data, tmp_path_factory):
    """The recipe ssl4eco: every 23 km cell on land, with its true area, and the seconds it took."""
    out = tmp_path_factory.mktemp("census")
    recipe = yaml.safe_load((SCHEMA.parents[1] / "recipes" / "ssl4eco.yaml").read_text())
    options = recipe["datasets"]["ssl4eco"]["locations"]
    options = {key: value for key, value in options.items() if key not in ("land", "ecoregions", "mountains")}
    locations, seconds = sample(real_data, out, **options)
    cells = grid.cells(23_000)
    area = pd.Series(grid.cell_area_km2(cells), index=cells["cell_id"].astype(object))
    files = {name: json.loads((out / f"{name}.json").read_text()) for name in ("jobs", "sampling")}
    return locations.assign(area_km2=area.loc[locations["location_id"]].to_numpy()), seconds, files


def test_census_of_the_earths_land(census):
    locations, seconds, files = census
    peak_gb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    without = (locations["lat"] > -60).sum()
    unassigned = (locations["eco_id"] < 0).sum()
    print(
        f"\n{len(locations)} locations at 23 km, {without} without Antarctica "
        f"({without / len(locations):.1%}), {unassigned} in no ecoregion, "
        f"{locations['area_km2'].sum() / 1e6:.2f} M km2, {len(files['jobs']['shards'])} shards; "
        f"{seconds:.1f} s, peak {peak_gb:.2f} GB"
    )
    # Natural Earth's 1:110m land gives 277,595 centers and 256,476 without Antarctica
    assert len(locations) == pytest.approx(277_595, rel=0.01)
    assert without == pytest.approx(256_476, rel=0.01)
    # rows reach to 85 degrees: the land beyond, all Antarctic, is 1.2 M km2 of 146.83
    assert locations["area_km2"].sum() / 1e6 == pytest.approx(145.8, abs=0.3)
    assert unassigned < 0.003 * len(locations)
    assert seconds < 120 and peak_gb < 3


def test_biome_shares_are_those_of_the_area(census, real_data):
    """Share of places per biome within 0.5 percentage points of the biome's share of land area."""
    locations, _, _ = census
    areas = pd.read_csv(
        real_data / "ecoregions" / "ecoregion_areas_reference.csv", keep_default_na=False, na_values=[""]
    )
    ecoregions = gpd.read_parquet(real_data / "ecoregions" / "ecoregions2017_simplified.parquet")
    areas = ecoregions[["ECO_NAME", "BIOME_NAME"]].merge(areas[["ECO_NAME", "area_km2_full"]], on="ECO_NAME")
    areas = areas[areas["BIOME_NAME"] != "N/A"].groupby("BIOME_NAME")["area_km2_full"].sum()
    places = locations[locations["biome_name"].isin(areas.index)].groupby("biome_name").size()
    table = pd.DataFrame({"places": places / places.sum(), "area": areas / areas.sum()}) * 100
    table["difference"] = table["places"] - table["area"]
    print(f"\n{table.round(2).to_string()}")
    assert table["difference"].abs().max() < 0.5


def test_shares_beside_those_of_ssl4eo_s12(census, real_data):
    """The report's comparison: biomes and climate classes, the validation places of SSL4EO-S12 v1.1 as baseline."""
    locations, _, files = census
    folder = real_data / "ecoregions"
    compare = {
        "ecoregions": str(folder / "ecoregions2017_simplified.parquet"),
        "baseline": str(real_data / "sentinel2" / "ssl4eo_s12_v1.1_val_metadata.parquet"),
        "land_cover": str(folder / "koppen_geiger_0p5deg.tif"),
    }
    land = str(real_data / "land" / "ne_10m_land.parquet")
    dataset = Dataset("real", {}, locations=locations, land=land, sampling=files["sampling"], compare=compare)
    polygons = read_polygons(compare["ecoregions"], ["ECO_NAME", "BIOME_NAME"], key="ecoregions")
    baseline = representativeness.read_baseline(compare["baseline"], polygons)
    groups = pd.DataFrame(files["sampling"]["ecoregions"])
    shares = representativeness.share_table(groups, "biome_name", baseline=baseline["biome_name"])
    measured, _ = representativeness.measured_land(dataset, with_all=True)
    classes = representativeness.cover_shares(locations, measured, compare["land_cover"])
    told = (shares[["locations", "baseline"]].sub(shares["area"], axis=0)).abs().max()
    print(
        f"\n{shares.round(2).to_string()}\n{len(baseline)} places of the baseline in "
        f"{baseline.loc[baseline['eco_name'] != '', 'eco_name'].nunique()} ecoregions; largest differences of a "
        f"biome's share {told.round(2).to_dict()}, of a climate class's share of the locations "
        f"{(classes['locations'] - classes['area']).abs().max():.2f} points"
    )
    assert told["locations"] < 0.5 < 5 < told["baseline"]
    # classes of a raster of half a degree follow the land less closely than polygons do
    assert (classes["locations"] - classes["area"]).abs().max() < 0.5
    html = representativeness.representativeness_section(dataset)
    assert "Baseline %" in html and "land-cover raster" in html


def test_assignment_is_that_of_geopandas(census, real_data):
    locations, _, _ = census
    some = locations.iloc[:: max(len(locations) // 60_000, 1)]
    ecoregions = gpd.read_parquet(real_data / "ecoregions" / "ecoregions2017_simplified.parquet")
    joined = gpd.sjoin(some[["location_id", "eco_id", "geometry"]], ecoregions, predicate="within")
    once = joined[~joined["location_id"].duplicated(keep=False)]
    assert len(once) > 0.97 * len(some)
    assert (once["eco_id"] == once["ECO_ID"]).all()


def test_stratified_draw_hits_every_ecoregion_and_is_nested(census, real_data, tmp_path):
    locations, _, _ = census
    options = {"design": "stratified", "spacing_m": 23_000, "allocation": "sqrt", "min_per_stratum": 1}
    few, _ = sample(real_data, tmp_path / "few", n_locations=5_000, **options)
    many, seconds = sample(real_data, tmp_path / "many", n_locations=20_000, **options)
    strata = set(locations.loc[locations["eco_id"] >= 0, "stratum"])
    print(f"\n20,000 locations in {len(strata)} ecoregions that hold a cell: {seconds:.1f} s")
    assert set(few["stratum"]) == set(many["stratum"]) == strata
    assert set(few["location_id"]) <= set(many["location_id"])
    cells = locations[locations["eco_id"] >= 0].groupby("stratum").size()
    estimate = (1 / many["inclusion_probability"]).groupby(many["stratum"]).sum()
    np.testing.assert_allclose(estimate.sort_index(), cells.sort_index(), rtol=1e-9)


def test_ecoregions_without_a_center_are_listed_and_hit_inside_their_polygon(census, real_data, tmp_path):
    """All 847 polygons of the file, by place: polygon; the list has those the census lacks."""
    locations, _, _ = census
    options = {"design": "stratified", "spacing_m": 23_000, "n_locations": 20_000, "place": "polygon"}
    drawn, _ = sample(real_data, tmp_path, **options)
    facts = json.loads((tmp_path / "sampling.json").read_text())
    lacking = pd.DataFrame(facts["without_location"]).sort_values("area_km2", ascending=False)
    print(
        f"\n{drawn['eco_id'].nunique()} of 847 ecoregions hit; {len(lacking)} of them hold no cell center, "
        f"{lacking['area_km2'].sum():.0f} km2 in all; balance {facts['balance']}\n{lacking.to_string()}"
    )
    assert drawn["eco_id"].nunique() == 847 and lacking["is_placed"].all()
    assert set(lacking["stratum"]) | set(locations.loc[locations["eco_id"] >= 0, "stratum"]) == set(
        drawn["stratum"]
    )
    assert facts["balance"]["sample"] < 0.6 * facts["balance"]["simple_random"]


def test_land_options_on_the_real_earth(census, real_data, tmp_path):
    locations, _, _ = census
    land = real_data / "land"
    exclude = [str(land / f"ne_10m_{name}.parquet") for name in ("lakes", "glaciated_areas")]
    options = {"design": "grid", "spacing_m": 23_000}
    dry, _ = sample(real_data, tmp_path / "dry", **options, exclude=[*exclude, [-180, -90, 180, -60]])
    half, seconds = sample(real_data, tmp_path / "half", **options, land_fraction=0.5)
    moved, _ = sample(real_data, tmp_path / "moved", **options, place="random_offset")
    area = json.loads((tmp_path / "moved" / "sampling.json").read_text())["land_area_km2"] / 1e6
    print(
        f"\n{len(dry)} locations without lakes, glaciers and Antarctica; {len(half)} with half of the patch on "
        f"land ({seconds:.0f} s), of them {len(set(half['location_id']) - set(locations['location_id']))} at sea; "
        f"{len(moved)} at a random offset, standing for {area:.2f} M km2"
    )
    assert set(dry["location_id"]) < set(locations["location_id"]) and dry["lat"].min() > -60
    assert len(set(half["location_id"]) ^ set(locations["location_id"])) < 0.01 * len(locations)
    assert area == pytest.approx(145.8, abs=0.3)


def test_full_areas_weigh_the_simplified_polygons(real_data, tmp_path):
    """Proportional allocation follows the table of full areas, within what rounding allows."""
    areas = pd.read_csv(real_data / "ecoregions" / "ecoregion_areas_reference.csv", keep_default_na=False)
    areas = areas.rename(columns={"ECO_NAME": "stratum", "area_km2_full": "area_km2"})
    areas.loc[areas["area_km2"] == "", "area_km2"] = areas["area_km2_simplified"].astype(str)
    areas[["stratum", "area_km2"]].to_csv(tmp_path / "areas.csv", index=False)
    drawn, _ = sample(
        real_data, tmp_path, design="stratified", spacing_m=23_000, n_locations=20_000, place="polygon",
        allocation="proportional", strata="eco_name", strata_areas=str(tmp_path / "areas.csv"),
    )  # fmt: skip
    expected = areas.set_index("stratum")["area_km2"].astype(float)
    expected = 20_000 * expected / expected.sum()
    counts = drawn["stratum"].value_counts().reindex(expected.index)
    # the minimum of 1 and the cells there are bind in small strata only
    large = expected > 20
    assert (counts[large] / expected[large]).between(0.93, 1.07).all()


def corners(cells, spacing_m):
    """South-west corner of cells named by id: lat, lon, EPSG code of its UTM zone."""
    row, column = np.array([grid.parse_cell(name) for name in cells]).T
    south, west = row * 180 / grid.n_rows(spacing_m), column * 360 / grid.n_columns(row, spacing_m)
    return south, west, [f"EPSG:{code}" for code in grid.utm_epsg(west, south)]


def test_published_cells_are_ours(real_data):
    """All 19 rows of the file: 13 cells, ids, corners and zones."""
    published = pd.read_csv(real_data / "grid" / "majortom_published_cells.csv")
    found = grid.cell_at(published["lon"], published["lat"], 10_000)
    assert found.tolist() == published["grid_cell"].tolist()
    south, west, epsg = corners(found, 10_000)
    np.testing.assert_allclose([south, west], published[["cell_lat", "cell_lon"]].T, rtol=0, atol=1e-9)
    assert epsg == published["ref_epsg"].tolist()


def test_reference_vectors_are_ours(real_data):
    """All 2,640: id, south-west corner and UTM zone."""
    vectors = pd.read_csv(real_data / "grid" / "majortom_reference_vectors.csv.gz")
    for distance_km, rows in vectors.groupby("dist_km"):
        found = grid.cell_at(rows["lon"], rows["lat"], distance_km * 1000, majortom_edges=True)
        wrong = rows[found != rows["cell"]].assign(found=found[found != rows["cell"]])
        assert wrong.empty, f"{len(wrong)} of {len(rows)} differ:\n{wrong.head(20).to_string()}"
        south, west, epsg = corners(found, distance_km * 1000)
        np.testing.assert_allclose([south, west], rows[["cell_lat", "cell_lon"]].T, rtol=0, atol=1e-9)
        assert epsg == rows["epsg"].tolist()


@pytest.mark.parametrize(
    ("spacing_m", "n_centers", "n_elsewhere"), [(100_000, 14_746, 13_681), (23_000, 277_595, 256_476)]
)
def test_centers_on_coarse_land_are_those_of_the_reference(real_data, spacing_m, n_centers, n_elsewhere):
    """Natural Earth 1:110m. Centers on the antimeridian, where that land is cut, are on land with us."""
    ground = Ground(read_polygons(real_data / "land" / "ne_110m_land.parquet", key="land"))
    cells = land_cells(spacing_m, ground=ground)
    at_seam = (cells["lon"] == -180).sum()
    assert 0 <= len(cells) - n_centers <= at_seam <= 11
    assert 0 <= (cells["lat"] > -60).sum() - n_elsewhere <= at_seam


def test_grid_sizes_are_ours(real_data):
    for row in pd.read_csv(real_data / "grid" / "majortom_grid_sizes.csv").itertuples():
        cells = grid.cells(row.dist_km * 1000)
        assert len(cells) == row.n_cells and cells["row"].nunique() == row.n_rows
        assert cells["south"].iloc[[0, -1]].tolist() == pytest.approx([row.first_lat, row.last_lat])
