"""Labels from rasters, polygons and tables, each against values known in advance."""

from types import SimpleNamespace

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import rasterio
import shapely
from rasterio.transform import from_origin

from workflow_scripts import label_locations
from workflow_scripts.core import rasters
from workflow_scripts.core.tables import read_table
from workflow_scripts.label_locations import label


def locations(lon, lat):
    ids = [f"l{k}" for k in range(len(lon))]
    return pd.DataFrame({"location_id": ids, "lon": np.asarray(lon, float), "lat": np.asarray(lat, float)})


def write_raster(path, values, *, crs="EPSG:4326", transform=None, nodata=None, scale=None):
    transform = transform or from_origin(0, 10, 1, 1)
    values = np.atleast_3d(values.T).T if values.ndim == 2 else values
    with rasterio.open(
        path, "w", driver="GTiff", height=values.shape[1], width=values.shape[2], count=values.shape[0],
        dtype=values.dtype, crs=crs, transform=transform, nodata=nodata,
    ) as file:  # fmt: skip
        file.write(values)
        if scale:
            file.scales, file.offsets = [scale[0]], [scale[1]]
    return str(path)


def test_raster_gives_the_pixel_that_holds_the_point(tmp_path, monkeypatch):
    monkeypatch.setattr(rasters, "WINDOW_PIXELS", 7)
    values = np.arange(10 * 20, dtype="float32").reshape(10, 20) / 4
    path = write_raster(tmp_path / "a.tif", values)
    rng = np.random.default_rng(0)
    points = locations(rng.uniform(0, 20, 300), rng.uniform(0, 10, 300))
    found = label(points, {"t": {"source": "raster", "path": path}})["t"]
    with rasterio.open(path) as file:
        expected = [v[0] for v in file.sample(points[["lon", "lat"]].to_numpy())]
    np.testing.assert_array_equal(found, expected)
    outside = label(
        locations([-0.01, 20.01, 5, 5], [5, 5, 10.5, -0.5]), {"t": {"source": "raster", "path": path}}
    )
    assert outside["t"].isna().all()


def test_raster_codes_stay_integers_and_no_data_is_missing(tmp_path):
    codes = np.full((10, 10), 3, "uint8")
    codes[:, 5:] = 0
    path = write_raster(tmp_path / "codes.tif", codes, nodata=0)
    found = label(locations([1, 7, 50], [5, 5, 5]), {"code": {"source": "raster", "path": path}})["code"]
    assert found.dtype == "int64" and found.tolist() == [3, -1, -1]
    floats = np.where(codes > 0, 1.5, -9999).astype("float32")
    path = write_raster(tmp_path / "floats.tif", floats, nodata=-9999)
    found = label(locations([1, 7], [5, 5]), {"t": {"source": "raster", "path": path}})["t"]
    np.testing.assert_array_equal(found, [1.5, np.nan])
    cold = np.where(codes > 0, -1, 12).astype("int16")
    path = write_raster(tmp_path / "cold.tif", cold)
    found = label(locations([1, 7, 50], [5, 5, 5]), {"t": {"source": "raster", "path": path}})["t"]
    np.testing.assert_array_equal(found, [-1.0, 12.0, np.nan])


def test_raster_scale_band_and_projection(tmp_path):
    raw = np.full((10, 10), 2812, "uint16")
    path = write_raster(tmp_path / "scaled.tif", raw, nodata=0, scale=(0.1, -273.15))
    found = label(locations([5], [5]), {"t": {"source": "raster", "path": path}})["t"]
    assert found[0] == pytest.approx(8.05)
    bands = np.stack([np.full((100, 100), 1, "int32"), np.arange(10_000, dtype="int32").reshape(100, 100)])
    x, y = 465_000, 5_250_000
    path = write_raster(tmp_path / "utm.tif", bands, crs="EPSG:32632", transform=from_origin(x, y, 100, 100))
    lon, lat = rasterio.warp.transform("EPSG:32632", "EPSG:4326", [x + 1250], [y - 3350])
    found = label(locations(lon, lat), {"t": {"source": "raster", "path": path, "column": 2}})["t"]
    assert found.tolist() == [3312]


def test_polygons_give_their_value_and_overlaps_the_lowest(tmp_path):
    path = tmp_path / "areas.parquet"
    gpd.GeoDataFrame(
        {"CODE": [9, 4, 7], "RAIN": [0.5, np.nan, 2.5], "NAME": ["a", "b", "c"]},
        geometry=[shapely.box(0, 0, 2, 1), shapely.box(1, 0, 3, 1), shapely.box(5, 0, 6, 1)],
        crs=4326,
    ).to_crs(3857).to_parquet(path)
    entry = {"source": "vector", "path": str(path)}
    points = locations([0.5, 1.5, 2.5, 4, 5.5], [0.5] * 5)
    found = label(points, {"code": entry, "rain": entry | {"column": "RAIN"}})
    assert found["code"].tolist() == [9, 4, 4, -1, 7] and found["code"].dtype == "int64"
    np.testing.assert_array_equal(found["rain"], [0.5, 0.5, np.nan, np.nan, 2.5])
    with pytest.raises(ValueError, match=r"labels\.n: .*column 'NAME' holds text"):
        label(points, {"n": entry | {"column": "NAME"}})


