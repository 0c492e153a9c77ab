"""Reading composites at points: exact values, dates, productions, edges."""

import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import rasterio
from rasterio.transform import Affine

from workflow_scripts import read_tile
from workflow_scripts.core import grid, stac, tables

PIXEL_M = grid.MODIS_TILE_M / 2400
TILE = "h18v04"


@pytest.fixture
def composite(tmp_path):
    """Write one composite of a whole tile at its real size and give its item."""

    def write(
        first_day, *, name="MOD13A1", layers=None, produced="2020001000000", platform="terra", tile=TILE
    ):
        left, top = grid.modis_tile_origin(tile)
        row, column = np.mgrid[0:2400, 0:2400]
        evi = ((row * 7 + column * 3) % 9000).astype(np.int16)
        arrays = {
            "500m_16_days_EVI": evi,
            "500m_16_days_pixel_reliability": ((row + column) % 4).astype(np.int8),
            "500m_16_days_composite_day_of_the_year": np.full((2400, 2400), 5, np.int16),
        } | (layers or {})
        hrefs = {}
        for layer, values in arrays.items():
            path = tmp_path / f"{name}.{first_day}.{produced}.{layer}.tif"
            with rasterio.open(
                path,
                "w",
                driver="GTiff",
                width=2400,
                height=2400,
                count=1,
                dtype=values.dtype,
                crs=grid.MODIS_CRS,
                transform=Affine(PIXEL_M, 0, left, 0, -PIXEL_M, top),
                tiled=True,
                blockxsize=512,
                blockysize=512,
                compress="deflate",
            ) as file:
                file.write(values, 1)
            hrefs[layer] = str(path)
        return {
            "item_id": f"{name}.A{first_day:%Y%j}.{tile}.061.{produced}",
            "datetime": pd.Timestamp(first_day),
            "platform": platform,
            "produced": produced,
            "hrefs": json.dumps(hrefs),
        }

    return write


def test_values_and_dates_are_those_of_the_pixels(composite):
    rng = np.random.default_rng(3)
    row, column = rng.integers(0, 2400, 40), rng.integers(0, 2400, 40)
    row[:4], column[:4] = [0, 0, 2399, 2399], [0, 2399, 0, 2399]
    left, top = grid.modis_tile_origin(TILE)
    inside = rng.uniform(0.01, 0.99, (2, 40))
    x, y = left + (column + inside[0]) * PIXEL_M, top - (row + inside[1]) * PIXEL_M
    item = composite(pd.Timestamp("2021-01-01"))
    read = read_tile.read_composite(item, x, y, index="evi")
    assert np.allclose(read["index"], (row * 7 + column * 3) % 9000 * 1e-4, atol=1e-7)
    assert read["reliability"].tolist() == ((row + column) % 4).tolist()
    assert (read["date"] == "2021-01-05").all() and (read["composite"] == "2021-01-01").all()


def test_pixels_agree_with_the_grid_of_core(composite):
    item = composite(pd.Timestamp("2021-01-01"))
    rng = np.random.default_rng(4)
    lon, lat = rng.uniform(2, 13, 60), rng.uniform(41, 49, 60)
    tile, row, column = grid.modis_pixel(lon, lat)
    here = tile == TILE
    x, y = read_tile.sinusoidal(lon[here], lat[here])
    read = read_tile.read_composite(item, x, y, index="evi")
    assert np.allclose(read["index"], (row[here] * 7 + column[here] * 3) % 9000 * 1e-4, atol=1e-7)


def test_points_outside_the_file_are_missing(composite):
    left, top = grid.modis_tile_origin(TILE)
    x = np.array([left, left - 1e-7, left - 10, left + grid.MODIS_TILE_M + 1e-7])
    read = read_tile.read_composite(composite(pd.Timestamp("2021-01-01")), x, np.full(4, top), index="evi")
    assert read["index"].notna().tolist() == [True, True, False, True]
    assert read["reliability"].tolist()[2] == -1 and pd.isna(read["date"][2])


def test_each_block_is_read_once(composite):
    path = json.loads(composite(pd.Timestamp("2021-01-01"))["hrefs"])["500m_16_days_EVI"]
    left, top = grid.modis_tile_origin(TILE)
    rng = np.random.default_rng(5)
    column, row = rng.integers(0, 1024, 300), rng.integers(1800, 2400, 300)
    windows = []
    with rasterio.open(path) as raster:

        class Counting:
            def __getattr__(self, name):
                return getattr(raster, name)

            def read(self, band, window):
                windows.append((window.col_off, window.row_off, window.width, window.height))
                return raster.read(band, window=window)

        x, y = left + (column + 0.5) * PIXEL_M, top - (row + 0.5) * PIXEL_M
        values = read_tile.sample_raster(Counting(), x, y)
        assert (values == (row * 7 + column * 3) % 9000).all()
        # dense: one rectangle of 2 × 2 blocks, the lower ones cut off at the tile's edge
        assert windows == [(0, 1536, 1024, 2400 - 1536)]
        windows.clear()
        row, column = np.array([5, 5, 2399, 1030]), np.array([3, 2399, 7, 1030])
        x, y = left + (column + 0.5) * PIXEL_M, top - (row + 0.5) * PIXEL_M
        values = read_tile.sample_raster(Counting(), x, y)
    assert len(windows) == len(set(windows)) == 4
    assert {w[2:] for w in windows} == {(512, 512), (352, 512), (512, 352)}


