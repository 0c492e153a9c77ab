"""The estimator against scipy's spline, against slow obvious code, and on series of known shape."""

import dataclasses
import itertools
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import xarray as xr
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.interpolate import make_smoothing_spline

from workflow_scripts import estimate_phenology, extract_greenness
from workflow_scripts.core.seasons import TRANSITIONS
from workflow_scripts.core.tables import read_table
from workflow_scripts.estimate_phenology import (
    PhenologyOptions,
    daily_curve,
    estimate_cycles,
    transition_dates,
)
from workflow_scripts.phenology import kernels

START = np.datetime64("2017-01-01")


def days_every(step=16, years=6, start=START):
    return np.arange(start, start + round(365.25 * years), step).astype("datetime64[D]")


def series(values, dates, reliability=None):
    """One location as a Dataset in the layout of greenness.zarr."""
    values = np.atleast_2d(np.asarray(values, np.float32))
    dates = np.broadcast_to(np.asarray(dates, "datetime64[ns]"), values.shape)
    codes = (
        np.zeros(values.shape, np.int8) if reliability is None else np.broadcast_to(reliability, values.shape)
    )
    both = ("location", "time")
    names = np.array([f"p{i}" for i in range(len(values))], object)
    return xr.Dataset(
        {"index": (both, values), "date": (both, dates), "reliability": (both, codes.astype(np.int8))},
        coords={"location_id": ("location", names)},
    )


def wave(dates, peak_doy=200.0, amplitude=0.2, base=0.3, cycles=1):
    """A cosine with `cycles` peaks a year; base ± amplitude."""
    doy = (dates - START).astype(float) % 365.25 + 1
    return base + amplitude * np.cos(2 * np.pi * cycles * (doy - peak_doy) / 365.25)


# ---- the curve -------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(st.integers(5, 60), st.sampled_from([30.0, 3000.0, 1e5]), st.integers(0, 2**31))
def test_spline_equals_scipy(n, lambda_day3, seed):
    rng = np.random.default_rng(seed)
    day = 17_000 + np.cumsum(rng.integers(1, 60, n))
    value, weight = rng.normal(0.4, 0.2, n), rng.choice([0.5, 1.0], n)
    fitted, curvature = kernels.smoothing_spline(day, value, weight, lambda_day3)
    x = (day - day[0]).astype(float)
    oracle = make_smoothing_spline(x, value, w=weight, lam=lambda_day3)
    # scipy's own solve is good to about 1e-10 on these scales
    assert np.abs(fitted - oracle(x)).max() <= 1e-8
    assert curvature[0] == curvature[-1] == 0
    daily = kernels.evaluate_daily(day, fitted, curvature, -np.inf)
    assert np.abs(daily - oracle(np.arange(x[-1] + 1))).max() <= 1e-8


def test_curve_is_clamped_at_the_floor():
    dates = days_every()
    curve = daily_curve(series(wave(dates), dates))
    values = np.sort(wave(dates))
    assert curve["curve"].min() == pytest.approx(np.quantile(values, 0.05), abs=1e-6)
    assert curve["floor"].nunique() == 1
    assert curve["date"].diff().dropna().eq(pd.Timedelta(1, "D")).all()


def test_floor_leaves_out_snow_and_may_be_bounded():
    arguments = (np.arange(100), np.full(100, 0.5), np.zeros(100, np.int64), 0.5, 0.5, 0.05)
    arguments[1][:20], arguments[2][:20] = -0.1, kernels.SNOW
    _day, value, weight, is_snow, floor = kernels.usable_observations(*arguments, -np.inf)
    assert floor == 0.5 and (value == 0.5).all() and is_snow.sum() == 20
    assert set(weight[is_snow]) == {0.5} and set(weight[~is_snow]) == {1.0}
    assert kernels.usable_observations(*arguments, 0.6)[4] == 0.6


def test_of_repeated_days_the_more_reliable_stays():
    date = np.array([5, 3, 5, 3, 9], np.int64)
    index = np.array([0.1, 0.2, 0.3, 0.4, 0.5])
    codes = np.array([1, 0, 0, 1, 3], np.int64)
    day, value, weight, _, _ = kernels.usable_observations(date, index, codes, 0.5, 0.5, 0.05, -np.inf)
    assert day.tolist() == [3, 5] and value.tolist() == [0.2, 0.3] and weight.tolist() == [1, 1]


# ---- segments and dates against slow code ----------------------------------------------------


