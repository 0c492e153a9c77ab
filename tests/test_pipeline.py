"""The workflow itself, run by Snakemake on the made world: reruns, kills, changes of mind, mistakes."""

import copy
import json
import os
import re
import shutil
import signal
import subprocess
import time
import zipfile
from pathlib import Path
from types import SimpleNamespace

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import rasterio
import workflow_runs
import xarray as xr
from rasterio.windows import Window
from workflow_runs import DATASET, ROOT, link_world, planned, run, start

from workflow_scripts import define_seasons, estimate_phenology, extract_greenness, read_tile
from workflow_scripts.core import grid, tables
from workflow_scripts.core.seasons import TRANSITIONS, circular_difference

TRUE_YEARS = [2019, 2023]
SAME_CYCLE_DAYS = 60
"""Cycles of a place whose peaks are farther apart are not the same."""
SMALL = copy.deepcopy(workflow_runs.SMALL)
SMALL["datasets"]["small"]["locations"]["n_locations"] = 24


def values(folder):
    """Everything a store holds, in memory."""
    return xr.open_zarr(Path(folder) / DATASET / "patches.zarr").load()


@pytest.fixture(scope="session")
def built(tmp_path_factory):
    """A folder in which the small dataset was built; tests copy it and leave it as it is."""
    folder = tmp_path_factory.mktemp("built")
    run(folder, "dataset", config=SMALL)
    return folder


@pytest.fixture
def folder(built, tmp_path):
    """A copy of that folder, times kept."""
    link_world(built, tmp_path)
    subprocess.run(["cp", "-a", built / "results", built / ".snakemake", tmp_path], check=True)
    return tmp_path


@pytest.fixture
def world(built, tmp_path):
    """A folder with the made world and nothing else."""
    link_world(built, tmp_path)
    return tmp_path


def test_store_opens_lazily_with_named_and_documented_arrays(built):
    store = xr.open_zarr(built / DATASET / "patches.zarr")
    assert store["dn10"].dims == ("location", "season", "band10", "y10", "x10")
    assert store["dn10"].chunks is not None
    assert store["season"].values.tolist() == ["spring", "summer", "autumn", "winter"]
    assert all("long_name" in array.attrs for array in store.data_vars.values())


def test_index_tells_of_every_location_and_season(built):
    index = pd.read_parquet(built / DATASET / "patches.parquet")
    assert len(index) == 24 * 4
    assert set(index["status"]) <= {"ok", "missing"}
    assert (index["status"] == "ok").mean() > 0.7
    assert (index.loc[index["status"] == "missing", "reason"] != "").all()
    report = json.loads((built / DATASET / "verification.json").read_text())
    assert report


def test_every_chosen_scene_lies_in_its_window(built):
    index = pd.read_parquet(built / DATASET / "patches.parquet").query("status == 'ok'")
    seasons = pd.read_parquet(built / DATASET / "seasons.parquet")
    both = index.merge(seasons, on=["location_id", "season"], validate="one_to_one")
    day = both["datetime"].dt.dayofyear
    since_start = np.mod(day - both["start_doy"], 365.25)
    length = np.mod(both["end_doy"] - both["start_doy"], 365.25)
    # scenes are dated to the second and windows to the day: a window holds its whole last day
    assert (since_start < length + 1).all()


def test_dates_agree_with_the_worlds_truth(built):
    """Mean absolute error of each transition at most six days, cycles matched by their peak."""
    truth = pd.read_parquet(built / "resources/demo/truth/phenology.parquet")
    locations = pd.read_parquet(built / DATASET / "locations.parquet")
    cycles = pd.read_parquet(built / DATASET / "phenology_cycles.parquet")
    tile, row, column = grid.modis_pixel(locations["lon"], locations["lat"])
    places = pd.DataFrame(
        {"location_id": locations["location_id"], "tile": tile, "row": row, "column": column}
    )
    both = cycles.merge(places, on="location_id").merge(
        truth, on=["tile", "row", "column"], suffixes=("", "_true")
    )
    both = both[(both["peak"] - both["peak_true"]).abs() < pd.Timedelta(days=60)]
    assert len(both) > 40
    for name in ("greenup", "maturity", "senescence", "dormancy"):
        error = (both[name] - both[f"{name}_true"]).dt.days.abs().mean()
        assert error <= 6, (name, error)


