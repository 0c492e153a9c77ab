"""Retrieval: exact pixels, screening, faults, and what a rerun fetches."""

import errno
import json
import multiprocessing
import os
import shutil

import numpy as np
import pandas as pd
import pytest
import rasterio
from made_scenes import CENTER, LEFT, SIZE_M, TOP, World, make_item, read_by_hand, write_files

from workflow_scripts import retrieve_patches
from workflow_scripts.core import bands, grid, patches, ranges, store, tables

POINTS = (CENTER, (CENTER[0] - 700, CENTER[1] + 300), (CENTER[0] + 333, CENTER[1] - 777))
CLEAR = (
    ("A", "2021-07-01", 1.0),
    ("B", "2021-08-01", 3.0),
    ("C", "2021-12-20", 2.0),
    ("D", "2022-02-10", 4.0),
)


def cloud_over_center(scl):
    """Cloud (9) over the middle of the scene, snow (11) elsewhere."""
    scl = np.full_like(scl, 11)
    scl[55:96, 55:96] = 9
    return scl


@pytest.fixture
def make_world(tmp_path, monkeypatch):
    """Make a world of scenes (id, day, cloud cover) below the working directory."""
    monkeypatch.chdir(tmp_path)

    def make(scenes=CLEAR, *, scl=None, properties=None, without=None, points=POINTS, **options):
        items = []
        for item_id, day, cloud in scenes:
            write_files(
                "scenes", item_id, scl=(scl or {}).get(item_id, 4), without=(without or {}).get(item_id, ())
            )
            extra = (properties or {}).get(item_id, {})
            items.append(make_item(item_id, day, **{"eo:cloud_cover": cloud, **extra}))
        return World(tmp_path, items, points=points, **options)

    return make


def contents(world):
    """All arrays of the store, and the table without what only tells how it came about."""
    dataset = store.open_store(world.store).load()
    return {name: dataset[name].values for name in store.ARRAYS}, world.retrieved()


def assert_same(first, second):
    for name, values in first[0].items():
        np.testing.assert_array_equal(values, second[0][name], err_msg=name)
    assert first[1].equals(second[1])


def count_opened(monkeypatch):
    """Record each file that is opened."""
    opened, original = [], ranges.Ranges.read

    def record(self, href, first, last):
        if first == 0:
            opened.append(href)
        return original(self, href, first, last)

    monkeypatch.setattr(ranges.Ranges, "read", record)
    return opened


def scenes_of(hrefs):
    return {os.path.basename(os.path.dirname(href)) for href in hrefs}


def test_pixels_are_those_of_the_files_minus_the_offset(make_world):
    offset = {"B": {"s2:processing_baseline": "04.00"}, "D": {"s2:processing_baseline": "05.09"}}
    world = make_world((("B", "2021-08-01", 3.0), ("D", "2022-02-10", 4.0)), properties=offset)
    table = world.run()
    assert list(table["status"]) == ["ok"] * 6
    assert set(table["dn_offset"]) == {1000} and set(table["offset_source"].str.contains("baseline")) == {
        True
    }
    dataset = store.open_store(world.store).load()
    for row in table.itertuples():
        patch = dataset.isel(location=row.location).sel(season=row.season)
        for part in ("dn10", "dn20", "dn60"):
            raw = read_by_hand("scenes", row.item_id, part, row.origin_x, row.origin_y).astype(int)
            expected = np.where(raw == 0, 0, np.maximum(raw - 1000, 1))
            np.testing.assert_array_equal(patch[part].values, expected)
        assert abs(row.origin_x + SIZE_M / 2 - POINTS[row.location][0]) <= 10
        assert abs(row.origin_y - SIZE_M / 2 - POINTS[row.location][1]) <= 10
        assert (patch["origin60_x"] - LEFT) % 60 == 0 and (patch["origin60_y"] - TOP) % 60 == 0
        assert 0 <= row.origin_x - patch["origin60_x"] < 60
        assert str(patch["datetime"].values)[:10] == str(row.datetime)[:10]
    assert dataset["aligned"].values.all()


def test_each_file_is_opened_once_per_job(make_world, monkeypatch):
    world = make_world(points=POINTS, per_shard=3, scl={"A": cloud_over_center})
    opened = count_opened(monkeypatch)
    world.run()
    assert len(opened) == len(set(opened))


