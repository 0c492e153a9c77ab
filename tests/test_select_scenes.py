"""Choice of scenes: against a slow, obvious selector, and case by case."""

import json

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import shapely
from made_scenes import CENTER, EPSG, LEFT, SETTINGS, SIZE_M, TOP, WIDTH_M, make_locations, make_windows

from workflow_scripts import select_scenes
from workflow_scripts.core import grid, tables
from workflow_scripts.selection import matching

OTHER_EPSG = 32633


def footprint(epsg, left, top, width_m):
    ring = np.array(
        [(left, top), (left + width_m, top), (left + width_m, top - width_m), (left, top - width_m)]
    )
    return shapely.Polygon(np.column_stack(grid.unproject(*ring.astype(float).T, epsg)))


def item(item_id, day, cloud=5.0, **changes):
    """Row of table `items` on the default tile."""
    row = {
        "item_id": item_id,
        "collection": "c",
        "catalog": "made",
        "datetime": pd.Timestamp(day) + pd.Timedelta(hours=10),
        "mgrs_tile": "32TQT",
        "epsg": EPSG,
        "cloud_cover": cloud,
        "nodata": 0.0,
        "sun_zenith": 50.0,
        "baseline": "02.14",
        "dn_offset": 0,
        "offset_source": "made",
        "datatake": item_id,
        "created": pd.Timestamp(day) + pd.Timedelta(days=1),
        "origin_x": float(LEFT),
        "origin_y": float(TOP),
        "width_m": float(WIDTH_M),
        "height_m": float(WIDTH_M),
        "hrefs": json.dumps({"B02": "b", "SCL": "s"}),
        "geometry": footprint(EPSG, LEFT, TOP, WIDTH_M),
    }
    return {**row, **changes}


def in_other_zone(item_id, day, cloud=5.0, **changes):
    """The same ground seen in the tile of the next zone."""
    lon, lat = grid.unproject(*CENTER, EPSG)
    x, y = grid.project(lon, lat, OTHER_EPSG)
    left, top = round(x / 60) * 60 - 1500, round(y / 60) * 60 + 1500
    place = {
        "origin_x": float(left),
        "origin_y": float(top),
        "geometry": footprint(OTHER_EPSG, left, top, WIDTH_M),
    }
    return item(item_id, day, cloud, mgrs_tile="33TTN", epsg=OTHER_EPSG, **{**place, **changes})


def frame(rows):
    return gpd.GeoDataFrame(rows, geometry="geometry", crs=4326)


def select(rows, *, points=(CENTER,), windows=None, size_m=SIZE_M, **settings):
    locations = make_locations(points).assign(location=np.arange(len(points)))
    table = make_windows(locations["location_id"], **({"windows": windows} if windows else {}))
    return select_scenes.select(
        locations, table, frame(rows), settings={**SETTINGS, **settings}, size_m=size_m
    )


def chosen(result, season="summer", location=0):
    rows = result[(result["season"] == season) & (result["location"] == location) & (result["rank"] >= 0)]
    return list(rows.sort_values("rank")["item_id"])


def counts(result, season="summer", location=0):
    rows = result[(result["season"] == season) & (result["location"] == location) & (result["rank"] < 0)]
    return dict(zip(rows["reason"], rows["n"], strict=True))


