"""Tables: contracts checked on writing and on reading."""

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
from shapely.geometry import Point

from workflow_scripts.core import stage, tables


def weights(**change):
    frame = pd.DataFrame(
        {
            "location_id": ["a", "b"],
            "weight": [1, 0.25],
            "is_non_vegetated": [False, True],
            "is_mountain": [False, False],
            "mean_ndvi_max": [0.5, np.nan],
        }
    )
    return frame.assign(**change)


def test_round_trip_keeps_types_and_missing_values(tmp_path):
    tables.write_table(weights(), tmp_path / "w.parquet", "weights")
    back = tables.read_table(tmp_path / "w.parquet", "weights")
    assert back["mean_ndvi_max"].dtype == np.float32
    assert np.isnan(back["mean_ndvi_max"][1])
    assert back["weight"].tolist() == [1, 0.25]


def test_geoparquet_round_trip(tmp_path):
    row = dict.fromkeys(tables.COLUMNS["locations"], "")
    row |= {"location_id": "a", "lon": 8.0, "lat": 47.0, "shard": 0, "eco_id": -1, "biome_num": 4}
    row |= {"inclusion_probability": 1.0, "is_mountain": True, "distance_to_evaluation_km": np.nan}
    frame = gpd.GeoDataFrame([row | {"geometry": Point(8, 47)}], crs=4326)
    tables.write_table(frame, tmp_path / "l.parquet", "locations")
    back = tables.read_table(tmp_path / "l.parquet", "locations")
    assert isinstance(back, gpd.GeoDataFrame) and back.crs.to_epsg() == 4326
    assert list(back.columns) == list(tables.COLUMNS["locations"])
    assert back["biome_num"].dtype == np.int16 and back["is_mountain"].dtype == bool
    tables.write_table(frame.iloc[:0], tmp_path / "empty.parquet", "locations")
    assert len(tables.read_table(tmp_path / "empty.parquet", "locations")) == 0


def test_wrong_tables_are_refused(tmp_path):
    path = tmp_path / "w.parquet"
    with pytest.raises(ValueError, match=r"missing columns \['weight'\]"):
        tables.write_table(weights().drop(columns="weight"), path, "weights")
    with pytest.raises(ValueError, match=r"unknown \['colour'\]"):
        tables.write_table(weights(colour="red"), path, "weights")
    with pytest.raises(ValueError, match=r"location_id repeated: \['a'\]"):
        tables.write_table(weights(location_id=["a", "a"]), path, "weights")
    with pytest.raises(ValueError, match="column 'weight'"):
        tables.write_table(weights(weight=["x", "y"]), path, "weights")
    assert list(tmp_path.iterdir()) == []


def test_reading_says_what_is_wrong(tmp_path):
    with pytest.raises(FileNotFoundError, match="run the stage"):
        tables.read_table(tmp_path / "no.parquet", "weights")
    (tmp_path / "bad.parquet").write_text("not parquet")
    with pytest.raises(ValueError, match="not a readable Parquet"):
        tables.read_table(tmp_path / "bad.parquet", "weights")
    pd.DataFrame({"location_id": ["a"]}).to_parquet(tmp_path / "part.parquet")
    with pytest.raises(ValueError, match="lacks columns"):
        tables.read_table(tmp_path / "part.parquet", "weights")


def test_a_failed_write_leaves_the_file_as_it_was(tmp_path):
    path = tmp_path / "x.json"
    stage.write_json(path, {"a": 1})
    with pytest.raises(ValueError), stage.atomic_path(path) as temporary:
        temporary.write_text("half")
        raise ValueError
    assert stage.read_json(path) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["x.json"]
