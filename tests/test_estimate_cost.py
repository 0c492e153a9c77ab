"""The estimate: counts of a real store, hand-reckoned loads, and what limits the wall time."""

import copy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import yaml

from workflow_scripts import estimate_cost
from workflow_scripts.core import amounts, store
from workflow_scripts.core.stage import read_json, write_json

ROOT = Path(__file__).resolve().parents[1]
RATES = yaml.safe_load((ROOT / "config.yaml").read_text())["estimate"]
JOBS = {
    "n_locations": 5,
    "per_shard": 2,
    "shards": {
        str(i): {"first": 2 * i, "last": 2 * i + 2, "mgrs_tiles": ["32TQT", f"33TT{c}"]}
        for i, c in enumerate("MNP")
    },
    "modis_tiles": ["h18v04", "h19v04"],
}
GREENNESS = {"years": [2019, 2020], "platforms": ["terra", "aqua"]}


def estimate(jobs=JOBS, *, seasons=("a", "b"), size_m=2560, greenness=GREENNESS, page_size=100, rates=RATES):
    return estimate_cost.estimate(
        jobs,
        seasons=list(seasons),
        size_m=size_m,
        greenness=greenness,
        scene_years=[2017, 2024],
        page_size=page_size,
        rates=rates,
    )


def with_rates(**assumed):
    rates = copy.deepcopy(RATES)
    rates["assumed"] |= assumed
    return rates


def test_counts_are_those_of_a_real_store(tmp_path):
    counts = estimate(size_m=640)["counts"]
    locations = pd.DataFrame({"location_id": list("abcde"), "lon": 0.0, "lat": np.arange(5.0)})
    path = tmp_path / "p.zarr"
    store.create_store(path, locations=locations, seasons=["a", "b"], size_m=640, per_shard=2)
    for shard in range(3):
        store.write_shard(path, shard, store.empty_shard(path, shard))
    dataset = store.open_store(path)
    assert counts["store_bytes_uncompressed"] == sum(dataset[name].nbytes for name in store.PIXELS)
    assert counts["n_store_files"] == sum(len(list((path / name).glob("c.*"))) for name in store.ARRAYS)
    assert counts["n_patches"] == 10 and counts["n_scene_tiles"] == 4
    assert counts["n_composites"] == 2 * 2 * 2 * 23


def test_native_patch_of_the_paper_is_745_kb():
    # 4 × 256² + 6 × 128² + 2 × 44² pixels of two bytes, and 128² of one
    assert estimate_cost.bytes_per_patch(2560) == 2 * (4 * 256**2 + 6 * 128**2 + 2 * 44**2) + 128**2


def test_blocks_per_patch_are_those_of_random_places():
    rng = np.random.default_rng(0)
    n_blocks = 0
    for n_bands, n in ((4, 256), (6, 128), (2, 44)):
        first = rng.integers(0, 512 * 20, (20_000, 2))
        n_blocks += n_bands * ((first + n - 1) // 512 - first // 512 + 1).prod(axis=1).mean()
    assert estimate_cost.blocks_per_patch(2560) == pytest.approx(n_blocks, rel=0.01)


def test_loads_by_hand():
    result = estimate()
    stages = {entry["stage"]: entry for entry in result["stages"]}
    measured, assumed = RATES["measured"], RATES["assumed"]
    assert stages["search_tile"]["searches"] == 4 * 8 * assumed["scenes_per_tile_year"] / 100
    retrieve = stages["retrieve_patches"]
    start = measured["start_cpu_s"]
    assert retrieve["cpu_hours"] == pytest.approx((10 / measured["patches_per_cpu_s"] + 3 * start) / 3600)
    n_items = 4 * 8 * assumed["scenes_per_tile_year"]
    items_s = n_items / measured["items_per_cpu_s"]
    assert stages["search_tile"]["cpu_hours"] == pytest.approx((items_s + 4 * start) / 3600)
    assert retrieve["disk_bytes"] == pytest.approx(10 * measured["stored_mb_per_patch"] * 1e6)
    headers = 13 * 10 / assumed["patches_per_scene"]
    screening = 10 * (assumed["tries_per_patch"] - 1)
    assert retrieve["requests"] == pytest.approx(headers + 10 * measured["requests_per_patch"] + screening)
    assert result["total"]["requests"] == sum(entry["requests"] for entry in result["stages"])
    in_files = {entry["stage"]: entry for entry in estimate(page_size=None)["stages"]}
    assert in_files["search_tile"]["searches"] == 0
    assert estimate(greenness=None)["counts"]["n_composites"] == 0


@pytest.mark.parametrize(
    ("assumed", "limit"),
    [
        ({}, "cores"),
        ({"bandwidth_mb_s": 0.001}, "bandwidth"),
        ({"requests_per_s": 0.001}, "requests"),
    ],
)
def test_wall_time_names_what_limits_it(assumed, limit):
    load = estimate_cost.Load("retrieve_patches", jobs=2, requests=1e4, bytes=1e9, cpu_hours=10)
    rates = {**RATES["assumed"], "bandwidth_mb_s": 1e6, "requests_per_s": 1e6, **assumed}
    hours, name = estimate_cost.wall_hours(load, 1, rates)
    assert name == limit
    if limit == "cores":
        waits = 1e4 / 64 * 0.05 / 3600
        assert hours == pytest.approx(10 + waits)
        halved = estimate_cost.wall_hours(load, 2, rates)[0]
        assert halved == pytest.approx(hours / 2)
        assert estimate_cost.wall_hours(load, 64, rates)[0] == halved, "no more than its two jobs"
    else:
        assert estimate_cost.wall_hours(load, 64, rates)[0] == hours


def test_main_and_the_printed_table(tmp_path):
    write_json(tmp_path / "jobs.json", JOBS)
    job = SimpleNamespace(
        input=SimpleNamespace(jobs=tmp_path / "jobs.json"),
        output=SimpleNamespace(estimate=tmp_path / "estimate.json", text=tmp_path / "estimate.txt"),
        wildcards=SimpleNamespace(dataset="d"),
        params=SimpleNamespace(
            seasons=["a"], size_m=640, greenness=None, scene_years=[2017, 2024], page_size=None, rates=RATES
        ),
    )
    estimate_cost.main(job)
    assert read_json(tmp_path / "estimate.json")["counts"]["n_patches"] == 5
    text = (tmp_path / "estimate.txt").read_text()
    assert "Dataset d: 5 locations, 5 patches" in text
    for cores in RATES["cores"]:
        assert f"{cores:,} core" in text
    assert "assumed" in text and "bandwidth_mb_s 100" in text


@pytest.mark.parametrize(
    ("hours", "text"),
    [
        (0, "0 s"),
        (0.5 / 3600, "0.5 s"),
        (59 / 3600, "59.0 s"),
        (0.5, "30.0 min"),
        (23.9, "23.9 h"),
        (36, "1.5 d"),
    ],
)
def test_durations_are_told_in_the_unit_that_fits(hours, text):
    assert amounts.as_time(hours) == text


@pytest.mark.parametrize(
    ("n_bytes", "text"), [(0, "0 B"), (999, "999 B"), (1e3, "1.0 kB"), (2.5e6, "2.5 MB"), (8.4e12, "8.4 TB")]
)
def test_sizes_are_told_in_the_unit_that_fits(n_bytes, text):
    assert amounts.as_size(n_bytes) == text
