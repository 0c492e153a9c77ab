"""Places and labels by rule, each against a source made for it."""

from types import SimpleNamespace

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import rasterio
import shapely
from rasterio.transform import from_origin

from workflow_scripts import draw_points, label_locations
from workflow_scripts.core import grid
from workflow_scripts.core.classes import BIGEARTHNET_19, CLASS_TABLES, CODE_MAPS, CORINE_DROPPED

CAVM_CRS = "+proj=laea +lat_0=90 +lon_0=180 +R=6370997 +units=m"


def draw(tmp_path, seed=1, **options):
    job = SimpleNamespace(
        params=SimpleNamespace(options=options, seed=seed),
        output=SimpleNamespace(points=str(tmp_path / "points.parquet")),
    )
    draw_points.main(job)
    return pd.read_parquet(tmp_path / "points.parquet")


@pytest.fixture
def biomes(tmp_path):
    """Two biomes of equal area on the sphere, one twice as large, and a lake."""
    path = tmp_path / "biomes.gpkg"
    north = np.degrees(np.arcsin(0.5))
    gpd.GeoDataFrame(
        {"BIOME": [1.0, 4.0, 13.0, 98.0]},
        geometry=[
            shapely.box(0, 0, 60, north),
            shapely.box(0, north, 60, 90),
            shapely.box(60, 0, 120, 90),
            shapely.box(-60, 0, 0, 90),
        ],
        crs=4326,
    ).to_file(path)
    return str(path)


def test_points_on_the_sphere_fill_areas_not_degrees(tmp_path, biomes):
    """Shares follow the area; lakes and the sea have none; more points begin with the fewer."""
    options = {"rule": "sphere", "path": biomes, "column": "BIOME", "drop": [98]}
    points = draw(tmp_path, n_points=6000, **options)
    assert len(points) == 6000 and points["location_id"].is_unique and (points["lon"] >= 0).all()
    locations = points[["location_id", "lon", "lat"]]
    found = label_locations.label(locations, {"b": {"source": "vector", "path": biomes, "column": "BIOME"}})[
        "b"
    ]
    shares = found.value_counts(normalize=True)
    # three standard deviations of 6000 draws
    np.testing.assert_allclose(shares[[1, 4, 13]], [0.25, 0.25, 0.5], atol=0.02)
    fewer = draw(tmp_path, n_points=100, **options)
    pd.testing.assert_frame_equal(fewer, points.iloc[:100])
    assert not draw(tmp_path, seed=2, n_points=100, **options)["lon"].equals(fewer["lon"])


def test_missing_options_and_hopeless_rules_are_named(tmp_path, biomes, monkeypatch):
    with pytest.raises(ValueError, match=r"rule 'sphere' needs \['n_points', 'column'\]"):
        draw(tmp_path, rule="sphere", path=biomes)
    monkeypatch.setattr(draw_points, "MAX_TRIES", 10)
    with pytest.raises(ValueError, match="random points lie in polygons"):
        draw(tmp_path, rule="sphere", path=biomes, column="BIOME", drop=[1, 4, 13, 98], n_points=5)


def test_pixels_of_the_arctic_map(tmp_path):
    """Only codes with a type are drawn, at pixel centers, each pixel once; the label is the type's."""
    codes = np.array([1, 21, 24, 31, 33, 34, 41, 43, 5, 91, 92, 93, 99, 127, 127, 127], np.uint8).reshape(
        4, 4
    )
    path = tmp_path / "cavm.tif"
    with rasterio.open(
        path, "w", driver="GTiff", height=4, width=4, count=1, dtype="uint8", crs=CAVM_CRS,
        transform=from_origin(-1_000_500, 2_000_500, 1000, 1000), nodata=127,
    ) as file:  # fmt: skip
        file.write(codes, 1)
    points = draw(tmp_path, rule="raster", path=str(path), map="cavm-types", n_points=100)
    assert len(points) == 9
    x, y = rasterio.warp.transform("EPSG:4326", CAVM_CRS, points["lon"], points["lat"])
    assert np.abs(np.round(np.array([x, y]) / 1000) * 1000 - [x, y]).max() < 0.01
    label = {"t": {"source": "raster", "path": str(path), "map": "cavm-types"}}
    found = label_locations.label(points[["location_id", "lon", "lat"]], label)["t"]
    assert sorted(found) == [1, 1, 2, 2, 3, 4, 4, 5, 5]
    corner = pd.DataFrame({"location_id": ["lake"], "lon": [0.0], "lat": [0.0]})
    corner["lon"], corner["lat"] = rasterio.warp.transform(CAVM_CRS, "EPSG:4326", [-999_000], [1_998_000])
    assert label_locations.label(corner, label)["t"].tolist() == [-1]  # fresh water has no type


