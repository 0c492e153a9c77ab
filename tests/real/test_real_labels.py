"""The label rules against rows of the published index files, and BigEarthNet's own patches.

What can be checked without the sources: tile and place agree; images lie in the window of their task; CHELSA's
values are whole numbers at its scale and offset; arctic types follow from the codes and points lie on the
map's grid; forest points are centers of cells. What needs the source, and is not checked here: the biome and the
ecoregion at a point (TEOW), the arctic code (the CAVM raster), the climate values, the species of a cell.
"""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pyproj
import pytest
import rasterio
import yaml

from workflow_scripts import draw_points, import_archive, import_patches, label_locations
from workflow_scripts.core import grid, store, tables
from workflow_scripts.core.classes import CLASS_TABLES, CODE_MAPS
from workflow_scripts.core.polygons import locate, read_polygons
from workflow_scripts.define_seasons import fixed_seasons

pytestmark = pytest.mark.real
ROOT = Path(__file__).parents[2]
RECIPE = yaml.safe_load((ROOT / "recipes" / "paper-tasks.yaml").read_text())
CAVM_CRS = "+proj=laea +lat_0=90 +lon_0=180 +R=6370997 +units=m"
SAMPLES = ("biomes", "climate", "arctic", "euforest")


@pytest.fixture(scope="module")
def samples(real_data):
    return {name: pd.read_csv(real_data / "labels" / f"{name}_sample.csv") for name in SAMPLES}


@pytest.mark.parametrize("name", SAMPLES)
def test_index_files_are_read_as_datasets(real_data, tmp_path, samples, name):
    """Every row becomes a location with all its labels; copies of a place share their place in folds."""
    path = str(real_data / "labels" / f"{name}_sample.csv")
    points = tmp_path / "points.parquet"
    draw_points.main(
        SimpleNamespace(
            params=SimpleNamespace(options={"rule": "index", "path": path}, seed=1),
            output=SimpleNamespace(points=str(points)),
        )
    )
    drawn = pd.read_parquet(points)
    labels = label_locations.with_files({"source": "reference_index", "path": path}, [], str(points))
    found = label_locations.label(drawn[["location_id", "lon", "lat"]], labels)
    rows = samples[name]
    assert found["location_id"].tolist() == [f"{ind:06d}" for ind in rows["ind"]]
    for column in set(rows) & {"biome", "five_types", "temp", "prec", "evap", "swb"}:
        np.testing.assert_array_equal(found[column], rows[column])
    if name == "euforest":
        assert found["genus"].iloc[0] == ["Eucalyptus", "Pinus"]


@pytest.mark.parametrize("name", ["biomes", "arctic", "euforest"])
def test_tiles_agree_with_places(samples, name):
    """Every point lies in its image's MGRS tile; nearly all of a patch around it does, too."""
    rows = samples[name].drop_duplicates(["lon", "lat"]).reset_index(drop=True)
    said = rows["image_id_1"].str.extract(r"_T(\w{5})$")[0]
    for lon, lat, tile in zip(rows["lon"], rows["lat"], said, strict=True):
        epsg, west, south, east, north = grid.mgrs_tile_bounds(tile)
        x, y = grid.project(lon, lat, epsg)
        assert west <= x <= east and south <= y <= north, (lon, lat, tile)
    whole = grid.mgrs_tiles(rows["lon"].to_numpy(), rows["lat"].to_numpy(), 2640)
    share = np.mean([tile in some for tile, some in zip(said, whole, strict=True)])
    print(f"{name}: {share:.1%} of {len(rows)} images hold the whole patch")
    assert share > 0.9


@pytest.mark.parametrize("name", ["biomes", "arctic"])
def test_images_lie_in_the_tasks_window(samples, name):
    """Within a month of mid July in the north, of mid January in the south."""
    rows = samples[name]
    options = RECIPE["datasets"]["biomes" if name == "biomes" else "cavm"]["seasons"]
    windows = fixed_seasons(
        pd.DataFrame({"location_id": rows["ind"].astype(str), "lat": rows["lat"]}),
        options["table"],
        names=options["names"],
    )
    day = pd.to_datetime(rows["image_id_1"].str[:8]).dt.dayofyear.to_numpy()
    start, end = windows["start_doy"].to_numpy(), windows["end_doy"].to_numpy()
    inside = np.where(start < end, (day >= start) & (day <= end), (day >= start) | (day <= end))
    assert inside.mean() == 1, rows[~inside]


def test_climate_values_are_whole_numbers_of_the_raster(samples):
    """The recipe's scale and offset turn them back into what CHELSA stores."""
    labels = RECIPE["datasets"]["biomes"]["labels"]
    for name in ("temp", "prec", "evap", "swb"):
        raw = (samples["climate"][name] - labels[name]["offset"]) / labels[name]["scale"]
        np.testing.assert_allclose(raw, np.round(raw), atol=1e-6, err_msg=name)
        assert (raw.round() >= (-32768 if name == "swb" else 0)).all() and (raw < 65535).all()


