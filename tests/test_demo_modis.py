"""Composites of the made world: days, quality, geometry."""

import json

import numpy as np
import pandas as pd
import pyproj
import pytest
import rasterio
from small_world import SMALL, small_world

from workflow_scripts.core import grid
from workflow_scripts.demo import modis, truth
from workflow_scripts.demo.parameters import World
from workflow_scripts.demo.vegetation import day_number

WORLD = World()


def observation_days(first_day, day_of_year):
    """Slow and obvious: the only day of the sixteen with this day of year."""
    window = pd.date_range(pd.Timestamp(first_day, unit="D"), periods=16)
    lookup = {day.dayofyear: day for day in window}
    return [lookup[int(doy)] for doy in day_of_year]


@pytest.mark.parametrize("doy", [1, 161, 353])
@pytest.mark.parametrize("year", [2020, 2021])
def test_days_lie_within_the_sixteen_and_december_ends_in_january(year, doy):
    island = WORLD.islands[0]
    first_day = int(day_number(year, doy))
    values = modis.composite(WORLD, island, first_day)
    seen = values.reliability >= 0
    days = observation_days(first_day, values.day_of_year[seen])
    assert len(set(days)) > 1
    assert (values.day_of_year[~seen] == modis.DAY_FILL).all()
    assert (values.evi[~seen] == modis.EVI_FILL).all()


def test_some_december_composites_give_january_days():
    island = WORLD.islands[0]
    days = [
        modis.composite(WORLD, island, int(day_number(year, 353))).day_of_year for year in range(2019, 2024)
    ]
    days = np.concatenate(days)
    assert ((days >= 1) & (days <= 3)).any() and (days >= 353).any()


def test_values_follow_the_true_curve_at_the_observed_day():
    island = WORLD.islands[2]
    pixels = modis.land_pixels(WORLD, island)
    error, count = {0: [], 1: [], 3: []}, np.zeros(4, int)
    for doy in modis.FIRST_DOYS:
        first_day = int(day_number(2021, doy))
        values = modis.composite(WORLD, island, first_day)
        count += [np.sum(values.reliability == quality) for quality in (-1, 0, 1, 3)]
        days, curve = truth.daily_evi(WORLD, island, pixels.lon, pixels.lat, years=(2021, 2022))
        for quality, errors in error.items():
            here = np.flatnonzero(values.reliability == quality)
            when = np.array(observation_days(first_day, values.day_of_year[here]), "datetime64[D]")
            true = curve[when.astype(int) - days[0], here]
            errors.append(values.evi[here] * 1e-4 - true)
    good, marginal, cloudy = (np.concatenate(error[quality]) for quality in (0, 1, 3))
    assert abs(good.mean()) < 0.002 and 0.008 < good.std() < 0.016
    assert marginal.std() > 1.5 * good.std() and marginal.mean() < -0.01
    assert cloudy.mean() < -0.05
    assert (count > 0).all() and count[1] > 0.7 * count.sum()


def test_northern_winter_has_snow():
    island = WORLD.islands[0]
    values = modis.composite(WORLD, island, int(day_number(2021, 17)))
    white = values.reliability == modis.SNOW
    assert white.mean() > 0.2
    assert values.evi[white].mean() < 1200


def test_files_have_the_true_geometry_of_the_tile():
    catalog = json.loads((small_world() / "modis.json").read_text())["features"]
    item = next(item for item in catalog if "h18v04" in item["id"])
    assert item["properties"]["proj:shape"] == [2400, 2400]
    for key, (dtype, fill) in modis.ASSETS.items():
        with rasterio.open(small_world() / item["assets"][key]["href"]) as file:
            assert file.shape == (2400, 2400) and file.dtypes == (dtype,) and file.nodata == fill
            assert file.block_shapes == [(512, 512)]
            assert file.res[0] == pytest.approx(463.3127165279165, abs=1e-9)
            assert file.transform.c == pytest.approx(0, abs=1e-6)
            assert file.transform.f == pytest.approx(5559752.598333, abs=1e-5)
            values = file.read(1)
            crs = file.crs
        assert (small_world() / item["assets"][key]["href"]).stat().st_size < 20_000
        rows, columns = np.nonzero(values != fill)
        assert rows.size > 3
    to_degrees = pyproj.Transformer.from_crs(crs, 4326, always_xy=True)
    x, y = rasterio.transform.xy(file.transform, rows, columns)
    lon, lat = to_degrees.transform(x, y)
    pixels = modis.land_pixels(SMALL, SMALL.islands[0])
    known = {(r, c): (a, b) for r, c, a, b in zip(pixels.row, pixels.column, pixels.lon, pixels.lat)}
    expected = np.array([known[key] for key in zip(rows, columns)])
    # the file's CRS is a sphere, EPSG:4326 an ellipsoid: PROJ takes the latitude over unchanged
    np.testing.assert_allclose(np.column_stack([lon, lat]), expected, atol=1e-7)
    tiles, row, column = grid.modis_pixel(expected[:, 0], expected[:, 1])
    assert set(tiles) == {"h18v04"}
    np.testing.assert_array_equal(np.column_stack([row, column]), np.column_stack([rows, columns]))


def test_catalog_has_all_composites_an_outdated_run_and_aqua():
    frame = pd.read_parquet(small_world() / "modis.parquet")
    terra = frame[frame.platform == "terra"]
    assert (frame.platform == "aqua").sum() == 3
    composites = terra.groupby(["modis:horizontal-tile", "modis:vertical-tile"]).start_datetime.agg(
        ["size", "nunique"]
    )
    assert (composites["nunique"] == 23).all() and (composites["size"] == 24).all()
    assert frame.datetime.isna().all()
    assert frame.id.is_unique
    for _, item in terra.iterrows():
        for asset in item.assets.values():
            assert (small_world() / asset["href"]).is_file()
