"""Season windows: between transitions, on the calendar, from a table, around dates."""

from types import SimpleNamespace

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workflow_scripts import define_seasons
from workflow_scripts.core import tables
from workflow_scripts.core.config import season_labels
from workflow_scripts.core.seasons import (
    SEASONS,
    TRANSITIONS,
    YEAR_DAYS,
    circular_difference,
    circular_median,
    in_window,
)
from workflow_scripts.define_seasons import (
    calendar_seasons,
    date_seasons,
    fixed_seasons,
    parse_day,
    phenology_seasons,
)
from workflow_scripts.phenology import climatology
from workflow_scripts.phenology.sunlight import aim_at_sunlight, longest_run, solar_declination, sun_zenith
from workflow_scripts.phenology.windows import partition_year

OFFSETS = np.array([0, 20, 45, 80, 130, 160, 190])
"""Days of the seven transitions after greenup."""


def make_locations(n=1, **columns):
    given = {"location_id": [f"p{i}" for i in range(n)], "lon": np.arange(n) * 1.0, "lat": np.full(n, 45.0)}
    return pd.DataFrame(given | columns)


def make_cycles(greenups, location="p0", amplitude=0.4, offsets=OFFSETS):
    """Cycles with the given dates of greenup."""
    start = pd.to_datetime(list(greenups))
    frame = {
        name: start + pd.to_timedelta(days, "D") for name, days in zip(TRANSITIONS, offsets, strict=True)
    }
    return pd.DataFrame({"location_id": location, **frame, "amplitude": amplitude})


def windows(seasons, location="p0"):
    return seasons[seasons["location_id"] == location].set_index("season")


# ---- climatology -----------------------------------------------------------------------------


def test_seasons_of_a_plain_location():
    cycles = make_cycles(["2018-04-10", "2019-04-12", "2020-04-08", "2021-04-14"])
    seasons = windows(phenology_seasons(make_locations(), cycles))
    assert list(seasons.index) == list(SEASONS)
    assert seasons["start_doy"].to_numpy() == pytest.approx([101, 146, 231, 291], abs=1)
    assert seasons["end_doy"].to_numpy() == pytest.approx([146, 231, 291, 101], abs=1)
    assert seasons["length_days"].to_numpy() == pytest.approx([45, 85, 60, 175.25])
    assert seasons["target_doy"]["winter"] == pytest.approx(291 + 175.25 / 2 - 365.25, abs=1)
    assert (seasons["source"] == "observed").all() and (seasons["n_years"] == 4).all()
    assert seasons["spread_days"].to_numpy() == pytest.approx([2] * 4, abs=0.6)
    assert seasons["start_date"].isna().all() and (seasons["donor_id"] == "").all()


def test_peaks_on_both_sides_of_new_year_are_one_cycle():
    """A plain median of days of the year would put maturity (2, 360, 5, 362 …) into summer."""
    cycles = make_cycles(["2017-11-15", "2018-11-08", "2019-11-20", "2020-11-09", "2021-11-16"])
    maturity = cycles["maturity"].dt.dayofyear
    assert maturity.min() < 10 and maturity.max() > 355
    seasons = windows(phenology_seasons(make_locations(lat=[-12.0]), cycles))
    start = seasons["start_doy"]["summer"]
    assert abs(circular_difference(start, circular_median(maturity))) <= 1
    assert in_window(15, start, seasons["end_doy"]["summer"])


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 364), st.integers(0, 2**31))
def test_turning_the_year_turns_the_windows(shift, seed):
    rng = np.random.default_rng(seed)
    jitter = rng.integers(-12, 13, 6)
    years = pd.to_datetime([f"{y}-04-10" for y in range(2015, 2021)])
    plain = make_cycles(years + pd.to_timedelta(jitter, "D"))
    turned = make_cycles(years + pd.to_timedelta(jitter + shift, "D"))
    a = windows(phenology_seasons(make_locations(), plain))
    b = windows(phenology_seasons(make_locations(), turned))
    assert np.abs(circular_difference(b["start_doy"], a["start_doy"] + shift)).max() < 1e-3
    assert b["length_days"].to_numpy() == pytest.approx(a["length_days"].to_numpy(), abs=1e-3)
    assert b["length_days"].sum() == pytest.approx(YEAR_DAYS, abs=1e-3)