@pytest.mark.parametrize(
    ("composite_day", "doy", "expected"),
    [
        ("2020-12-18", 353, "2020-12-18"),  # day 353 of a leap year
        ("2020-12-18", 366, "2020-12-31"),
        ("2020-12-18", 2, "2021-01-02"),
        ("2019-12-19", 365, "2019-12-31"),
        ("2019-12-19", 366, "2020-01-01"),  # no such day in 2019: the count ran on
        ("2020-01-01", 16, "2020-01-16"),
        ("2020-06-09", 160, None),  # before the composite
        ("2020-06-09", 178, None),  # after it
        ("2020-06-09", -1, None),
    ],
)
def test_observation_days(composite_day, doy, expected):
    day = read_tile.observation_days(np.datetime64(composite_day), np.array([doy]))[0]
    assert np.isnat(day) if expected is None else day == np.datetime64(expected)


def test_fill_values_and_unknown_codes_are_missing(composite):
    evi = np.full((2400, 2400), -3000, np.int16)
    evi[0, 1], evi[0, 2], evi[0, 3] = -2000, 10000, 5000
    reliability = np.full((2400, 2400), -1, np.int8)
    reliability[0, 3] = 7
    day = np.full((2400, 2400), 3, np.int16)
    day[0, 3] = -1
    layers = {
        "500m_16_days_EVI": evi,
        "500m_16_days_pixel_reliability": reliability,
        "500m_16_days_composite_day_of_the_year": day,
    }
    left, top = grid.modis_tile_origin(TILE)
    x = left + (np.arange(4) + 0.5) * PIXEL_M
    read = read_tile.read_composite(
        composite(pd.Timestamp("2021-01-01"), layers=layers), x, np.full(4, top - 10), index="evi"
    )
    assert read["index"].tolist()[1:3] == pytest.approx([-0.2, 1.0])
    assert read["index"].isna().tolist() == [True, False, False, True]
    assert (read["reliability"] == -1).all()


def test_evi2_from_red_and_near_infrared(composite):
    layers = {
        "500m_16_days_red_reflectance": np.full((2400, 2400), 500, np.int16),
        "500m_16_days_NIR_reflectance": np.full((2400, 2400), 3000, np.int16),
    }
    left, top = grid.modis_tile_origin(TILE)
    item = composite(pd.Timestamp("2021-01-01"), layers=layers)
    read = read_tile.read_composite(item, np.array([left + 1]), np.array([top - 1]), index="evi2")
    assert read["index"][0] == pytest.approx(2.5 * 0.25 / (0.3 + 2.4 * 0.05 + 1))
    with pytest.raises(ValueError, match=r"no asset '…16_days_NDVI'"):
        read_tile.read_composite(item, np.array([left + 1]), np.array([top - 1]), index="ndvi")


def test_newest_production_of_the_wanted_satellites():
    items = pd.DataFrame(
        {
            "item_id": ["MOD1", "MOD2", "MYD1", "MOD3"],
            "datetime": pd.to_datetime(["2020-01-01", "2020-01-01", "2020-01-09", "2020-01-17"]),
            "platform": ["terra", "Terra", "aqua", ""],
            "produced": ["2020020", "2021001", "2020030", "2020040"],
        }
    )
    assert read_tile.select_items(items, ["terra"])["item_id"].tolist() == ["MOD2", "MOD3"]
    assert read_tile.select_items(items, ["terra", "aqua"])["item_id"].tolist() == ["MOD2", "MYD1", "MOD3"]
    missing = read_tile.missing_composites(read_tile.select_items(items, ["terra"]), (2020, 2021), ["terra"])
    assert missing == {"terra 2020": 21, "terra 2021": 23}


def test_main_writes_one_tile(composite, tmp_path, monkeypatch, caplog):
    first = composite(pd.Timestamp("2021-01-01"))
    again = composite(pd.Timestamp("2021-01-01"), produced="2022001000000")
    aqua = composite(pd.Timestamp("2021-01-09"), name="MYD13A1", platform="aqua")
    found = pd.DataFrame([first, again, aqua])
    monkeypatch.setattr(stac, "search_items", lambda *_, **__: found)
    locations = pd.DataFrame(
        {"location_id": ["b", "a", "far"], "lon": [10.0, 9.0, 100.0], "lat": [45.0, 44.0, 10.0]}
    )
    columns = {c: np.nan for c in tables.COLUMNS["locations"] if c not in locations}
    monkeypatch.setattr(read_tile, "read_table", lambda *_: locations.assign(**columns))
    settings = {"collection": "modis-13A1-061", "index": "evi", "years": [2021, 2021]}
    job = SimpleNamespace(
        wildcards=SimpleNamespace(tile=TILE),
        input=SimpleNamespace(locations="locations.parquet"),
        output=SimpleNamespace(greenness=tmp_path / "h18v04.parquet"),
        params=SimpleNamespace(settings=settings, catalog={"name": "made"}),
        threads=2,
    )
    read_tile.main(job)
    table = tables.read_table(tmp_path / "h18v04.parquet", "greenness")
    assert table["location_id"].tolist() == ["b", "a"]
    assert "22 of 23 composites are not in catalog 'made'" in caplog.text
    found = found.iloc[:0]
    read_tile.main(job)
    assert tables.read_table(tmp_path / "h18v04.parquet", "greenness").empty