def slow_segments(curve, reach, threshold):
    """The rule word for word, on lists."""
    peaks, rising_since = [], None
    for i in range(1, len(curve)):
        if curve[i] > curve[i - 1]:
            rising_since = i
        elif curve[i] < curve[i - 1] and rising_since is not None:
            peaks.append((rising_since + i - 1) // 2)
            rising_since = None
    left_over, result = list(peaks), {}
    for peak in sorted(peaks, key=lambda p: curve[p]):
        back = range(max([0, peak - reach] + [p for p in left_over if p < peak]), peak + 1)
        forth = range(peak, min([len(curve) - 1, peak + reach] + [p for p in left_over if p > peak]) + 1)
        begin = max(d for d in back if curve[d] == min(curve[e] for e in back))
        end = min(d for d in forth if curve[d] == min(curve[e] for e in forth))
        if curve[peak] - curve[begin] < threshold or curve[peak] - curve[end] < threshold:
            left_over.remove(peak)
        else:
            result[peak] = (begin, peak, end)
    return [list(result[p]) for p in sorted(result) if p in left_over]


def segments_of(curve, first, last, reach, min_amplitude, relative_amplitude=0.0):
    """Cycles of a part of the curve, by the kernels."""
    peaks, *lows = kernels.find_turns(curve)
    segments = np.full((peaks.size, 3), -1)
    order = kernels.order_peaks(curve, peaks)
    kernels.find_segments(
        curve, peaks, *lows, order, first, last, reach, min_amplitude, relative_amplitude, segments
    )
    return segments[segments[:, 0] >= 0]


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from([0.05, 0.2, 0.5]), st.booleans())
def test_segments_equal_slow_code(seed, threshold, has_ties):
    rng = np.random.default_rng(seed)
    smooth = np.convolve(rng.normal(0, 1, 320), np.hanning(25) / 12, "valid")
    curve = np.round(smooth, 1) if has_ties else smooth
    found = segments_of(curve, 0, curve.size - 1, 60, threshold)
    assert found.tolist() == slow_segments(curve, 60, threshold)
    part = curve[40:250]
    of_range = threshold * (part.max() - part.min())
    cut = segments_of(curve, 40, 249, 60, 0.0, threshold) - 40
    # a peak at the very edge of a part is one of the whole curve only
    assert [row for row in cut.tolist() if 0 < row[1] < 209] == [
        row for row in slow_segments(part, 60, of_range) if 0 < row[1] < 209
    ]
    for begin, peak, end in found:
        crossing = kernels.crossing_days(curve, begin, peak, end, np.array([0.15, 0.5, 0.9]))
        assert (np.diff(crossing) >= 0).all()
        for k, share in enumerate((0.15, 0.5, 0.9)):
            level = curve[begin] + share * (curve[peak] - curve[begin])
            first = next(d for d in range(begin, peak + 1) if round(curve[d], 6) >= round(level, 6))
            assert np.ceil(crossing[k]) == first
            level = curve[end] + share * (curve[peak] - curve[end])
            last = next(d for d in range(end, peak - 1, -1) if round(curve[d], 6) >= round(level, 6))
            assert np.floor(crossing[6 - k]) == last


def test_flat_top_peaks_in_its_middle():
    curve = np.array([0, 1, 2, 2, 2, 1, 0, 0, 1, 0.0])
    peaks, lows_begin, lows_end = kernels.find_turns(curve)
    assert (peaks.tolist(), lows_begin.tolist(), lows_end.tolist()) == ([3, 8], [0, 6, 9], [0, 7, 9])
    assert kernels.find_turns(np.zeros(4))[0].size == 0


# ---- series of known shape -------------------------------------------------------------------


@pytest.mark.parametrize("peak_doy", [15, 100, 200, 300, 362])
def test_dates_of_a_cosine_anywhere_in_the_year(peak_doy):
    dates = days_every(8)
    cycles = estimate_cycles(series(wave(dates, peak_doy), dates), options=PhenologyOptions(lambda_day3=100))
    assert len(cycles) == 4
    assert (cycles["peak"].dt.year == cycles["year"]).all()
    off = (cycles["peak"].dt.dayofyear - peak_doy + 182) % 365 - 182
    assert off.abs().max() <= 3
    rise = (cycles["peak"] - cycles["mid_greenup"]).dt.days
    fall = (cycles["mid_greendown"] - cycles["peak"]).dt.days
    assert rise.between(88, 95).all() and fall.between(88, 95).all()
    for earlier, later in itertools.pairwise(TRANSITIONS):
        assert (cycles[earlier] <= cycles[later]).all()
    # the floor, a 5 % quantile, cuts off the trough
    assert cycles["amplitude"].between(0.38, 0.40).all() and (cycles["r2"] > 0.95).all()


def test_southern_season_over_new_year_is_one_cycle():
    dates = days_every()
    cycles = estimate_cycles(series(wave(dates, peak_doy=5), dates))
    assert (cycles["greenup"].dt.year == cycles["year"] - 1).all()
    assert (cycles["dormancy"].dt.year == cycles["year"]).all()
    assert cycles.groupby("year").size().eq(1).all()