@pytest.fixture(scope="module")
def everywhere(built, tmp_path_factory):
    """Truth, cycles and seasons at the places whose truth is known."""
    folder, world = tmp_path_factory.mktemp("world"), built / "resources" / "demo"
    truth = pd.read_parquet(world / "truth" / "phenology.parquet")
    places = truth[["lon", "lat"]].drop_duplicates().reset_index(drop=True)
    places["location_id"] = [f"p{i}" for i in range(len(places))]
    ids = pd.Index(places["location_id"])
    catalog = {"name": "world", "type": "geoparquet", "path": str(world / "modis.parquet")}
    parts = []
    for tile in np.unique(grid.modis_tile(places["lon"], places["lat"])):
        found = read_tile.stac.search_items(
            catalog, tile=tile, years=TRUE_YEARS, kind="modis", collection="modis-13A1-061"
        )
        items = read_tile.select_items(found, ["terra"])
        assert not read_tile.missing_composites(items, TRUE_YEARS, ["terra"])
        here = places[grid.modis_tile(places["lon"], places["lat"]) == tile]
        table = read_tile.read_points(items, here, index="evi", threads=2)
        parts.append(extract_greenness.pad_series(table, ids, tile))
    store = folder / "greenness.zarr"
    merged = extract_greenness.merge_series(parts, len(places))
    extract_greenness.write_store(store, places, merged, index="evi", source="world")
    estimate_phenology.main(
        SimpleNamespace(
            input=SimpleNamespace(greenness=store / "zarr.json"),
            output=SimpleNamespace(cycles=folder / "cycles.parquet"),
            params=SimpleNamespace(settings={}),
            threads=2,
        )
    )
    cycles = tables.read_table(folder / "cycles.parquet", "cycles")
    return truth.merge(places), cycles, define_seasons.phenology_seasons(places, cycles)


def test_each_date_is_within_six_days_on_average(everywhere):
    truth, cycles, _ = everywhere
    inner = truth[truth["year"].between(TRUE_YEARS[0] + 1, TRUE_YEARS[1] - 1)]
    pairs = inner.merge(cycles, on="location_id", suffixes=("", "_ours"))
    pairs["apart"] = (pairs["peak_ours"] - pairs["peak"]).dt.days.abs()
    pairs = pairs[pairs["apart"] <= SAME_CYCLE_DAYS].sort_values("apart")
    pairs = pairs.drop_duplicates(["location_id", "year", "cycle"])
    error = {t: (pairs[f"{t}_ours"] - pairs[t]).dt.days.abs().mean() for t in TRANSITIONS}
    assert len(pairs) / len(inner) >= 0.9
    four = {t: round(error[t], 1) for t in ("greenup", "maturity", "senescence", "dormancy")}
    assert max(four.values()) <= 6, four


def test_windows_follow_the_hemisphere_and_nothing_is_left_out(everywhere):
    truth, _, seasons = everywhere
    assert set(seasons["source"]) <= {"observed", "filled"}
    places = truth.drop_duplicates("location_id").set_index("location_id")[["lat"]]
    summer = seasons[seasons["season"] == "summer"].set_index("location_id").join(places)
    north, south = summer[summer["lat"] > 30], summer[summer["lat"] < -30]
    assert np.median(np.abs(circular_difference(north["target_doy"], 200))) < 45
    assert np.median(np.abs(circular_difference(south["target_doy"], 20))) < 120