def test_southern_tiles_have_their_own_60_m_phase(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    where = {"epsg": 32732, "top": 4_000_040, "left": 499_980}  # 40 mod 60, as tiles of the south
    write_files("scenes", "S", **where)
    item = make_item("S", "2021-07-01", tile="", **where)
    item["properties"]["grid:code"] = None
    world = World(tmp_path, [item], points=(CENTER,))
    lon, lat = grid.unproject(500_900.0, 3_999_033.0, 32732)
    locations = tables.read_table("locations.parquet", "locations").assign(lon=lon, lat=lat)
    tables.write_table(locations, "locations.parquet", "locations")
    world.tiles = (grid.mgrs_tiles(lon, lat, SIZE_M)[0][0],)
    row = world.run().query("season == 'summer'").iloc[0]
    assert row["status"] == "ok" and row["epsg"] == 32732
    patch = store.open_store(world.store).isel(location=0).sel(season="summer").load()
    assert (4_000_040 - patch["origin60_y"]) % 60 == 0
    np.testing.assert_array_equal(
        patch["dn60"].values, read_by_hand("scenes", "S", "dn60", row["origin_x"], row["origin_y"])
    )


def test_60_m_window_beyond_the_file_is_zero_and_no_hole(make_world):
    edge = (LEFT + SIZE_M / 2, TOP - SIZE_M / 2)
    corner = (LEFT + 3000 - SIZE_M / 2, TOP - 3000 + SIZE_M / 2)
    table = make_world(points=(edge, corner)).run()
    assert set(table["status"]) == {"ok"} and (table["valid_fraction"] == 1).all()
    dn60 = store.open_store("patches.zarr")["dn60"].values
    assert (dn60[1, :, :, -1] == 0).all() and (dn60[1, :, :, :, -1] == 0).all()


def test_class_fractions_and_span_are_stored(make_world):
    def half_snow(scl):
        scl[:, ::2] = 11
        return scl

    world = make_world(scl={"C": half_snow}, points=POINTS[:2])
    table = world.run().set_index(["location", "season"])
    dataset = store.open_store(world.store).load()
    winter = dataset["scl_fraction"].sel(season="winter")
    np.testing.assert_allclose(winter.sel(scl_class=11), 0.5)
    np.testing.assert_allclose(winter.sel(scl_class=4), 0.5)
    np.testing.assert_allclose(dataset["scl_fraction"].sum("scl_class"), 1, rtol=1e-6)
    dates = table["datetime"].unstack("season")
    expected = (dates.max(axis=1) - dates.min(axis=1)) / pd.Timedelta(days=1)
    np.testing.assert_allclose(dataset["span_days"], expected, rtol=1e-6)
    # a store of before these arrays gets them without reading a scene again
    for item_id, _, _ in CLEAR:
        shutil.rmtree(f"scenes/{item_id}")
    for name in ("scl_fraction", "span_days"):
        shutil.rmtree(world.store / name)
    world.create()
    world.retrieve()
    again = store.open_store(world.store).load()
    np.testing.assert_array_equal(again["scl_fraction"], dataset["scl_fraction"])
    np.testing.assert_array_equal(again["span_days"], dataset["span_days"])


def test_cloudy_patch_gives_way_to_next_candidate_and_snow_does_not_count(make_world):
    world = make_world(scl={"A": cloud_over_center, "C": 11})
    table = world.run()
    first = table.query("location == 0 and season == 'summer'").iloc[0]
    assert first["item_id"] == "B" and first["rank"] == 1 and first["cloud_fraction"] == 0
    screened = json.loads(first["screened"])
    assert [(e["item_id"], e["outcome"]) for e in screened] == [("A", "cloudy"), ("B", "ok")]
    assert screened[0]["cloud_fraction"] == 1.0
    winter = table.query("season == 'winter'")
    assert set(winter["item_id"]) == {"C"} and set(winter["cloud_fraction"]) == {0.0}


def test_the_index_tells_scenes_of_the_second_pass(tmp_path, monkeypatch):
    """In summer the one clear scene has its cloud over the patch, a cloudier one has not; in winter all is well."""
    monkeypatch.chdir(tmp_path)
    scenes = (("A", "2021-07-01", 5.0), ("B", "2021-07-06", 60.0), ("C", "2021-12-20", 5.0))
    for item_id, _, _ in scenes:
        write_files("scenes", item_id, scl=9 if item_id == "A" else 4)
    items = [make_item(item_id, day, **{"eo:cloud_cover": cloud}) for item_id, day, cloud in scenes]
    table = World(tmp_path, items).run()
    assert list(table["item_id"]) == ["B", "C"]
    assert list(table["reason"]) == ["second_pass", "candidate"]


def test_cloud_fraction_is_counted_over_the_patch(make_world):
    def stripes(scl):
        for row, value in ((0, 3), (1, 8), (2, 10), (3, 11), (4, 7)):
            scl[row::10] = value
        return scl

    world = make_world((("A", "2021-07-01", 1.0),), scl={"A": stripes}, points=(CENTER,))
    world.limits["max_cloud_fraction"] = 0.5
    row = world.run().iloc[0]
    scl = read_by_hand("scenes", "A", "scl", row["origin_x"], row["origin_y"])[0]
    assert row["cloud_fraction"] == pytest.approx(np.isin(scl, (3, 8, 9, 10)).mean())


def test_holes_are_refused_wherever_they_are(make_world):
    world = make_world(points=(CENTER,))
    with rasterio.open("scenes/A/B11.tif", "r+") as file:
        values = file.read(1)
        values[75, 75] = 0
        file.write(values, 1)
    with rasterio.open("scenes/C/B09.tif", "r+") as file:
        values = file.read(1)
        values[25, 25] = 0
        file.write(values, 1)
    table = world.run().set_index("season")
    assert table.loc["summer", "item_id"] == "B" and table.loc["winter", "item_id"] == "D"
    entry = json.loads(table.loc["summer", "screened"])[0]
    assert entry["outcome"] == "nodata" and entry["valid_fraction"] == pytest.approx(1 - 1 / 32**2, abs=1e-5)
    entry = json.loads(table.loc["winter", "screened"])[0]
    assert entry["valid_fraction"] == pytest.approx(1 - 9 / 32**2, abs=1e-5)


def damage(path):
    """Overwrite the compressed blocks of a file, leaving its header."""
    size = os.path.getsize(path)
    with open(path, "r+b") as file:
        file.seek(size // 2)
        file.write(b"\xff" * (size // 2))


def test_unreadable_files_are_named_and_the_next_candidate_taken(make_world):
    faults = ("corrupt", "truncated", "missing", "other grid", "other type")
    scenes = [(fault, f"2021-07-{i + 1:02d}", float(i)) for i, fault in enumerate(faults)]
    world = make_world((*scenes, ("good", "2021-08-01", 9.0)), points=(CENTER,))
    world.settings["candidates"] = 6
    damage("scenes/corrupt/B05.tif")
    os.truncate("scenes/truncated/B05.tif", 900)
    os.remove("scenes/missing/B05.tif")
    write_files("elsewhere", "other grid", left=LEFT + 7)
    os.replace("elsewhere/other grid/B05.tif", "scenes/other grid/B05.tif")
    shutil.copyfile("scenes/other type/SCL.tif", "scenes/other type/B05.tif")
    row = world.run().set_index("season").loc["summer"]
    assert row["item_id"] == "good" and row["rank"] == 5
    screened = json.loads(row["screened"])
    assert [entry["item_id"] for entry in screened] == [*faults, "good"]
    for fault, entry in zip(faults, screened, strict=False):
        assert entry["outcome"] == "read_error" and f"{fault}/B05.tif" in entry["error"]
    np.testing.assert_array_equal(
        store.open_store(world.store)["dn20"].isel(location=0).sel(season="summer").values,
        read_by_hand("scenes", "good", "dn20", row["origin_x"], row["origin_y"]),
    )


def test_nothing_readable_is_missing_and_never_a_zero_patch(make_world):
    world = make_world((("A", "2021-07-01", 1.0),), without={"A": ("B12",)}, points=(CENTER,))
    table = world.run().set_index("season")
    assert (table.loc["summer", "status"], table.loc["summer", "reason"]) == ("missing", "read_error")
    assert table.loc["winter", "reason"] == "no_candidate"
    dataset = store.open_store(world.store)
    assert np.isnat(dataset["datetime"].values).all() and not dataset["aligned"].values.any()
    write_files("scenes", "A")  # it was there after all: the next run asks again
    assert world.retrieve().set_index("season").loc["summer", "status"] == "ok"


def test_item_without_asset_is_a_read_error(make_world):
    world = make_world(points=(CENTER,))
    items = world.items
    del items[0]["assets"]["swir16"], items[2]["assets"]["scl"]
    table = World(world.folder, items, points=(CENTER,)).run().set_index("season")
    errors = [json.loads(text)[0]["error"] for text in table["screened"]]
    assert "B11" in errors[0] and "SCL" in errors[1]
    assert list(table["item_id"]) == ["B", "D"]


def test_catalog_without_classification_is_screened_by_no_data_only(make_world):
    plain = {key: {"dn_offset": 0, "grid:code": None} for key in "ABCD"}
    world = make_world(properties=plain, without=dict.fromkeys("ABCD", ("SCL",)), points=(CENTER,))
    for item in world.items:
        item["assets"] = {
            band: asset
            for band, asset in zip((*bands.ALL_BANDS, "SCL"), item["assets"].values(), strict=True)
        }
        del item["assets"]["SCL"]
    world = World(world.folder, world.items, points=(CENTER,), conventions="plain")
    table = world.run()
    assert set(table["status"]) == {"ok"} and table["cloud_fraction"].isna().all()
    assert not store.open_store(world.store)["scl"].values.any()
    assert set(table["valid_fraction"]) == {1.0}


def test_rerun_opens_nothing(make_world, monkeypatch):
    world = make_world()
    world.run()
    before = contents(world)
    opened = count_opened(monkeypatch)
    times = [os.stat(world.store / name).st_mtime_ns for name in store.shard_objects(0)]
    world.retrieve()
    assert opened == []
    assert_same(before, contents(world))
    after = [os.stat(world.store / name).st_mtime_ns for name in store.shard_objects(0)]
    assert all(a > b for a, b in zip(after, times, strict=True)), "outputs must be newer than inputs"


def test_a_lost_object_costs_only_its_own_bands(make_world, monkeypatch):
    world = make_world(points=POINTS[:2])
    world.run()
    before = contents(world)
    opened = count_opened(monkeypatch)
    objects = dict(zip(store.ARRAYS, store.shard_objects(0), strict=True))
    for name in ("dn10", "dn20", "dn60", "scl", "origin60_x", "datetime", "aligned"):
        (world.store / objects[name]).unlink()
        opened.clear()
        world.retrieve()
        assert_same(before, contents(world))
        part = "dn60" if name.startswith("origin60") else name
        allowed = {f"{band}.tif" for band in patches.PARTS.get(part, ())}
        assert {os.path.basename(href) for href in opened} == allowed, name


def test_changed_pixels_in_the_store_are_fetched_again(make_world, monkeypatch):
    world = make_world(points=POINTS[:2])
    world.run()
    before = contents(world)
    arrays, _ = store.read_shard(world.store, 0)
    arrays["dn10"][1, 0, 2, 3, 4] += 1
    store.write_shard(world.store, 0, arrays)
    opened = count_opened(monkeypatch)
    world.retrieve()
    assert_same(before, contents(world))
    assert scenes_of(opened) == {"A"}


def test_changed_limit_uses_what_screening_learned(make_world, monkeypatch):
    world = make_world(scl={"A": cloud_over_center}, points=(CENTER,))
    assert world.run().set_index("season").loc["summer", "item_id"] == "B"
    opened = count_opened(monkeypatch)
    world.limits["max_cloud_fraction"] = 0.1
    world.retrieve()
    assert opened == []
    world.limits["max_cloud_fraction"] = 1.0
    assert world.retrieve().set_index("season").loc["summer", "item_id"] == "A"
    assert scenes_of(opened) == {"A"}


def test_changed_offset_or_version_fetches_again(make_world, monkeypatch):
    world = make_world(points=(CENTER,))
    world.run()
    opened = count_opened(monkeypatch)
    world.items[0]["properties"]["s2:processing_baseline"] = "04.00"
    world = World(world.folder, world.items, points=(CENTER,))
    world.search()
    world.select()
    assert world.retrieve().set_index("season").loc["summer", "dn_offset"] == 1000
    assert scenes_of(opened) == {"A"}
    opened.clear()
    monkeypatch.setattr(retrieve_patches, "VERSION", 2)
    world.retrieve()
    assert scenes_of(opened) == {"A", "C"}


def test_season_that_loses_its_window_is_cleared(make_world):
    world = make_world(points=(CENTER,))
    world.run()
    world.set_locations((CENTER,), {"summer": (152, 244), "winter": (np.nan, np.nan)})
    world.select()
    table = world.retrieve().set_index("season")
    assert (table.loc["winter", "status"], table.loc["winter", "reason"]) == ("missing", "no_window")
    assert not store.open_store(world.store)["dn10"].sel(season="winter").values.any()


def test_growth_keeps_what_is_there(make_world, monkeypatch):
    world = make_world(points=POINTS[:1], per_shard=2)
    world.run()
    before = store.open_store(world.store)["dn10"].values[0]
    world.set_locations(POINTS)
    world.select()
    world.create()
    opened = count_opened(monkeypatch)
    table = world.retrieve()
    assert len(table) == 6 and set(table["status"]) == {"ok"}
    np.testing.assert_array_equal(store.open_store(world.store)["dn10"].values[0], before)
    assert opened  # only for the new ones: the kept patch's checksum held
    assert json.loads(table["screened"][0])[0]["outcome"] == "ok"


def test_added_years_and_another_cloud_limit_fetch_only_what_changes(make_world, monkeypatch):
    """A clearer scene of a new year takes one season over; a stricter limit of scenes drops one."""
    world = make_world(points=(CENTER,))
    assert list(world.run()["item_id"]) == ["A", "C"]
    write_files("scenes", "new", scl=4)
    items = [*world.items, make_item("new", "2022-07-01", **{"eo:cloud_cover": 0.0})]
    grown = World(world.folder, items, points=(CENTER,))
    opened = count_opened(monkeypatch)
    grown.settings["years"] = [2020, 2021]
    grown.search()
    grown.select()
    assert list(grown.retrieve()["item_id"]) == ["A", "C"] and opened == []
    grown.settings["years"] = [2020, 2022]
    grown.search()
    grown.select()
    assert list(grown.retrieve()["item_id"]) == ["new", "C"]
    assert scenes_of(opened) == {"new"}
    opened.clear()
    grown.settings |= {"max_cloud_cover": 1, "second_pass": False}
    grown.select()
    table = grown.retrieve()
    assert list(table["item_id"]) == ["new", ""] and table["reason"][1] == "no_candidate"
    assert opened == []


def _retrieve_until_replace(job, n_replaced):
    """Run in a child process that dies at the n-th file moved into place."""
    calls, replace = [], os.replace

    def dying(*arguments, **options):
        calls.append(arguments)
        if len(calls) > n_replaced:
            os.kill(os.getpid(), 9)
        replace(*arguments, **options)

    os.replace = dying
    retrieve_patches.main(job)


def kill_at(job, n_replaced):
    """Run a job in a process of its own that is killed at the n-th file moved into place."""
    process = multiprocessing.get_context("fork").Process(
        target=_retrieve_until_replace, args=(job, n_replaced)
    )
    process.start()
    process.join()
    assert process.exitcode == -9


def test_killed_between_staging_and_replacing_ends_in_the_same_store(make_world):
    world = make_world(points=POINTS[:2])
    world.run()
    undisturbed = contents(world)
    for n_replaced in (0, 2, 15):
        for name in store.shard_objects(0):
            (world.store / name).unlink()
        (world.folder / "retrieved/0.parquet").unlink()
        kill_at(world.retrieve_job(), n_replaced)
        world.retrieve()
        assert_same(undisturbed, contents(world))
        assert not world.store.with_name("patches.zarr.staging").exists()


def test_killed_while_the_choice_changes_ends_in_the_same_store(make_world):
    world = make_world(points=POINTS[:2])
    world.run()
    world.settings["choice"] = "closest_to_target"
    world.select()
    world.retrieve()
    undisturbed = contents(world)
    world.settings["choice"] = "clearest"
    world.select()
    world.retrieve()
    world.settings["choice"] = "closest_to_target"
    world.select()
    kill_at(world.retrieve_job(), 3)
    world.retrieve()
    values, _ = contents(world)
    for name, expected in undisturbed[0].items():
        np.testing.assert_array_equal(values[name], expected, err_msg=name)


def test_full_disk_is_one_clear_message(make_world, monkeypatch):
    world = make_world(points=(CENTER,))

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(store, "write_shard", full)
    with pytest.raises(RuntimeError, match=r"patches\.zarr failed: No space left on device.*Free space"):
        world.run()


def test_scenes_of_other_locations_are_refused(make_world):
    world = make_world(points=(CENTER,))
    world.run()
    scenes = world.scenes().assign(location_id="Q9")
    tables.write_table(scenes, world.folder / "scenes/0.parquet", "scenes")
    with pytest.raises(ValueError, match="different locations"):
        world.retrieve()


def test_aligned_needs_one_zone_and_origin():
    epsg = np.array([[32632, 32632], [32632, 32633], [0, 32632], [0, 0], [32632, 32632]])
    x = np.array([[20.0, 20], [20, 20], [np.nan, 40], [np.nan, np.nan], [20, 40]])
    assert list(store.aligned(epsg, x, x)) == [True, False, True, False, False]