def test_arctic_types_follow_from_codes_and_points_from_the_grid(samples):
    rows = samples["arctic"]
    assert rows["type"].map(CODE_MAPS["cavm-types"]).tolist() == rows["five_types"].tolist()
    found = label_locations.map_codes(rows["type"], "cavm-types")
    assert found.tolist() == rows["five_types"].tolist()
    x, y = pyproj.Transformer.from_crs(4326, CAVM_CRS, always_xy=True).transform(rows["lon"], rows["lat"])
    off = np.abs(np.stack([x, y]) - np.round(np.stack([x, y]) / 1000) * 1000)
    assert off.max() < 1.0  # coordinates are given to 1e-8 degrees, the map's datum is a sphere


def test_forest_points_are_centers_of_cells(samples):
    x, y = grid.project(samples["euforest"]["lon"], samples["euforest"]["lat"], 3035)
    is_center = draw_points.cell_centers(pd.Series(np.round(x)), pd.Series(np.round(y)))
    assert is_center.all()


def test_biomes_agree_with_resolve_as_far_as_the_two_maps_do(samples, real_data):
    """TEOW is not at hand; RESOLVE 2017, which revised it, gives most points the same biome."""
    path = real_data / "ecoregions" / "ecoregions2017_simplified.parquet"
    polygons = read_polygons(path, ["BIOME_NUM"], key="ecoregions")
    places = samples["biomes"].drop_duplicates(["lon", "lat"])
    row = locate(places["lon"], places["lat"], polygons)
    found = np.where(row >= 0, polygons["BIOME_NUM"].to_numpy()[np.maximum(row, 0)], -1)
    share = (found == places["biome"]).mean()
    print(f"biome equal in TEOW (index file) and RESOLVE: {share:.1%} of {len(places)} points")
    assert share > 0.7
    codes = {code for code, _ in CLASS_TABLES["teow-biomes"]}
    assert set(samples["biomes"]["biome"]) <= codes


def test_real_patches_of_bigearthnet(real_data, tmp_path):
    """Four published patches: every pixel of every band, place, date and the 19 classes."""
    archive = real_data / "sentinel2" / "bigearthnet_example"
    names = ("locations.parquet", "jobs.json", "samples.parquet", "labels.parquet")
    output = SimpleNamespace(**{name.split(".")[0]: str(tmp_path / name) for name in names})
    output.metadata = str(tmp_path / "patches.zarr" / "zarr.json")
    params = SimpleNamespace(
        options={"format": "bigearthnet", "path": str(archive)}, codec="blosc-lz4-bitshuffle"
    )
    wildcards = SimpleNamespace(dataset="ben", shard="0")
    import_archive.main(SimpleNamespace(input=[], output=output, params=params, wildcards=wildcards))
    import_patches.main(
        SimpleNamespace(
            input=SimpleNamespace(samples=output.samples, store=output.metadata),
            output=SimpleNamespace(retrieved=str(tmp_path / "retrieved/0.parquet")),
            params=SimpleNamespace(format="bigearthnet", path=str(archive)),
            wildcards=wildcards,
        )
    )
    table = tables.read_table(tmp_path / "retrieved/0.parquet", "retrieved").set_index("location_id")
    dataset = store.open_store(tmp_path / "patches.zarr")
    labels = pd.read_parquet(output.labels).set_index("location_id")
    assert len(table) == 4 and (table["status"] == "ok").all()
    for row, name in enumerate(dataset["location_id"].values.tolist()):
        metadata = json.loads((archive / name / f"{name}_labels_metadata.json").read_text())
        corner = metadata["coordinates"]
        assert (table.loc[name, "origin_x"], table.loc[name, "origin_y"]) == (corner["ulx"], corner["uly"])
        assert table.loc[name, "datetime"] == pd.Timestamp(metadata["acquisition_date"])
        assert labels.loc[name, "labels"] is not None and len(labels.loc[name, "labels"])
        x, y = grid.project(
            dataset["lon"].values[row], dataset["lat"].values[row], int(table.loc[name, "epsg"])
        )
        np.testing.assert_allclose([x, y], [corner["ulx"] + 600, corner["uly"] - 600], atol=0.01)
        for array in ("dn10", "dn20", "dn60"):
            for position, band in enumerate(dataset[array.replace("dn", "band")].values):
                with rasterio.open(archive / name / f"{name}_{band}.tif") as file:
                    np.testing.assert_array_equal(dataset[array].values[row, 0, position], file.read(1))
        assert (
            store.reflectance(dataset.isel(location=row, season=0), ["B08"]).max() < 2
        )  # one patch is of snow