def test_two_crops_do_not_mix_and_the_larger_one_is_taken():
    short = np.array([0, 15, 30, 45, 60, 75, 90])
    years = range(2016, 2022)
    spring = make_cycles([f"{y}-03-0{1 + y % 5}" for y in years], amplitude=0.35, offsets=short)
    autumn = make_cycles([f"{y}-07-1{y % 5}" for y in years], amplitude=0.40, offsets=short)
    autumn.loc[0, "amplitude"] = 0.1  # the largest of each year would flip
    seasons = windows(phenology_seasons(make_locations(), pd.concat([spring, autumn])))
    assert seasons["start_doy"]["spring"] == pytest.approx(193, abs=2)
    assert (seasons["n_years"] == 6).all()
    group = climatology.group_cycles(np.array([10.0, 375, 740, 150, 515, 880]), np.ones(6), 60.0)
    assert group.tolist() == [0, 0, 0, 1, 1, 1]


def test_rare_large_cycle_is_not_the_main_one():
    usual = make_cycles([f"{y}-04-10" for y in range(2016, 2021)], amplitude=0.3)
    rare = make_cycles(["2018-09-01", "2020-09-05"], amplitude=0.9)
    seasons = windows(phenology_seasons(make_locations(), pd.concat([rare, usual])))
    assert seasons["start_doy"]["spring"] == pytest.approx(101, abs=1)


def test_a_chain_of_cycles_is_not_one_group():
    days = np.arange(0, 365, 30.0)
    group = climatology.group_cycles(days, np.ones(days.size), 60.0)
    for g in set(group):
        members = days[group == g]
        assert np.abs(circular_difference(members, circular_median(members))).max() <= 61


def test_one_cycle_per_year_counts():
    cycles = pd.concat([make_cycles(["2019-04-10", "2019-05-10", "2020-04-10"])])
    assert (phenology_seasons(make_locations(), cycles)["source"] == "none").all()


def test_order_of_transitions_is_kept():
    rng = np.random.default_rng(1)
    offsets = np.sort(rng.integers(0, 300, (40, 7)), axis=1)
    days = 17_000 + 365.25 * np.arange(40)[:, None] + offsets
    usual = climatology.usual_year(np.zeros(40, int), days, np.ones(40), n_locations=1, group_days=180)
    assert (np.diff(usual.doy[0]) >= 0).all()


# ---- filling ---------------------------------------------------------------------------------


def test_filling_takes_all_windows_from_the_nearest_on_the_sphere():
    locations = make_locations(3, lon=[179.9, -179.8, 170.0], lat=[10.0, 10.0, 10.0])
    years = range(2017, 2021)
    cycles = pd.concat(
        [
            make_cycles([f"{y}-02-01" for y in years], "p1"),
            make_cycles([f"{y}-08-01" for y in years], "p2"),
            make_cycles(["2019-05-01"], "p0"),
        ]
    )
    seasons = phenology_seasons(locations, cycles)
    filled, donor = windows(seasons, "p0"), windows(seasons, "p1")
    assert (filled["source"] == "filled").all() and (filled["donor_id"] == "p1").all()
    assert filled["donor_distance_km"].to_numpy() == pytest.approx([32.9] * 4, abs=0.2)
    assert (filled["start_doy"] == donor["start_doy"]).all() and (filled["n_years"] == 4).all()
    assert donor["donor_distance_km"].isna().all()
    near = phenology_seasons(locations, cycles, max_fill_distance_km=20)
    assert (windows(near, "p0")["source"] == "none").all()
    assert windows(near, "p0")[["start_doy", "target_doy", "length_days"]].isna().all(axis=None)


