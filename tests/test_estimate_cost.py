from types import SimpleNamespace

import numpy as np
import pandas as pd

from workflow_scripts import estimate_cost
from workflow_scripts.core import store
from workflow_scripts.core.stage import read_json, write_json

JOBS = {
    "n_locations": 5,
    "per_shard": 2,
    "shards": {
        str(i): {"first": 2 * i, "last": 2 * i + 2, "mgrs_tiles": ["32TQT", f"33TT{c}"]}
        for i, c in enumerate("MNP")
    },
    "modis_tiles": ["h18v04", "h19v04"],
}


def test_counts_are_those_of_a_real_store(tmp_path):
    counts = estimate_cost.estimate(JOBS, seasons=["a", "b"], size_m=640, greenness_years=[2019, 2020])
    locations = pd.DataFrame({"location_id": list("abcde"), "lon": 0.0, "lat": np.arange(5.0)})
    path = tmp_path / "p.zarr"
    store.create_store(path, locations=locations, seasons=["a", "b"], size_m=640, per_shard=2)
    for shard in range(3):
        store.write_shard(path, shard, store.empty_shard(path, shard))
    dataset = store.open_store(path)
    assert counts["store_bytes_uncompressed"] == sum(dataset[name].nbytes for name in store.PIXELS)
    assert counts["n_store_files"] == sum(len(list((path / name).glob("c.*"))) for name in store.ARRAYS)
    assert counts["n_patches"] == 10 and counts["n_scene_searches"] == 4
    assert counts["n_composites"] == 2 * 2 * 23


def test_native_patch_of_the_paper_is_745_kb():
    # 4 × 256² + 6 × 128² + 2 × 44² pixels of two bytes, and 128² of one
    assert estimate_cost.bytes_per_patch(2560) == 2 * (4 * 256**2 + 6 * 128**2 + 2 * 44**2) + 128**2


def test_main(tmp_path):
    write_json(tmp_path / "jobs.json", JOBS)
    job = SimpleNamespace(
        input=SimpleNamespace(jobs=tmp_path / "jobs.json"),
        output=SimpleNamespace(estimate=tmp_path / "estimate.json"),
        wildcards=SimpleNamespace(dataset="d"),
        params=SimpleNamespace(seasons=["a"], size_m=640, greenness_years=None),
    )
    estimate_cost.main(job)
    assert read_json(tmp_path / "estimate.json")["n_composites"] == 0