def test_two_cycles_a_year():
    dates = days_every()
    cycles = estimate_cycles(series(wave(dates, 80, cycles=2), dates))
    assert cycles.groupby("year")["cycle"].agg(list).tolist() == [[1, 2]] * 4
    assert (cycles["cycle"].diff().dropna() != 0).all()


@pytest.mark.parametrize(
    "name",
    ["evergreen", "constant", "all snow", "all cloud", "one year", "few", "two values", "empty", "zero"],
)
def test_series_without_a_cycle(name):
    dates = days_every()
    values, codes = wave(dates), None
    if name == "evergreen":
        values = wave(dates, amplitude=0.04, base=0.5)
    elif name in ("constant", "zero"):
        values = np.full(dates.size, 0.4 if name == "constant" else 0.0)
    elif name.startswith("all"):
        codes = np.full(dates.size, 2 if name == "all snow" else 3)
    elif name == "one year":
        dates, values = dates[:23], values[:23]
    elif name == "few":
        dates, values = dates[::5], values[::5]
    elif name == "two values":
        values = np.where(np.arange(dates.size) < 2, 0.3, np.nan)
    elif name == "empty":
        values = np.full(dates.size, np.nan)
    cycles = estimate_cycles(series(values, dates, codes))
    assert cycles.empty and list(cycles.columns)[:4] == ["location_id", "year", "cycle", "greenup"]


def test_partial_years_give_no_cycle():
    dates = days_every(years=6)
    assert sorted(set(estimate_cycles(series(wave(dates), dates))["year"])) == [2018, 2019, 2020, 2021]


def test_long_gap_drops_the_cycle_it_lies_in():
    dates = days_every()
    gap = (dates > np.datetime64("2019-05-01")) & (dates < np.datetime64("2019-07-10"))
    cycles = estimate_cycles(series(np.where(gap, np.nan, wave(dates)), dates))
    assert sorted(cycles["year"]) == [2018, 2020, 2021]
    allowed = estimate_cycles(
        series(np.where(gap, np.nan, wave(dates)), dates), options=PhenologyOptions(max_gap_days=120)
    )
    gaps = allowed.set_index("year")["max_gap_days"]
    assert gaps[2019] > 64 and gaps[2020] == 16


def test_snow_is_filled_and_lowers_the_quality():
    dates = days_every()
    values = np.maximum(wave(dates, amplitude=0.25, base=0.35), 0.2)
    winter = values == 0.2
    snowy = np.where(winter, -0.05, values)
    plain = estimate_cycles(series(values, dates))
    filled = estimate_cycles(series(snowy, dates, np.where(winter, 2, 0)))
    dropped = estimate_cycles(series(snowy, dates, np.where(winter, 3, 0)))
    assert (plain["snow_fraction"] == 0).all() and (plain["qa"] == 0).all()
    assert filled["snow_fraction"].between(0.05, 0.6).all()
    assert len(filled) == len(plain)
    off = (filled["mid_greenup"] - plain["mid_greenup"]).dt.days.abs()
    assert off.max() <= 6
    assert len(dropped) <= len(filled)
    detailed = filled["qa_detailed"].to_numpy()
    greenup, peak = detailed & 3, (detailed >> 6) & 3
    assert (greenup >= peak).all() and (peak == 0).all()


def test_quality_classes_are_those_of_mcd12q2():
    assert [kernels.quality_class(s, r) for s, r in [(0, 1), (0.3, 0.8), (0.6, 0.5), (1.0, 0.9)]] == [
        0,
        1,
        2,
        3,
    ]
    assert kernels.quality_class(0.0, np.nan) == 3


def test_order_of_observations_does_not_matter():
    rng = np.random.default_rng(1)
    dates = days_every()
    values = wave(dates) + rng.normal(0, 0.02, dates.size)
    shuffled = rng.permutation(dates.size)
    a = estimate_cycles(series(values, dates))
    b = estimate_cycles(series(values[shuffled], dates[shuffled]))
    pd.testing.assert_frame_equal(a, b)


def test_blocks_threads_and_date_types_change_nothing(monkeypatch):
    rng = np.random.default_rng(2)
    dates = days_every()
    values = np.stack([wave(dates, peak) + rng.normal(0, 0.02, dates.size) for peak in range(10, 360, 50)])
    data = series(values, dates)
    whole = estimate_cycles(data)
    monkeypatch.setattr(estimate_phenology, "BLOCK", 2)
    pd.testing.assert_frame_equal(whole, estimate_cycles(data, threads=2))
    numbers = data.assign(
        date=(data["date"].dims, data["date"].values.astype("datetime64[D]").astype(np.int32))
    )
    pd.testing.assert_frame_equal(whole, estimate_cycles(numbers.transpose("time", "location")))
    pd.testing.assert_frame_equal(whole, estimate_cycles(data.drop_vars("reliability")))