def test_nobody_has_a_season(caplog):
    cycles = make_cycles(["2019-05-01"]).iloc[:0]
    seasons = phenology_seasons(make_locations(2), cycles)
    assert (seasons["source"] == "none").all() and len(seasons) == 8
    assert "2 of 2 locations have no season and no donor" in caplog.text


# ---- narrow windows --------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(
    st.floats(-200, 400),
    st.lists(st.floats(0, 130), min_size=3, max_size=3),
    st.sampled_from([1.0, 16.0, 40.0]),
)
def test_partition_fills_the_year_with_windows_long_enough(first, gaps, minimum):
    starts = partition_year(first + np.cumsum([0, *gaps])[None], minimum)
    length = np.diff(np.append(starts[0], starts[0, 0] + YEAR_DAYS))
    assert length.sum() == pytest.approx(YEAR_DAYS)
    assert length.min() >= minimum - 1e-6
    before = first + np.cumsum([0, *gaps])
    if min([*gaps, YEAR_DAYS - sum(gaps)]) >= minimum:
        assert starts[0] == pytest.approx(before)


def test_empty_winter_is_widened_and_reported(caplog):
    offsets = np.array([0, 30, 90, 180, 280, 330, 364])
    cycles = make_cycles([f"{y}-04-10" for y in range(2016, 2021)], offsets=offsets)
    seasons = windows(phenology_seasons(make_locations(), cycles))
    assert seasons["length_days"]["winter"] == pytest.approx(16)
    assert seasons["length_days"].sum() == pytest.approx(YEAR_DAYS, abs=1e-3)
    assert seasons["length_days"]["spring"] == pytest.approx(90 - (16 - 1.25) / 2, abs=0.1)
    assert "winter was empty (shorter than 5.25 days before) at 1 locations" in caplog.text


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0, 60), min_size=7, max_size=7))
def test_partition_of_eight_windows(gaps):
    before = 100 + np.cumsum([0, *gaps])
    starts = partition_year(before[None], 16.0)[0]
    length = np.diff(np.append(starts, starts[0] + YEAR_DAYS))
    assert length.min() >= 16 - 1e-6 and length.sum() == pytest.approx(YEAR_DAYS)


def test_windows_must_fit_into_the_year():
    with pytest.raises(ValueError, match="8 windows of this length do not fit"):
        partition_year(np.zeros((1, 8)), 60)


# ---- second cycle ----------------------------------------------------------------------------

SHORT = np.array([0, 15, 30, 45, 60, 75, 90])


def two_crops(location="p0"):
    years = range(2016, 2022)
    large = make_cycles([f"{y}-07-10" for y in years], location, amplitude=0.4, offsets=SHORT)
    small = make_cycles([f"{y}-03-01" for y in years], location, amplitude=0.3, offsets=SHORT)
    return pd.concat([large, small])