def obvious(rows, settings, windows, point):
    """Select for one location the slow way: candidates and counts per season. One zone, no twin tiles."""
    result = {}
    newest = {}
    for row in rows:
        if row["dn_offset"] >= 0:
            key = row["datatake"], row["mgrs_tile"]
            age = float(row["baseline"]), row["created"], row["item_id"]
            if key not in newest or age > newest[key]:
                newest[key] = age
    left, top = grid.patch_origin(*point, SIZE_M)
    for season, (start, end) in windows.items():
        length = (end - start) % 365.25
        target = (start + length / 2 - 1) % 365.25 + 1
        passed, cloudy, left_out = [], [], {}
        for row in rows:
            doy = row["datetime"].dayofyear
            if not (start <= doy < end if start < end else doy >= start or doy < end):
                continue
            days = min(
                (doy - target + shift for shift in (-365.25, 0, 365.25)), key=lambda d: (abs(d), d > 0)
            )
            key = row["datatake"], row["mgrs_tile"]
            if row["dn_offset"] < 0:
                reason = "offset_undecided"
            elif newest[key][2] != row["item_id"]:
                reason = "duplicate"
            elif not (left >= LEFT and left + SIZE_M <= LEFT + WIDTH_M) or not (
                top <= TOP and top - SIZE_M >= TOP - WIDTH_M
            ):
                reason = "footprint"
            elif row["nodata"] > settings["max_nodata"]:
                reason = "nodata"
            elif row["sun_zenith"] > settings["max_sun_zenith"]:
                reason = "sun_zenith"
            elif row["cloud_cover"] > settings["max_cloud_cover"]:
                reason = "cloud_cover"
            else:
                reason = ""
            keys = (row["cloud_cover"], abs(round(days)), row["item_id"])
            if settings["choice"] == "closest_to_target":
                keys = (keys[1], keys[0], keys[2])
            if reason == "":
                passed.append(keys)
            elif reason == "cloud_cover":
                cloudy.append(keys)
            else:
                left_out[reason] = left_out.get(reason, 0) + 1
        k = settings["candidates"]
        fillers = sorted(cloudy)[: max(0, k - len(passed))] if settings["second_pass"] else []
        if not passed and len(fillers) < len(cloudy) and settings["second_pass"]:
            left_out["not_in_top"] = len(cloudy) - len(fillers)
        elif len(fillers) < len(cloudy):
            left_out["cloud_cover"] = len(cloudy) - len(fillers)
        if len(passed) > k:
            left_out["not_in_top"] = len(passed) - k
        if not passed and not fillers and not left_out:
            left_out["no_scene"] = 0
        result[season] = [keys[2] for keys in (sorted(passed) + fillers)[:k]], left_out
    return result


@pytest.mark.parametrize("seed", range(6))
def test_equals_the_obvious_selector(seed):
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(120):
        day = pd.Timestamp("2020-01-01") + pd.Timedelta(days=int(rng.integers(0, 1096)))
        rows.append(
            item(
                f"I{i:03d}",
                day,
                float(rng.choice([0, 0, 1, 10, 19.9, 20, 20.1, 60])),
                nodata=float(rng.choice([0, 40, 95])),
                sun_zenith=float(rng.choice([40, 84.9, 85.1])),
                dn_offset=int(rng.choice([0, 1000, -1], p=(0.6, 0.3, 0.1))),
                datatake=f"take {int(rng.integers(0, 90))}",
                baseline=str(rng.choice(["02.14", "04.00", "05.10"])),
                created=day + pd.Timedelta(days=int(rng.integers(1, 900))),
            )
        )
        # one data take has one day
        twins = [row for row in rows[:-1] if row["datatake"] == rows[-1]["datatake"]]
        rows[-1]["datetime"] = twins[0]["datetime"] if twins else rows[-1]["datetime"]
    settings = {
        **SETTINGS,
        "max_nodata": 90,
        "choice": ("clearest", "closest_to_target")[seed % 2],
        "candidates": 3 + seed % 3,
        "second_pass": bool(seed % 3),
    }
    windows = {"summer": (152, 170), "autumn": (244, 260), "winter": (350, 20), "never": (100, 100.5)}
    points = (CENTER, (LEFT + 320, TOP - 320), (LEFT + 300, TOP - 900), (LEFT + 900, TOP - 2800))
    result = select(rows, points=points, windows=windows, **settings)
    for location, point in enumerate(points):
        expected = obvious(rows, settings, windows, point)
        for season, (candidates, left_out) in expected.items():
            assert chosen(result, season, location) == candidates, (season, location)
            assert counts(result, season, location) == left_out, (season, location)


def test_ties_go_to_fewest_days_then_to_the_id():
    days = {"E": "2021-07-30", "C": "2020-07-17", "B": "2022-07-17", "A": "2021-07-10"}
    result = select([item(name, day, 0.0) for name, day in days.items()])
    # target day 198: 17 July in 2021 and 2022, 16 July in the leap year 2020
    assert chosen(result) == ["B", "C", "A", "E"]
    assert list(result.loc[result["rank"] >= 0, "days_from_target"]) == [0, 1, -7, 13]


def test_window_over_new_year():
    result = select(
        [item("A", "2021-12-31", 1.0), item("B", "2022-01-02", 2.0), item("C", "2021-03-01", 0.0)]
    )
    assert chosen(result, "winter") == ["A", "B"]
    days = dict(zip(result["item_id"], result["days_from_target"], strict=True))
    assert (days["A"], days["B"]) == (-15, -13)