def test_table_is_joined_by_id(tmp_path, caplog):
    caplog.set_level("INFO")
    path = tmp_path / "table.csv"
    path.write_text("location_id,code,swb,whole\nl2,5,0.5,2.0\nl0,,1.5,3.0\nother,9,,4.0\n")
    entry = {"source": "table", "path": str(path)}
    found = label(locations([0, 1, 2], [0, 0, 0]), {"code": entry, "swb": entry, "whole": entry})
    assert found["code"].tolist() == [-1, -1, 5] and found["code"].dtype == "int64"
    np.testing.assert_array_equal(found["swb"], [1.5, np.nan, 0.5])
    np.testing.assert_array_equal(found["whole"], [3.0, np.nan, 2.0])
    assert found["whole"].dtype == "float64"
    assert "target 'code': 2 of 3 locations without a value" in caplog.text
    pd.DataFrame({"location_id": ["l0", "l1"], "code": [1, 2]}).to_parquet(tmp_path / "t.parquet")
    found = label(locations([0, 1], [0, 0]), {"code": entry | {"path": str(tmp_path / "t.parquet")}})
    assert found["code"].tolist() == [1, 2]


def test_numeric_ids_of_a_table_are_text(tmp_path):
    (tmp_path / "t.csv").write_text("location_id,code\n007,5\n8,6\n")
    points = locations([0, 1], [0, 0]).assign(location_id=["8", "007"])
    found = label(points, {"code": {"source": "table", "path": str(tmp_path / "t.csv")}})
    assert found["code"].tolist() == [6, 5]


def test_what_is_wrong_names_target_and_file(tmp_path):
    points = locations([0], [0])
    (tmp_path / "twice.csv").write_text("location_id,code\nl0,1\nl0,2\n")
    (tmp_path / "bad.tif").write_text("no raster")
    plain = write_raster(tmp_path / "plain.tif", np.ones((3, 3), "uint8"), crs=None)
    good = write_raster(tmp_path / "good.tif", np.ones((3, 3), "uint8"))
    cases = [
        ("table", "twice.csv", None, ValueError, r"labels\.code: .* repeats 1 location_id"),
        ("table", "none.csv", None, FileNotFoundError, r"labels\.code: no file"),
        ("table", "twice.csv", "kind", ValueError, r"lacks the column\(s\) \['kind'\]"),
        ("raster", "none.tif", None, FileNotFoundError, r"labels\.code: no file"),
        ("raster", "bad.tif", None, ValueError, "not a readable raster"),
        ("raster", plain, None, ValueError, "no coordinate reference system"),
        ("raster", good, 2, ValueError, r"has no band 2; it has 1 band"),
        ("vector", "none.parquet", None, FileNotFoundError, r"labels\.code: .*no file"),
    ]
    for source, name, column, kind, message in cases:
        entry = {"source": source, "path": str(tmp_path / name), "column": column}
        with pytest.raises(kind, match=message):
            label(points, {"code": entry})


def test_main_writes_the_table(tmp_path):
    from workflow_scripts.core.tables import COLUMNS, write_table

    plain = {"shard": 0, "eco_id": -1, "biome_num": -1, "is_mountain": False}
    plain |= {"inclusion_probability": 1.0, "distance_to_evaluation_km": np.nan}
    points = locations([0.5, 1.5], [0.5, 0.5]).assign(**plain)
    for name in COLUMNS["locations"]:
        if name not in points.columns:
            points[name] = ""
    points["geometry"] = shapely.points(points["lon"], points["lat"])
    write_table(points, tmp_path / "locations.parquet", "locations")
    (tmp_path / "t.csv").write_text("location_id,code\nl1,5\n")
    labels = {"code": {"source": "table", "path": str(tmp_path / "t.csv")}}
    label_locations.main(
        SimpleNamespace(
            input=SimpleNamespace(
                locations=tmp_path / "locations.parquet", sources=[str(tmp_path / "t.csv")], points=[]
            ),
            output=SimpleNamespace(labels=tmp_path / "labels.parquet"),
            params=SimpleNamespace(labels=labels),
        )
    )
    found = read_table(tmp_path / "labels.parquet", "labels")
    assert found["location_id"].tolist() == ["l0", "l1"] and found["code"].tolist() == [-1, 5]