def test_second_cycle_has_windows_of_its_own():
    cycles = pd.concat([two_crops(), make_cycles([f"{y}-04-10" for y in range(2016, 2022)], "p1")])
    seasons = phenology_seasons(make_locations(3), cycles, both_cycles=True)
    section = {"strategy": "phenology", "names": list(SEASONS), "both_cycles": True}
    labels = [*SEASONS, *(f"{name}_2" for name in SEASONS)]
    assert seasons["season"].tolist() == labels * 3
    assert season_labels(section) == labels, "what the store and the estimate of cost are told"
    assert season_labels(section | {"both_cycles": False}) == list(SEASONS)
    assert season_labels(section | {"strategy": "calendar"}) == list(SEASONS)
    both = windows(seasons, "p0")
    assert both["length_days"].sum() == pytest.approx(YEAR_DAYS, abs=1e-3)
    assert both["start_doy"]["spring"] == pytest.approx(191, abs=1)
    assert both["start_doy"]["spring_2"] == pytest.approx(60, abs=1)
    # the main cycle's winter ends with the second cycle's greenup, and the other way round
    assert both["end_doy"]["winter"] == both["start_doy"]["spring_2"]
    assert both["end_doy"]["winter_2"] == both["start_doy"]["spring"]
    assert (both["n_years"] == 6).all() and (both["source"] == "observed").all()
    single = windows(seasons, "p1")
    assert (single["source"][4:] == "none").all() and single["start_doy"][4:].isna().all()
    assert single["length_days"][:4].sum() == pytest.approx(YEAR_DAYS, abs=1e-3)
    filled = windows(seasons, "p2")  # from p1, which has no second cycle
    assert filled["source"].tolist() == ["filled"] * 4 + ["none"] * 4
    plain = windows(phenology_seasons(make_locations(3), cycles), "p0")
    assert plain["length_days"]["winter"] == pytest.approx(YEAR_DAYS - 90)


def test_second_cycle_of_few_years_is_none_and_overlapping_cycles_share():
    rare = make_cycles([f"{y}-12-01" for y in (2016, 2018, 2020)], amplitude=0.2, offsets=SHORT)
    usual = make_cycles([f"{y}-04-10" for y in range(2012, 2022)])
    seasons = windows(phenology_seasons(make_locations(), pd.concat([usual, rare]), both_cycles=True))
    assert (seasons["source"][4:] == "none").all()
    long = two_crops()
    is_small = long["amplitude"] == 0.3
    long.loc[is_small, "dormancy"] += pd.Timedelta(60, "D")  # beyond the next greenup
    seasons = windows(phenology_seasons(make_locations(), long, both_cycles=True))
    assert seasons["length_days"].min() == pytest.approx(16, abs=1e-4)
    assert seasons["length_days"].sum() == pytest.approx(YEAR_DAYS, abs=1e-3)


def test_a_donor_of_the_same_kind_goes_first():
    locations = make_locations(4, lon=[0.0, 0.1, 2.0, 30.0], biome_num=[4, 7, 4, 9])
    years = range(2017, 2021)
    cycles = pd.concat([make_cycles([f"{y}-0{m}-01" for y in years], f"p{i}") for i, m in ((1, 2), (2, 8))])
    any_donor = phenology_seasons(locations, cycles)
    assert windows(any_donor, "p0")["donor_id"].iloc[0] == "p1"
    same = phenology_seasons(locations, cycles, fill_same="biome_num")
    assert windows(same, "p0")["donor_id"].iloc[0] == "p2"
    assert windows(same, "p3")["donor_id"].iloc[0] == "p2"  # nobody has its biome: the nearest
    near = phenology_seasons(locations, cycles, fill_same="biome_num", max_fill_distance_km=50)
    assert windows(near, "p0")["donor_id"].iloc[0] == "p1"
    assert windows(near, "p3")["source"].iloc[0] == "none"
    with pytest.raises(ValueError, match=r"seasons\.fill_same = 'climate' is no column"):
        phenology_seasons(locations, cycles, fill_same="climate")


# ---- sunlight --------------------------------------------------------------------------------


def test_declination_and_zenith_at_known_days():
    assert solar_declination([172, 355]) == pytest.approx([23.44, -23.44], abs=0.05)
    assert np.abs(solar_declination([79.5, 266])).max() < 0.5
    # on the equator at an equinox the sun is as far from the zenith as noon is away: 1.5 h
    assert sun_zenith(0.0, 80.0) == pytest.approx(22.5, abs=0.2)
    assert sun_zenith(65.0, 172.0) < sun_zenith(65.0, 80.0) < 85 < sun_zenith(65.0, 355.0)