def test_stored_dn_are_the_files_pixels_less_the_offset(built):
    index = pd.read_parquet(built / DATASET / "patches.parquet").query("status == 'ok'")
    store = xr.open_zarr(built / DATASET / "patches.zarr")
    bands = {"B02": ("dn10", 0), "B08": ("dn10", 3), "B11": ("dn20", 4), "B09": ("dn60", 1)}
    assert set(index["dn_offset"]) == {0, 1000}
    for row in index.groupby("dn_offset").sample(4, random_state=0).itertuples():
        for band, (array, position) in bands.items():
            patch = store[array].sel(season=row.season)[row.location, position].values
            place = store.sel(season=row.season).isel(location=row.location)
            suffix = "60" if array == "dn60" else ""
            x, y = float(place[f"origin{suffix}_x"]), float(place[f"origin{suffix}_y"])
            with rasterio.open(built / f"resources/demo/scenes/{row.item_id}/{band}.tif") as file:
                column, top = ~file.transform @ (x, y)
                assert column == round(column) and top == round(top)
                window = Window(round(column), round(top), patch.shape[1], patch.shape[0])
                pixels = file.read(1, window=window, boundless=True, fill_value=0).astype(int)
            expected = np.where(pixels == 0, 0, np.maximum(pixels - row.dn_offset, 1))
            np.testing.assert_array_equal(patch, expected)


def test_running_again_does_nothing(folder):
    assert "Nothing to be done" in run(folder, "dataset", config=SMALL)


def test_a_deleted_object_is_fetched_again_and_nothing_else(folder):
    before = values(folder)
    others = {p: p.stat().st_mtime_ns for p in (folder / DATASET / "retrieved").iterdir() if p.stem != "1"}
    (folder / DATASET / "patches.zarr/dn20/c.1.0.0.0.0").unlink()
    jobs = planned(folder, "dataset", config=SMALL)
    assert jobs["retrieve_patches"] == 1 and jobs["index_patches"] == 1
    assert not {"sample_locations", "select_scenes", "search_tile", "define_seasons"} & set(jobs)
    run(folder, "dataset", config=SMALL)
    xr.testing.assert_identical(before, values(folder))
    assert others == {p: p.stat().st_mtime_ns for p in others}


def test_calendar_seasons_rerun_from_the_seasons_on_and_keep_what_did_not_change(folder):
    index = pd.read_parquet(folder / DATASET / "patches.parquet")
    config = {"datasets": {"small": {**SMALL["datasets"]["small"], "seasons": {"strategy": "calendar"}}}}
    jobs = planned(folder, "dataset", config=config)
    assert jobs["define_seasons"] == 1 and jobs["select_scenes"] == 3 and jobs["retrieve_patches"] == 3
    upstream = {"sample_locations", "read_tile", "extract_greenness", "estimate_phenology", "search_tile"}
    assert not upstream & set(jobs)
    run(folder, "dataset", config=config)
    after = pd.read_parquet(folder / DATASET / "patches.parquet")
    keys = ["location_id", "season", "item_id", "status"]
    same = index.merge(after, on=keys, suffixes=("", "_after")).query("status == 'ok'")
    assert len(same) > 0
    assert (same["checksum"] == same["checksum_after"]).all()
    logs = "".join(p.read_text() for p in (folder / "results/logs/small").glob("retrieve_patches*.log"))
    kept = sum(int(n) for n in re.findall(r"(\d+) kept", logs))
    assert kept >= len(same)


def test_killed_and_restarted_run_ends_in_the_same_store(built, folder):
    for name in ("patches.zarr", "retrieved"):
        shutil.rmtree(folder / DATASET / name)
    logs = folder / "results/logs/small"
    for log in logs.glob("retrieve_patches*"):
        log.unlink()
    process = start(folder, "dataset", config=SMALL)
    deadline = time.monotonic() + 900
    while time.monotonic() < deadline and process.poll() is None:
        if any(logs.glob("retrieve_patches*.log")):
            time.sleep(0.5)
            break
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    retrieved = list((folder / DATASET).glob("retrieved/*.parquet"))
    assert len(retrieved) < 3, "killed too late to test anything"
    run(folder, "--unlock", config=SMALL)
    run(folder, "dataset", config=SMALL)
    xr.testing.assert_identical(values(built), values(folder))
    columns = ["location_id", "season", "status", "item_id", "checksum"]
    expected, got = (pd.read_parquet(f / DATASET / "patches.parquet")[columns] for f in (built, folder))
    pd.testing.assert_frame_equal(expected, got)


