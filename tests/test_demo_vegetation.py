"""True cover, snow and dates of the made world."""

import numpy as np
import pandas as pd
import pytest

from workflow_scripts.core.seasons import TRANSITIONS
from workflow_scripts.demo import modis, truth
from workflow_scripts.demo.geography import ground_at
from workflow_scripts.demo.parameters import World
from workflow_scripts.demo.vegetation import day_number, green_cover, snow_fraction, true_cycles

WORLD = World()
NORTH, TROPICAL, SOUTH = WORLD.islands


@pytest.fixture(scope="module")
def cycles():
    return pd.concat([truth.true_phenology(WORLD, island) for island in WORLD.islands])


def test_dates_of_a_curve_that_can_be_checked_by_hand():
    days = np.arange(int(day_number(2019)), int(day_number(2022)))
    triangle = np.interp(days, day_number(2020) + np.array([50, 150, 250]), [0.2, 0.7, 0.2])
    (cycle,) = true_cycles(days, triangle, years=(2020, 2020))
    found = [cycle[name] - int(day_number(2020)) for name in TRANSITIONS]
    # 15, 50, 90 % of the rise from day 50 to 150 and the same of the fall to day 250
    assert found == [65, 100, 140, 150, 160, 200, 235]
    assert cycle["amplitude"] == pytest.approx(0.5)
    assert (cycle["year"], cycle["cycle"]) == (2020, 1)


def test_small_bumps_are_no_cycles_and_do_not_cut_larger_ones():
    days = np.arange(int(day_number(2019)), int(day_number(2022)))
    start = day_number(2020)
    nodes, values = [50, 130, 150, 170, 250], [0.2, 0.65, 0.6, 0.7, 0.2]
    curve = np.interp(days, start + np.array(nodes), values)
    (cycle,) = true_cycles(days, curve, years=(2020, 2020))
    assert cycle["peak"] - int(start) == 170
    assert cycle["amplitude"] == pytest.approx(0.5)
    flat = 0.2 + 0.04 * np.sin(2 * np.pi * days / 365)
    assert true_cycles(days, flat, years=(2020, 2020)) == []


def test_true_dates_agree_with_a_slow_obvious_search(cycles):
    pixels = modis.land_pixels(WORLD, SOUTH)
    first, last = WORLD.modis_years
    days, curves = truth.daily_evi(WORLD, SOUTH, pixels.lon, pixels.lat, years=(first - 1, last + 1))
    mine = cycles[cycles.tile == pixels.tile]
    rng = np.random.default_rng(0)
    for pixel in rng.choice(pixels.row.size, 12, replace=False):
        rows = mine[(mine.row == pixels.row[pixel]) & (mine.column == pixels.column[pixel])]
        curve = pd.Series(curves[:, pixel], pd.to_datetime(days, unit="D"))
        for _, cycle in rows.iterrows():
            rise = curve[cycle.peak - pd.Timedelta(days=185) : cycle.peak]
            rise = rise[rise[::-1].idxmin() :]
            level = (rise - rise.iloc[0]) / (rise.iloc[-1] - rise.iloc[0])
            fall = curve[cycle.peak : cycle.peak + pd.Timedelta(days=185)]
            fall = fall[: fall.idxmin()]
            share = (fall - fall.iloc[-1]) / (fall.iloc[0] - fall.iloc[-1])
            assert curve[cycle.greenup : cycle.dormancy].idxmax() == cycle.peak
            for name, part in (("greenup", 0.15), ("mid_greenup", 0.5), ("maturity", 0.9)):
                assert level[level >= part].index[0] == cycle[name]
            for name, part in (("senescence", 0.9), ("mid_greendown", 0.5), ("dormancy", 0.15)):
                assert share[share >= part].index[-1] == cycle[name]


def test_each_kind_of_year_occurs(cycles):
    per_year = cycles.groupby(["eco_id", "row", "column", "tile", "year"]).size()
    two = per_year.groupby("eco_id").median()
    assert two[9004] == 2 and two[9104] == 2  # cropland, flooded grassland
    assert two[9001] == 1 and two[9204] == 1
    eco_ids = {e.eco_id for island in WORLD.islands for e in island.ecoregions}
    assert eco_ids - set(cycles.eco_id) == {9002, 9101, 9202}  # conifers, rainforest, desert
    ordered = cycles[list(TRANSITIONS)].to_numpy("datetime64[D]").astype(int)
    assert (np.diff(ordered, axis=1) >= 0).all()
    middle = cycles[cycles.cycle == 1].groupby("eco_id").mid_greenup.apply(lambda t: t.dt.dayofyear.median())
    assert 100 < middle[9001] < 170  # northern spring
    assert 240 < middle[9204] < 300  # southern spring
    assert 100 < middle[9201] < 170  # mediterranean: green in winter


def test_places_and_years_differ(cycles):
    forest = cycles[cycles.eco_id == 9001]
    doy = forest.assign(doy=forest.mid_greenup.dt.dayofyear).pivot_table(
        index=["row", "column"], columns="year", values="doy"
    )
    assert 4 < doy.mean(axis=1).std() < 20
    assert 2 < doy.mean(axis=0).std() < 15


def test_cover_is_a_fraction_and_follows_height():
    rng = np.random.default_rng(0)
    ground = ground_at(WORLD, NORTH, *rng.uniform(-2, 2, (2, 300)))
    days = np.arange(int(day_number(2021)), int(day_number(2022)))
    cover = green_cover(WORLD, NORTH, ground, days)
    assert cover.shape == (365, 300)
    assert cover.min() >= 0 and cover.max() <= 1
    one = green_cover(WORLD, NORTH, ground, days[200])
    np.testing.assert_allclose(one, cover[200], atol=1e-6)


def test_snow_lies_on_high_ground_in_the_northern_winter_only():
    rng = np.random.default_rng(0)
    place = rng.uniform(-2, 2, (2, 400))
    winter, summer = day_number(2021, 20), day_number(2021, 200)
    ground = ground_at(WORLD, NORTH, *place)
    high, low = ground.elevation_m > 600, ground.elevation_m < 150
    snow = snow_fraction(WORLD, NORTH, ground, np.array(winter))
    assert snow[high].mean() > 0.9 and snow[high].mean() > snow[low].mean()
    assert snow_fraction(WORLD, NORTH, ground, np.array(summer)).max() == 0
    for island in (TROPICAL, SOUTH):
        other = ground_at(WORLD, island, *place)
        assert snow_fraction(WORLD, island, other, np.array([winter, summer])).max() < 0.05