def test_absolute_dates():
    locations = make_locations([CENTER]).assign(location=[0])
    windows = make_windows(["P0"], {"event": (np.nan, np.nan)}).assign(
        start_date=pd.Timestamp("2021-06-01"),
        end_date=pd.Timestamp("2021-06-11"),
        target_date=pd.Timestamp("2021-06-06"),
    )
    days = ("2021-05-31", "2021-06-01", "2021-06-10", "2021-06-11", "2022-06-05")
    rows = [item(f"I{i}", day) for i, day in enumerate(days)]
    result = select_scenes.select(locations, windows, frame(rows), settings=SETTINGS, size_m=SIZE_M)
    assert chosen(result, "event") == ["I2", "I1"]
    assert list(result["days_from_target"]) == [4, -5]


def test_second_pass_where_a_season_is_empty_or_its_list_short():
    rows = [item("A", "2021-07-01", 60.0), item("B", "2021-07-02", 30.0), item("C", "2021-12-20", 70.0)]
    rows += [item("D", "2021-12-21", 10.0), item("E", "2021-07-03", 25.0, hrefs=json.dumps({"B02": "b"}))]
    result = select(rows)
    assert chosen(result) == ["B", "A"] and counts(result) == {"cloud_cover": 1}
    assert set(result.loc[result["season"] == "summer", "reason"]) == {"second_pass", "cloud_cover"}
    assert chosen(result, "winter") == ["D", "C"] and counts(result, "winter") == {}
    assert list(result.loc[result["item_id"].isin(["D", "C"]), "reason"]) == ["candidate", "second_pass"]
    short = select(rows, candidates=1)
    assert chosen(short, "winter") == ["D"] and counts(short, "winter") == {"cloud_cover": 1}
    assert chosen(select(rows, second_pass=False)) == []


def test_scenes_of_the_second_pass_come_last_and_choose_no_zone():
    rows = [item("A", "2021-07-01", 19.0), in_other_zone("B", "2021-07-02", 30.0)]
    rows += [in_other_zone("C", "2021-12-20", 30.0), in_other_zone("D", "2021-12-21", 40.0)]
    rows += [item("E", "2021-12-22", 19.0)]
    assert chosen(select(rows)) == ["A", "B"] and chosen(select(rows), "winter") == ["E", "C", "D"]


def test_seasons_share_one_zone_where_candidates_allow():
    rows = [in_other_zone("A", "2021-07-01", 0.0), item("B", "2021-07-02", 9.0), item("C", "2021-12-20", 3.0)]
    assert chosen(select(rows)) == ["B", "A"]
    rows[2] = in_other_zone("C", "2021-12-20", 3.0)
    assert chosen(select(rows)) == ["A", "B"]
    assert chosen(select(rows), "winter") == ["C"]


def test_same_take_in_two_tiles_of_a_zone_is_one_view():
    rows = [
        item("A", "2021-07-01", 4.0, datatake="T"),
        item("B", "2021-07-01", 2.0, datatake="T", mgrs_tile="32TPT"),
    ]
    rows[1]["mgrs_tile"] = ""  # found by its footprint
    result = select(rows)
    assert chosen(result) == ["B"] and counts(result) == {"duplicate": 1}


def test_items_without_tile_are_matched_by_footprint():
    far = footprint(EPSG, LEFT + 50_000, TOP, WIDTH_M)
    rows = [
        item("A", "2021-07-01", np.nan, mgrs_tile="", sun_zenith=np.nan, nodata=np.nan),
        item("B", "2021-07-02", np.nan, mgrs_tile="", origin_x=LEFT + 50_000.0, geometry=far),
        item("C", "2021-07-03", np.nan, mgrs_tile="", epsg=0),
    ]
    result = select(rows)
    assert chosen(result) == ["A"] and counts(result) == {"footprint": 2}


def test_swath_edge_must_hold_the_whole_patch():
    x, y = CENTER
    for shift, expected in ((-1, ["A"]), (25, [])):
        half = shapely.box(x - 320 - 12 + shift, y - 2000, x + 2000, y + 2000)
        ring = shapely.transform(half, lambda c: np.column_stack(grid.unproject(*c.T, EPSG)))
        assert chosen(select([item("A", "2021-07-01", geometry=ring)])) == expected


