"""Retrieval from a server that fails at random, and jobs killed at random moments.

One repetition of each is part of the default tests; `make faults` and `make kills` run them all.
"""

import multiprocessing
import os
import random

import numpy as np
import pytest
from made_scenes import CENTER, World, make_item, read_by_hand, write_collection, write_files

from workflow_scripts import retrieve_patches
from workflow_scripts.core import network, store
from workflow_scripts.demo import faults
from workflow_scripts.demo.server import DemoServer

SCENES = (
    ("A", "2021-07-01", 1.0),
    ("B", "2021-08-01", 3.0),
    ("C", "2021-12-20", 2.0),
    ("D", "2022-01-09", 6.0),
    ("E", "2020-06-20", 4.0),
)
POINTS = (CENTER, (CENTER[0] - 700, CENTER[1] + 300), (CENTER[0] + 333, CENTER[1] - 777))
N_FAULT_RUNS, N_KILLS = 20, 50


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Five scenes; cloud over one place of the first."""
    path = tmp_path_factory.mktemp("failing")

    def cloudy(scl):
        scl[:70, :70] = 9
        return scl

    for item_id, _, _ in SCENES:
        write_files(path / "scenes", item_id, scl=cloudy if item_id == "A" else 4)
    items = [make_item(item_id, day, **{"eo:cloud_cover": cloud}) for item_id, day, cloud in SCENES]
    write_collection(path / "items.json", items)
    return path


def check_every_patch(world, folder):
    """What is stored is right, what is missing has its reason; give the table."""
    dataset, table = store.open_store(world.store).load(), world.retrieved()
    for row in table.itertuples():
        patch = dataset.isel(location=row.location).sel(season=row.season)
        for part in ("dn10", "dn20", "dn60"):
            expected = np.zeros(1, np.uint16)
            if row.status == "ok":
                expected = read_by_hand(folder / "scenes", row.item_id, part, row.origin_x, row.origin_y)
            np.testing.assert_array_equal(patch[part].values, np.broadcast_to(expected, patch[part].shape))
        assert row.status == "ok" or row.reason
    return table


def expiring_tokens(seed):
    """A signer whose token has ended now and then, as that of a job which waited for a slow answer."""
    numbers = random.Random(seed)

    def sign(href, method):
        if not href.endswith(".tif"):
            return href
        return f"{href}?sig={'ended' if numbers.random() < 0.03 else f'SECRET{numbers.randrange(4)}'}"

    return sign


@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, N_FAULT_RUNS))]
)
def test_failing_server(folder, tmp_path, monkeypatch, seed):
    monkeypatch.setattr(network, "FIRST_PAUSE_S", 0.002)
    with DemoServer(folder, catalogs=["items.json"]) as server:
        missing = f"{'ABCDE'[seed % 5]}/{('B11', 'B02', 'B09', 'SCL')[seed % 4]}"
        server.faults += [
            faults.missing(rf"{missing}\.tif"),
            faults.Fault(r"sig=ended", "status", status=403),
            faults.Fault(r"\.tif|search", "status", status=503, share=0.05, seed=seed),
            faults.Fault(r"\.tif", "truncate", share=0.02, seed=seed + 100),
            faults.Fault(r"\.tif", "corrupt", share=0.01, seed=seed + 200),
            faults.Fault(r"\.tif|search", "status", status=429, retry_after_s=0, share=0.02, seed=seed + 300),
        ]
        world = World(tmp_path, [], points=POINTS, per_shard=3)
        world.reader = "rasterio" if seed % 5 == 4 else "windows"
        world.search(server.api_url)
        monkeypatch.setattr(network, "sign", expiring_tokens(seed))
        world.select()
        world.create()
        world.retrieve()
        assert any(status == 503 for _, _, status in server.requests)
    table = check_every_patch(world, folder)
    assert missing[0] not in set(table["item_id"])
    # each season has another candidate; that too may fail on every attempt, which is rare
    assert (table["status"] == "ok").mean() > 0.5
    assert set(table.loc[table["status"] != "ok", "reason"]) <= {"read_error"}
    assert not any(b"SECRET" in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


def contents(world):
    dataset = store.open_store(world.store).load()
    return {name: dataset[name].values for name in store.ARRAYS}, world.retrieved()


@pytest.mark.parametrize("n_kills", [3, pytest.param(N_KILLS, marks=pytest.mark.slow)])
def test_killed_at_random_moments(folder, tmp_path, monkeypatch, n_kills):
    """Whenever a job is killed, each object is what it was or what it becomes, and the end is the same."""
    monkeypatch.chdir(folder)
    items = [make_item(item_id, day, **{"eo:cloud_cover": cloud}) for item_id, day, cloud in SCENES]
    world = World(tmp_path, items, points=POINTS, per_shard=3)
    world.run()
    final, table = contents(world)
    numbers = random.Random(n_kills)
    n_killed = 0
    longest = 0.4
    while n_killed < n_kills:
        for name in store.shard_objects(0):
            if numbers.random() < 0.7:
                (world.store / name).unlink(missing_ok=True)
        if numbers.random() < 0.5:
            (world.folder / "retrieved/0.parquet").unlink(missing_ok=True)
        process = multiprocessing.get_context("fork").Process(
            target=retrieve_patches.main, args=(world.retrieve_job(),)
        )
        process.start()
        process.join(numbers.uniform(0, longest))
        if process.is_alive():
            os.kill(process.pid, 9)
            n_killed += 1
        else:
            longest *= 0.9
        process.join()
        arrays, readable = store.read_shard(world.store, 0)
        for name, values in arrays.items():
            if readable[name]:
                np.testing.assert_array_equal(values, final[name] if name != "datetime" else values)
    world.retrieve()
    for name, values in contents(world)[0].items():
        np.testing.assert_array_equal(values, final[name], err_msg=name)
    assert world.retrieved().drop(columns="screened").equals(table.drop(columns="screened"))
    assert not world.store.with_name("patches.zarr.staging").exists()