def test_longest_run_of_days():
    table = np.array([[0, 1, 1, 0, 1], [0, 0, 0, 0, 0], [1, 1, 1, 1, 1], [1, 0, 1, 1, 0]], bool)
    begin, length = longest_run(table)
    assert begin.tolist() == [1, 0, 0, 2] and length.tolist() == [2, 0, 5, 2]


def slow_sunlit(start, length, lat, limit):
    days = [d + 0.5 for d in range(400) if d + 0.5 < length]
    return [sun_zenith(lat, (start + d - 1) % YEAR_DAYS + 1) <= limit for d in days]


@pytest.mark.parametrize("lat", [45.0, 66.0, 72.0, -72.0, 84.0])
def test_targets_lie_in_the_sunlit_part(lat):
    cycles = make_cycles([f"{y}-05-20" for y in range(2016, 2021)])
    seasons = phenology_seasons(make_locations(lat=[lat]), cycles)
    lit = aim_at_sunlight(seasons, np.full(4, lat), 85.0)
    for before, after in zip(seasons.itertuples(), lit.itertuples(), strict=True):
        expected = slow_sunlit(before.start_doy, before.length_days, lat, 85.0)
        if all(expected):
            assert after.sunlit_days == before.length_days and after.target_doy == before.target_doy
            continue
        assert after.sunlit_days == sum(expected)
        if any(expected):
            assert sun_zenith(lat, after.target_doy) <= 85
            assert in_window(after.target_doy, after.start_doy, after.end_doy)
        else:
            assert after.target_doy == before.target_doy
    if lat == 45:
        assert (lit["sunlit_days"] == lit["length_days"]).all()
    if lat == 72:  # winter: the spring side, longer than that of autumn
        winter = lit.set_index("season").loc["winter"]
        assert 0 < winter["sunlit_days"] < winter["length_days"] and winter["target_doy"] < 141


def test_polar_night_has_no_sunlit_day():
    locations = make_locations(2, lat=[78.0, 10.0])
    lit = aim_at_sunlight(calendar_seasons(locations), np.repeat([78.0, 10.0], 4), 85.0)
    dark = lit[lit["sunlit_days"] == 0]
    assert dark[["location_id", "season"]].to_numpy().tolist() == [["p0", "winter"]]
    dated = date_seasons(
        locations, pd.DataFrame({"location_id": ["p0"], "date": ["2020-10-25"]}), names=["event"], days=30
    )
    moved = aim_at_sunlight(dated, np.array([78.0, 10.0]), 85.0)
    assert moved["start_date"][0] < moved["target_date"][0] < pd.Timestamp("2020-10-15")
    assert np.isnan(moved["sunlit_days"][1])


def test_only_wanted_labels_in_the_wanted_order():
    cycles = make_cycles([f"{y}-04-10" for y in range(2016, 2021)])
    seasons = phenology_seasons(make_locations(2), cycles, names=["winter", "spring"])
    assert seasons["season"].tolist() == ["winter", "spring"] * 2
    assert seasons["location_id"].tolist() == ["p0", "p0", "p1", "p1"]
    with pytest.raises(ValueError, match=r"\['wet'\] cannot be had from strategy 'phenology'"):
        phenology_seasons(make_locations(), cycles, names=["wet"])


# ---- other strategies ------------------------------------------------------------------------


def test_calendar_windows_as_long_as_the_vegetations():
    """Each around its day, as long as the place's own vegetation window; 30 days where it has none."""
    locations = make_locations(3)
    lengths = pd.DataFrame(
        {
            "location_id": np.repeat(locations["location_id"].to_numpy(), 4),
            "season": list(SEASONS) * 3,
            "length_days": [20, 90, 40.5, 214.5, 60, 30, 16, 259, np.nan, np.nan, np.nan, np.nan],
        }
    )
    found = calendar_seasons(locations, lengths=lengths.sample(frac=1, random_state=0))
    plain = calendar_seasons(locations)
    expected = np.where(lengths["length_days"] > 0, lengths["length_days"], 30)
    np.testing.assert_allclose(found["length_days"], expected)
    np.testing.assert_allclose(found["target_doy"], plain["target_doy"])