def test_footprint_in_two_parts_at_the_antimeridian():
    epsg, lat = 32601, 65.7
    x, y = grid.project(180.0, lat, epsg)
    box = shapely.segmentize(shapely.box(x - 3000, y - 3000, x + 3000, y + 3000), 500)
    ring = np.column_stack(grid.unproject(*shapely.get_coordinates(box).T, epsg))
    whole = shapely.Polygon(np.column_stack([ring[:, 0] % 360, ring[:, 1]]))
    east = whole.intersection(shapely.box(0, -90, 180, 90))
    west = shapely.transform(whole.intersection(shapely.box(180, -90, 360, 90)), lambda c: c - [360, 0])
    parts = shapely.MultiPolygon([east, west])
    assert parts.bounds[2] - parts.bounds[0] > 359
    row = item("A", "2021-07-01", mgrs_tile="", epsg=epsg, geometry=parts, origin_x=np.nan, origin_y=np.nan)
    row |= {"width_m": np.nan, "height_m": np.nan}
    locations = make_locations([CENTER]).assign(location=[0], lon=[-179.999], lat=[lat])
    holds = matching.holds_patch(
        pd.DataFrame({"location": [0], "item": [0]}), locations, frame([row]), SIZE_M
    )
    assert holds.tolist() == [True]


def test_same_cycle_prefers_one_vegetation_year():
    rows = [
        item("A", "2020-07-10", 0.0),
        item("B", "2021-07-10", 5.0),
        item("C", "2022-01-10", 8.0),  # winter of the year that began in summer 2021
        item("D", "2020-01-10", 1.0),
    ]
    result = select(rows, choice="same_cycle")
    assert chosen(result)[0] == "B" and chosen(result, "winter")[0] == "C"
    assert chosen(select(rows))[0] == "A"


def test_every_season_has_a_row_even_without_any_item():
    locations = make_locations([CENTER, CENTER]).assign(location=[0, 1])
    windows = make_windows(["P0", "P1"])
    windows.loc[0, ["start_doy", "end_doy", "target_doy"]] = np.nan
    empty = frame([item("A", "2021-07-01")]).iloc[:0]
    result = select_scenes.select(locations, windows, empty, settings=SETTINGS, size_m=SIZE_M)
    assert list(result["reason"]) == ["no_window", "no_scene", "no_scene", "no_scene"]
    assert list(result["n"]) == [0] * 4 and set(result["rank"]) == {-1}


def test_places_beyond_every_tile_have_no_scene():
    locations = make_locations([CENTER]).assign(location=[0], lon=[10.0], lat=[84.9])
    nothing = select_scenes.read_items([], [])
    result = select_scenes.select(locations, make_windows(["P0"]), nothing, settings=SETTINGS, size_m=SIZE_M)
    assert list(result["reason"]) == ["no_scene", "no_scene"]
    elsewhere = frame([item("A", "2021-07-01")])
    result = select_scenes.select(
        locations, make_windows(["P0"]), elsewhere, settings=SETTINGS, size_m=SIZE_M
    )
    assert list(result["reason"]) == ["no_scene", "no_scene"]


def test_table_can_be_written_and_read(tmp_path):
    result = select([item("A", "2021-07-01"), item("B", "2021-07-02", 50.0)])
    tables.write_table(result, tmp_path / "scenes.parquet", "scenes")
    assert tables.read_table(tmp_path / "scenes.parquet", "scenes").shape == result.shape


def test_score_weighs_clouds_against_days():
    rows = [
        item("near", "2021-07-17", 10.0),  # a day from the target
        item("far", "2021-08-16", 2.0),  # a month
        item("low sun", "2021-07-16", 1.0, sun_zenith=80.0),
    ]
    score = {"cloud_cover": 1.0, "days": 0.5, "nodata": 0.0, "sun_zenith": 0.0}
    assert chosen(select(rows, choice="score", score=score)) == ["low sun", "near", "far"]
    assert chosen(select(rows, choice="score", score=score | {"days": 0.1})) == ["low sun", "far", "near"]
    assert chosen(select(rows, choice="score", score=score | {"sun_zenith": 1.0})) == [
        "near",
        "far",
        "low sun",
    ]