def test_cells_of_forest_occurrences(tmp_path):
    """Species and genera that occur often enough, by cell; other rows are counted and left out."""
    rows = [(4_000_500 + 1000 * i, 3_000_500, "Pinus sylvestris") for i in range(5)]
    rows += [(4_000_500 + 1000 * i, 3_000_500, "Abies alba") for i in range(3)]
    rows += [(4_000_500, 3_000_500, "Abies alba")]  # twice in a cell is once
    rows += [(4_050_500, 3_000_500, "Pinus nigra"), (4_090_500, 3_000_500, "Tilia cordata")]
    rows += [(4_000_400, 3_000_500, "Pinus sylvestris")]  # no center
    table = pd.DataFrame(rows, columns=["X", "Y", "SPECIES NAME"]).assign(COUNTRY="X", EEO=0)
    table.to_csv(tmp_path / "forest.csv", index=False)
    options = {"rule": "cells", "path": str(tmp_path / "forest.csv"), "min_occurrences": 4}
    points = draw(tmp_path, **options).set_index("location_id")
    assert len(points) == 6 and "E4090500N3000500" not in points.index
    assert list(points.loc["E4000500N3000500", "species"]) == ["Pinus sylvestris"]
    # Pinus nigra is rare, its genus is not
    assert list(points.loc["E4050500N3000500", "species"]) == []
    assert list(points.loc["E4050500N3000500", "genus"]) == ["Pinus"]
    x, y = grid.project(points["lon"], points["lat"], 3035)
    np.testing.assert_allclose([x[0], y[0]], [4_000_500, 3_000_500], atol=0.01)
    more = draw(tmp_path, **{**options, "min_occurrences": 3}).set_index("location_id")
    assert list(more.loc["E4000500N3000500", "species"]) == ["Abies alba", "Pinus sylvestris"]


def test_published_index_gives_places_and_all_its_labels(tmp_path):
    """`labels: {source: reference_index}`: numbers, texts and lists; copies of a place are all kept."""
    (tmp_path / "index.csv").write_text(
        "ind,lon,lat,genus,biome,temp,image_id_1\n"
        '2,-9.4,38.7,"Eucalyptus, Pinus",4,5.45,x\n30,8.5,47.1,Pinus,13,-1.5,y\n31,8.5,47.1,Pinus,13,-1.5,z\n'
    )
    points = draw(tmp_path, rule="index", path=str(tmp_path / "index.csv"))
    assert points["location_id"].tolist() == ["000002", "000030", "000031"]
    labels = label_locations.with_files(
        {"source": "reference_index", "path": "x"}, [], str(tmp_path / "points.parquet")
    )
    assert list(labels) == ["genus", "biome", "temp"]
    found = label_locations.label(points[["location_id", "lon", "lat"]].iloc[::-1], labels)
    assert found["genus"].tolist() == [["Pinus"], ["Pinus"], ["Eucalyptus", "Pinus"]]
    assert found["biome"].tolist() == [13, 13, 4] and found["temp"].tolist() == [-1.5, -1.5, 5.45]
    (tmp_path / "twice.csv").write_text("ind,lon,lat,biome\n1,0,0,4\n1,0,1,4\n")
    with pytest.raises(ValueError, match="repeats 1 `ind`"):
        draw(tmp_path, rule="index", path=str(tmp_path / "twice.csv"))


def test_text_and_lists_of_a_users_table(tmp_path):
    """A class may be a word, several may stand in one text; what is missing stays missing."""
    (tmp_path / "mine.csv").write_text(
        "location_id,tree,all,split\na,oak,oak; fir ;oak,train\nb,,,test\nc,fir,fir,train\n"
    )
    entry = {"source": "table", "path": str(tmp_path / "mine.csv")}
    points = pd.DataFrame({"location_id": ["c", "b", "a", "d"], "lon": 0.0, "lat": 0.0})
    found = label_locations.label(points, {"tree": entry, "all": {**entry, "separator": ";"}, "split": entry})
    assert found["tree"].tolist() == ["fir", "", "oak", ""]
    assert found["all"].tolist() == [["fir"], None, ["oak", "fir"], None]
    assert found["split"].tolist() == ["train", "test", "train", ""]


def test_whole_numbers_of_a_climate_raster_are_decoded_as_told(tmp_path):
    """Scale and offset of the entry count, not those of the file, and never both."""
    path = tmp_path / "bio1.tif"
    with rasterio.open(
        path, "w", driver="GTiff", height=2, width=2, count=1, dtype="uint16", crs="EPSG:4326",
        transform=from_origin(0, 2, 1, 1), nodata=65535,
    ) as file:  # fmt: skip
        file.write(np.array([[2786, 65535], [0, 3000]], np.uint16), 1)
        file.scales, file.offsets = [0.1], [-273.15]
    points = pd.DataFrame({"location_id": ["a", "b"], "lon": [0.5, 1.5], "lat": [1.5, 1.5]})
    entry = {"source": "raster", "path": str(path)}
    told = label_locations.label(points, {"t": {**entry, "scale": 0.1, "offset": -273.15}})["t"]
    assert told[0] == pytest.approx(5.45) and np.isnan(told[1])
    assert label_locations.label(points, {"t": entry})["t"][0] == pytest.approx(5.45)
    raw = label_locations.label(points, {"t": {**entry, "scale": 1, "offset": 0}})["t"]
    assert raw.tolist() == [2786, -1]


def test_class_tables_are_whole():
    """Every raw code leads to a class of its table; BigEarthNet's 43 labels are all accounted for."""
    assert set(CODE_MAPS["cavm-types"].values()) == {code for code, _ in CLASS_TABLES["cavm-types"]}
    names = {code for code, _ in CLASS_TABLES["bigearthnet-19"]}
    assert set(BIGEARTHNET_19.values()) == names and len(names) == 19
    corine = set(BIGEARTHNET_19) - (
        names - {label for label, name in BIGEARTHNET_19.items() if label == name}
    )
    merged = {"Urban fabric", "Arable land", "Permanent crops", "Inland wetlands", "Coastal wetlands"}
    merged |= {"Inland waters", "Marine waters", "Natural grassland and sparsely vegetated areas"}
    merged |= {"Moors, heathland and sclerophyllous vegetation", "Transitional woodland, shrub"}
    assert len((corine - merged) | set(CORINE_DROPPED)) == 43
    assert len(CLASS_TABLES["teow-biomes"]) == 15 and len(CLASS_TABLES["treesatai-genera"]) == 15