def test_calendar_windows():
    seasons = windows(calendar_seasons(make_locations()))
    assert seasons["target_doy"].tolist() == [79, 172, 265, 355]
    assert (seasons["length_days"] == 30).all() and (seasons["source"] == "calendar").all()
    assert seasons["end_doy"]["winter"] == pytest.approx(370 - 365.25)


def test_random_shift_moves_a_location_as_a_whole_and_does_not_depend_on_others():
    many = calendar_seasons(make_locations(300), random_shift=True, seed=3)
    few = calendar_seasons(make_locations(2), random_shift=True, seed=3)
    pd.testing.assert_frame_equal(many.iloc[:8], few)
    shift = circular_difference(few["target_doy"], [79, 172, 265, 355] * 2).reshape(2, 4)
    assert (np.ptp(shift, axis=1) < 1e-6).all() and shift[0, 0] != shift[1, 0]
    spring = many[many["season"] == "spring"]["target_doy"]
    assert np.histogram(spring, bins=4, range=(1, 367))[0].min() > 50
    other = calendar_seasons(make_locations(2), random_shift=True, seed=4)
    assert (other["target_doy"] != few["target_doy"]).any()


def test_fixed_windows_by_hemisphere():
    table = {"summer": {"north": ["06-15", "08-15"], "south": {"center": "01-15", "days": 31}}}
    seasons = fixed_seasons(make_locations(3, lat=[10.0, 0.0, -10.0]), table, names=["summer"])
    assert seasons["start_doy"].to_numpy() == pytest.approx([166, 166, 15 - 31 + 365.25])
    assert seasons["target_doy"].to_numpy() == pytest.approx([196.5, 196.5, 15])
    assert (seasons["source"] == "fixed").all()
    assert in_window(3, *seasons.loc[2, ["start_doy", "end_doy"]])


def test_fixed_windows_by_any_column():
    table = {"wet": {"7": [300, 60], "other": [100, 200]}, "dry": {"7": [150, 200]}}
    locations = make_locations(2, biome_num=[7, 4])
    seasons = fixed_seasons(locations, table, names=["wet", "dry"], by="biome_num")
    assert seasons["source"].tolist() == ["fixed", "fixed", "fixed", "none"]
    assert seasons["length_days"].tolist()[:2] == [125.25, 50]
    same = fixed_seasons(locations, {"any": [10, 20]}, names=["any"])
    assert same["start_doy"].tolist() == [10, 10]
    with pytest.raises(ValueError, match=r"seasons\.by = 'soil' is neither"):
        fixed_seasons(locations, table, names=["wet"], by="soil")
    with pytest.raises(ValueError, match=r"no window for \['hot'\]"):
        fixed_seasons(locations, table, names=["hot"])


def test_days_of_the_table():
    assert [parse_day(d) for d in (1, 366, "01-01", "03-01", "12-31")] == [1, 366, 1, 60, 365]
    for wrong in ("02-30", "13-01", "July", 0, 367):
        with pytest.raises(ValueError, match=r"seasons\.table"):
            parse_day(wrong)


def test_dates_of_each_location(caplog):
    dates = pd.DataFrame({"location_id": ["p1", "p0"], "date": ["2020-06-01", "2019-01-10"]})
    seasons = date_seasons(make_locations(3), dates, names=["event"], days=10)
    assert seasons["start_date"].tolist()[:2] == [pd.Timestamp("2018-12-31"), pd.Timestamp("2020-05-22")]
    assert seasons["target_date"][0] == pd.Timestamp("2019-01-10") and seasons["length_days"][0] == 20
    assert seasons["source"].tolist() == ["dates", "dates", "none"] and pd.isna(seasons["end_date"][2])
    assert seasons["start_doy"].isna().all()
    assert "1 of 3 locations have no date" in caplog.text
    before = date_seasons(make_locations(3), dates, names=["event"], days=10, before_only=True)
    assert before["end_date"][0] == pd.Timestamp("2019-01-10")
    assert before["target_date"][0] == pd.Timestamp("2019-01-05")