def test_results_that_were_moved_are_continued_not_made_again(folder, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("moved") / "to another place"
    shutil.move(folder, elsewhere)
    assert planned(elsewhere, "dataset", config=SMALL) == {}
    (elsewhere / DATASET / "patches.zarr/dn20/c.1.0.0.0.0").unlink()
    jobs = planned(elsewhere, "dataset", config=SMALL)
    assert jobs["retrieve_patches"] == 1 and "read_tile" not in jobs and "select_scenes" not in jobs


def test_a_second_run_on_the_same_results_is_refused(folder):
    first = start(folder, "dataset", "--forcerun", "verify_store", config=SMALL)
    try:
        deadline = time.monotonic() + 300
        locks = folder / ".snakemake" / "locks"
        while time.monotonic() < deadline and not (locks.is_dir() and any(locks.iterdir())):
            assert first.poll() is None
            time.sleep(0.02)
        printed = run(folder, "dataset", config=SMALL, good=False)
        assert "Directory cannot be locked" in printed and "--unlock" in printed
    finally:
        os.killpg(first.pid, signal.SIGKILL)
        first.communicate()


@pytest.fixture
def checkout(tmp_path_factory):
    """A copy of the code that a test may edit."""
    copy = tmp_path_factory.mktemp("checkout")
    for name in (
        "Snakefile",
        "config.yaml",
        "rules",
        "workflow_scripts",
        "pretrain",
        "schemas",
        "envs",
        "profiles",
    ):
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(source, copy / name)
    return copy


def test_an_edited_comment_reruns_nothing_and_an_edited_constant_its_users(folder, checkout):
    snakefile = checkout / "Snakefile"
    module = checkout / "workflow_scripts/phenology/climatology.py"
    module.write_text(module.read_text().replace('"""', '"""Words. ', 1) + "\n# one more comment\n")
    assert planned(folder, "dataset", config=SMALL, snakefile=snakefile) == {}
    module.write_text(module.read_text() + "\nANYTHING = 1\n")
    jobs = planned(folder, "dataset", config=SMALL, snakefile=snakefile)
    assert {"define_seasons", "select_scenes", "retrieve_patches"} <= set(jobs)
    assert not {"sample_locations", "read_tile", "estimate_phenology", "search_tile"} & set(jobs)


def test_code_of_retrieval_and_training_reruns_by_its_version_only(folder, checkout):
    snakefile = checkout / "Snakefile"
    module = checkout / "workflow_scripts/retrieve_patches.py"
    module.write_text(module.read_text() + "\nANYTHING = 1\n")
    assert planned(folder, "dataset", config=SMALL, snakefile=snakefile) == {}
    module.write_text(module.read_text().replace("VERSION = 1", "VERSION = 2", 1))
    jobs = planned(folder, "dataset", config=SMALL, snakefile=snakefile)
    assert jobs["retrieve_patches"] == 3 and "select_scenes" not in jobs


def test_a_rerun_of_create_store_hides_no_lost_object(folder, checkout):
    module = checkout / "workflow_scripts/create_store.py"
    module.write_text(module.read_text() + "\nANYTHING = 1\n")
    (folder / DATASET / "patches.zarr/dn20/c.1.0.0.0.0").unlink()
    jobs = planned(folder, "patches", config=SMALL, snakefile=checkout / "Snakefile")
    assert jobs["create_store"] == 1 and jobs["retrieve_patches"] == 1


def test_a_variant_starts_from_another_datasets_files(folder):
    variant = {"from": {"dataset": "small", "until": "phenology"}, "seasons": {"names": ["summer", "winter"]}}
    config = {"datasets": {**SMALL["datasets"], "variant": variant}}
    run(folder, "phenology", config=config)
    first, second = folder / DATASET, folder / "results/datasets/variant"
    for name in ("locations.parquet", "phenology_cycles.parquet"):
        pd.testing.assert_frame_equal(pd.read_parquet(first / name), pd.read_parquet(second / name))
    assert pd.read_parquet(second / "seasons.parquet")["season"].unique().tolist() == ["summer", "winter"]
    assert not (second / "greenness").exists()
    assert "Nothing to be done" in run(folder, "phenology", config=config)


def test_a_target_that_snakemake_left_out_is_an_error(folder):
    """See check_targets in rules/common.smk."""
    model = {"dataset": "small", "objective": "seco", "backbone": "resnet18", "device": "cpu", "steps": 2}
    model |= {"batch_size": 4, "queue_size": 8, "crop_px": 32}
    options = {**SMALL["datasets"]["small"], "weights": {"mountain": 3.0}}
    config = {"datasets": {"small": options}, "models": {"tiny": model}}
    target = "results/models/tiny/encoder.safetensors"
    printed = run(folder, target, config=config, good=False)
    assert f"run the same command again for: {target}" in printed
    run(folder, target, config=config)
    metrics = (folder / "results/models/tiny/metrics.jsonl").stat().st_mtime_ns
    # other data do not train again; another parameter does
    (folder / DATASET / "patches.zarr/scl/c.0.0.0.0").unlink()
    jobs = planned(folder, "pretrained", config=config)
    assert jobs["retrieve_patches"] == 1 and "pretrain" not in jobs
    run(folder, "dataset", config=config)
    model["steps"], options["weights"] = 3, {"mountain": 4.0}
    printed = run(folder, "pretrained", config=config, good=False)
    assert "run the same command again for: model tiny (steps: 2, now 3)" in printed
    assert planned(folder, "pretrained", config=config)["pretrain"] == 1
    assert (folder / "results/models/tiny/metrics.jsonl").stat().st_mtime_ns == metrics


def test_empty_catalog(world):
    pd.read_parquet(world / "resources/demo/items.parquet").iloc[:0].to_parquet(world / "empty.parquet")
    config = {
        **SMALL,
        "catalogs": {"empty": {"type": "geoparquet", "path": "empty.parquet", "conventions": "earth-search"}},
    }
    config["datasets"] = {
        "small": {**SMALL["datasets"]["small"], "scenes": {"catalog": "empty", "years": [2021, 2022]}}
    }
    config["datasets"]["small"]["seasons"] = {"strategy": "calendar"}
    printed = run(world, "scenes", config=config, good=False)
    assert "empty" in printed and "Traceback" not in printed


def test_corrupt_scene_is_recorded_and_never_a_zero_patch(folder):
    index = pd.read_parquet(folder / DATASET / "patches.parquet").query("status == 'ok'")
    item = index["item_id"].value_counts().idxmax()
    broken = [p for p in (folder / "resources/demo/scenes").rglob("*.tif") if item in str(p)]
    for path in broken:
        size = path.stat().st_size
        path.unlink()  # a hard link to the shared world: never write through it
        path.write_bytes(b"II*\0" + b"rubbish!" * (size // 8))
    for path in (folder / DATASET / "patches.zarr/dn10").glob("c.*"):
        path.unlink()
    run(folder, "patches", config=SMALL)
    after = pd.read_parquet(folder / DATASET / "patches.parquet")
    stored = after.query("status == 'ok'")
    assert broken and item not in set(stored["item_id"])
    assert len(stored) < len(index) or set(stored["item_id"]) - set(index["item_id"])
    assert (after.loc[after["status"] == "missing", "reason"] != "").all()
    store = values(folder)
    seasons = store["season"].values.tolist()
    for row in stored.itertuples():
        assert store["dn10"][row.location, seasons.index(row.season)].values.any()


def test_locations_over_the_sea_are_listed_with_their_reason(world):
    land = pd.read_parquet(world / "resources/demo/truth/phenology.parquet")[["lon", "lat"]].iloc[0]
    sites = pd.DataFrame(
        {"location_id": ["land", "sea"], "lon": [land["lon"], 30.0], "lat": [land["lat"], 50.0]}
    )
    sites.to_csv(world / "sites.csv", index=False)
    options = {**SMALL["datasets"]["small"], "seasons": {"strategy": "calendar"}}
    options["locations"] = {"design": "file", "path": "sites.csv", "per_shard": 2}
    run(world, "patches", config={"datasets": {"small": options}})
    index = pd.read_parquet(world / DATASET / "patches.parquet").set_index("location_id")
    assert (index.loc["sea", "status"] == "missing").all()
    assert (index.loc["sea", "reason"] == "no_candidate").all()
    assert (index.loc["land", "status"] == "ok").any()


def test_full_disk_is_one_clear_message_and_loses_nothing(folder, tmp_path):
    expected = values(folder)
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", disk], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip("a small file system cannot be mounted here (needs root)")
    try:
        target = folder / DATASET / "patches.zarr"
        (target / "dn10/c.1.0.0.0.0").unlink()
        subprocess.run(["cp", "-a", target, disk / "patches.zarr"], check=True)
        shutil.rmtree(target)
        target.symlink_to(disk / "patches.zarr")
        free = shutil.disk_usage(disk).free
        (disk / "ballast").write_bytes(bytes(max(0, free - 100_000)))
        printed = run(folder, "patches", config=SMALL, good=False)
        assert "No space left on device" in printed
        (disk / "ballast").unlink()
        run(folder, "patches", "--rerun-incomplete", config=SMALL)
        xr.testing.assert_identical(expected, values(folder))
    finally:
        subprocess.run(["umount", disk], check=True)


def test_snakemakes_own_report_has_the_results_under_their_categories(folder):
    run(folder, "dataset", "--report", "report.zip", config=SMALL)
    with zipfile.ZipFile(folder / "report.zip") as archive:
        names = archive.namelist()
        page = archive.read(next(name for name in names if name.endswith("report.html"))).decode()
    assert any(name.endswith("README.md") for name in names)
    assert "Datasets" in page and "Card of dataset small" in page


def test_a_task_of_ones_own_is_a_table_and_an_entry(folder):
    """Words in a CSV and lists of words in a GeoParquet become two tasks, without code."""
    sites = gpd.read_parquet(folder / DATASET / "locations.parquet")[
        ["location_id", "lon", "lat", "geometry"]
    ]
    sites["cover"] = np.where(sites["lon"] > sites["lon"].median(), "east", "west")
    sites["trees"] = [["oak", "fir"] if north else ["oak"] for north in sites["lat"] > sites["lat"].median()]
    sites[["location_id", "cover"]].iloc[1:].to_csv(folder / "mine.csv", index=False)
    sites.drop(columns="cover").to_parquet(folder / "mine.parquet")
    config = {
        "datasets": {
            "small": {
                **SMALL["datasets"]["small"],
                "labels": {
                    "cover": {"source": "table", "path": "mine.csv"},
                    "trees": {"source": "table", "path": "mine.parquet"},
                },
            }
        },
        "models": {"mean-spectrum": {"encoder": "mean_spectrum", "bands": ["B04", "B08"]}},
        "tasks": {
            "cover": {"target": "cover", "kind": "classification", "classes": ["east", "west"]},
            "trees": {"target": "trees", "kind": "multilabel", "classes": "labels"},
        },
    }
    for task in config["tasks"].values():
        task |= {"dataset": "small", "mode": "fast", "folds": 2, "block_km": 1}
    files = [f"results/downstream/mean-spectrum/{task}/knn.json" for task in config["tasks"]]
    run(folder, *files, config=config)
    cover, trees = (json.loads((folder / file).read_text()) for file in files)
    assert [output["code"] for output in cover["outputs"]] == ["east", "west"]
    assert cover["counts"]["n_without_label"] <= 1 and cover["counts"]["n_used"] > 12
    counts = {output["code"]: output["n"] for output in trees["outputs"]}
    assert counts["oak"] == trees["counts"]["n_used"] > counts["fir"] > 0
