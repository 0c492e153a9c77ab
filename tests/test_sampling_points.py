"""Points the user brings, in every format, and what is said of wrong ones."""

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest

from workflow_scripts.core import grid
from workflow_scripts.sampling.points import distance_to_points_km, read_points

KEY = "locations.path"


def table():
    return pd.DataFrame(
        {"location_id": ["007", "NA", "x 3"], "lon": [8.45, -60, 180], "lat": [47.36, -3.1, -90], "more": 1}
    )


@pytest.mark.parametrize("suffix", ["csv", "parquet", "geojson", "gpkg", "geo.parquet", "utm.gpkg"])
def test_every_format_gives_the_same_points(tmp_path, suffix):
    path = tmp_path / f"sites.{suffix}"
    source = table()
    if suffix in ("csv",):
        source.to_csv(path, index=False)
    elif suffix == "parquet":
        source.to_parquet(path)
    else:
        frame = gpd.GeoDataFrame(
            source.drop(columns=["lon", "lat"]),
            geometry=gpd.points_from_xy(source["lon"], source["lat"]),
            crs=4326,
        )
        if suffix == "utm.gpkg":
            frame.to_crs("ESRI:54034").to_file(path)
        elif suffix == "geo.parquet":
            frame.to_parquet(path)
        else:
            frame.to_file(path)
    points = read_points(path, key=KEY)
    assert points.columns.tolist() == ["location_id", "lon", "lat"]
    assert points["location_id"].tolist() == ["007", "NA", "x 3"]
    np.testing.assert_allclose(points[["lon", "lat"]], source[["lon", "lat"]], atol=1e-6)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("location_id,lon\na,1\n", r"lacks the column\(s\) \['lat'\]; it has \['location_id', 'lon'\]"),
        ("site,longitude,latitude\na,1,2\n", r"lacks the column\(s\) \['location_id', 'lon', 'lat'\]"),
        ("location_id,lon,lat\n", "holds no points"),
        ("", "is empty"),
        ("location_id,lon,lat\na,1,2\nb,3,4\na,5,6\n", r"repeats 1 location_id\(s\): 'a'"),
        ("location_id,lon,lat\na,1,2\n,3,4\n", r"1 row\(s\) without a location_id"),
        ("location_id,lon,lat\na,1,2\nb,,4\n", r"1 value\(s\) of 'lon' .*\(b: ''\)"),
        ("location_id,lon,lat\na,1,2\nb,east,4\n", r"1 value\(s\) of 'lon' .*\(b: 'east'\)"),
        ("location_id,lon,lat\na,1,2\nb,3,inf\n", "'lat' that are no number"),
        ("location_id,lon,lat\na,1,2\nb,181,4\n", r"1 of 2 points lie outside .*b: lon 181, lat 4"),
        ("location_id,lon,lat\na,47,-122\n", r"a: lon 47, lat -122.*swapped"),
    ],
)
def test_wrong_points_are_named(tmp_path, text, message):
    path = tmp_path / "sites.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
        read_points(path, key=KEY)
    assert str(caught.value).startswith(f"{KEY}: ")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"locations\.path: no file"):
        read_points(tmp_path / "sites.csv", key=KEY)


def test_distance_is_the_great_circle_to_the_nearest_point():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"lon": rng.uniform(-180, 180, 50), "lat": rng.uniform(-90, 90, 50)})
    points = pd.DataFrame({"lon": rng.uniform(-180, 180, 20), "lat": rng.uniform(-90, 90, 20)})
    slow = [
        grid.great_circle_km(lon, lat, points["lon"], points["lat"]).min()
        for lon, lat in zip(frame["lon"], frame["lat"], strict=True)
    ]
    np.testing.assert_allclose(distance_to_points_km(frame, points), slow, rtol=1e-6)