def test_dates_with_a_column_per_label_and_errors():
    dates = pd.DataFrame({"location_id": ["p0"], "sown": ["2020-03-01"], "cut": [""]})
    seasons = date_seasons(make_locations(), dates, names=["a", "b"], column={"a": "sown", "b": "cut"})
    assert seasons["source"].tolist() == ["dates", "none"]
    with pytest.raises(ValueError, match="lacks the columns"):
        date_seasons(make_locations(), dates, names=["a"])
    with pytest.raises(ValueError, match="2 labels but"):
        date_seasons(make_locations(), dates, names=["a", "b"], column="sown")
    with pytest.raises(ValueError, match=r"location_id repeated: \['p0'\]"):
        date_seasons(make_locations(), pd.concat([dates, dates]), names=["a"], column="sown")
    with pytest.raises(ValueError, match=r"location 'p0' has the date 'soon'"):
        date_seasons(make_locations(), dates.assign(sown="soon"), names=["a"], column="sown")


# ---- stage -----------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", ["phenology", "calendar", "fixed", "dates"])
def test_main_writes_every_strategy_in_one_layout(tmp_path, strategy, caplog):
    locations = make_locations(2)
    kinds = {c: str for c in tables.COLUMNS["locations"]}
    filled = {c: "" for c in kinds if c not in locations and c != "geometry"}
    numbers = dict.fromkeys(
        ("shard", "eco_id", "biome_num", "inclusion_probability", "distance_to_evaluation_km"), 0
    )
    whole = locations.assign(**filled | numbers | {"is_mountain": False})
    whole = gpd.GeoDataFrame(whole, geometry=gpd.points_from_xy(whole["lon"], whole["lat"]), crs=4326)
    tables.write_table(whole, tmp_path / "locations.parquet", "locations")
    cycles = make_cycles([f"{y}-04-10" for y in range(2016, 2021)])
    missing = {c: 0 for c in tables.COLUMNS["cycles"] if c not in cycles}
    tables.write_table(cycles.assign(**missing), tmp_path / "cycles.parquet", "cycles")
    (tmp_path / "dates.csv").write_text("location_id,date\np0,2020-01-01\n")
    settings = {
        "strategy": strategy,
        "names": ["spring", "autumn"],
        "table": {"spring": [80, 170], "autumn": [260, 350]},
    }
    if strategy == "dates":
        settings["column"] = {"spring": "date", "autumn": "date"}
    job = SimpleNamespace(
        input=SimpleNamespace(
            locations=tmp_path / "locations.parquet",
            cycles=tmp_path / "cycles.parquet",
            dates=tmp_path / "dates.csv",
        ),
        output=SimpleNamespace(seasons=tmp_path / "seasons.parquet"),
        params=SimpleNamespace(
            settings=settings, climatology={"min_years": 3, "group_days": 60}, seed=1, max_sun_zenith=85
        ),
    )
    define_seasons.main(job)
    assert "have no day with the sun" not in caplog.text
    job.params.max_sun_zenith = 20  # never so high at 45° N
    define_seasons.main(job)
    assert "have no day with the sun within scenes.max_sun_zenith = 20°" in caplog.text
    seasons = tables.read_table(tmp_path / "seasons.parquet", "seasons")
    assert list(seasons.columns) == list(tables.COLUMNS["seasons"])
    assert seasons["location_id"].tolist() == ["p0", "p0", "p1", "p1"]
    assert seasons["season"].tolist() == ["spring", "autumn"] * 2
    expected = {"phenology": {"observed", "filled"}, "dates": {"dates", "none"}}.get(strategy, {strategy})
    assert set(seasons["source"]) == expected