def test_transition_dates_unfold_the_table():
    dates = days_every()
    data = series(np.stack([wave(dates), np.full(dates.size, 0.3), wave(dates, 80, cycles=2)]), dates)
    cycles, arrays = estimate_cycles(data), transition_dates(data)
    assert arrays["greenup"].dims == ("location", "year", "cycle")
    assert int(arrays["peak"].notnull().sum()) == len(cycles)
    assert arrays["peak"].isel(location=1).isnull().all() and (arrays["qa"].isel(location=1) == -1).all()
    row = cycles[(cycles["location_id"] == "p2") & (cycles["year"] == 2019) & (cycles["cycle"] == 2)].iloc[0]
    there = arrays.isel(location=2).sel(year=2019, cycle=2)
    assert there["dormancy"].values == row["dormancy"].to_datetime64()
    empty = transition_dates(series(np.full(dates.size, 0.3), dates))
    assert empty["peak"].shape == (1, 0, 0)


def test_reliability_may_hold_missing_values_but_no_unknown_code():
    dates = days_every()
    codes = np.where(np.arange(dates.size) % 7 == 0, 3, 0)
    expected = estimate_cycles(series(wave(dates), dates, codes))
    data = series(wave(dates), dates)
    for missing, kind in ((np.nan, float), (255, np.uint8), (-1, np.int16)):
        given = np.where(codes == 3, missing, codes).astype(kind)[None]
        changed = data.assign(reliability=(("location", "time"), given))
        pd.testing.assert_frame_equal(estimate_cycles(changed), expected)
    codes[5] = 4
    with pytest.raises(ValueError, match=r"location 'p0': reliability code 4 is unknown"):
        estimate_cycles(series(wave(dates), dates, codes))


def test_repeated_dates_of_lesser_reliability_change_nothing():
    dates = days_every()
    values = wave(dates)
    twice = series(np.append(values, values[::3] - 0.1), np.append(dates, dates[::3]),
                   np.append(np.zeros(dates.size), np.ones(dates[::3].size)))  # fmt: skip
    pd.testing.assert_frame_equal(estimate_cycles(twice), estimate_cycles(series(values, dates)))


def test_errors_say_what_to_change():
    dates = days_every()
    with pytest.raises(ValueError, match=r"location 'p0'.*divide MODIS integers by 10,000"):
        estimate_cycles(series(wave(dates) * 1e4, dates))
    with pytest.raises(ValueError, match="lacks date"):
        estimate_cycles(series(wave(dates), dates).drop_vars("date"))
    with pytest.raises(ValueError, match=r"low = 0\.95"):
        PhenologyOptions(low=0.95)
    with pytest.raises(ValueError, match="lambda_day3 = 0"):
        PhenologyOptions(lambda_day3=0)


def test_defaults_agree_with_the_schema(request):
    path = request.config.rootpath / "schemas" / "phenology.schema.yaml"
    properties = yaml.safe_load(path.read_text())["properties"]
    defaults = {field.name: field.default for field in dataclasses.fields(PhenologyOptions)}
    assert {name: properties[name]["default"] for name in defaults} == defaults
    assert set(properties) - set(defaults) == {"min_years", "group_days"}


def test_main_reads_the_store_and_writes_the_table(tmp_path):
    dates = days_every()
    ids = ["a", "b"]
    locations = pd.DataFrame({"location_id": ids, "lon": [1.0, 2.0], "lat": [3.0, -4.0]})
    table = pd.DataFrame({"location_id": "b", "date": dates, "index": wave(dates), "reliability": 0})
    part = extract_greenness.pad_series(table, pd.Index(ids), "table")
    store = tmp_path / "greenness.zarr"
    extract_greenness.write_store(
        store, locations, extract_greenness.merge_series([part], 2), index="evi", source="test"
    )
    job = SimpleNamespace(
        input=SimpleNamespace(greenness=str(store / "zarr.json")),
        output=SimpleNamespace(cycles=tmp_path / "cycles.parquet"),
        params=SimpleNamespace(settings={"lambda_day3": 2000}),
        threads=2,
    )
    estimate_phenology.main(job)
    cycles = read_table(tmp_path / "cycles.parquet", "cycles")
    assert set(cycles["location_id"]) == {"b"} and len(cycles) == 4
    expected = estimate_cycles(
        series(wave(dates).round(4), dates), options=PhenologyOptions(lambda_day3=2000)
    )
    assert (cycles["greenup"] == expected["greenup"]).all()
