"""Retrieval through a STAC API and files over HTTP, with what can go wrong there."""

import json

import numpy as np
import pytest
from made_scenes import World, make_item, read_by_hand, write_files

from workflow_scripts import retrieve_patches
from workflow_scripts.core import network, store
from workflow_scripts.demo import faults
from workflow_scripts.demo.server import DemoServer

SCENES = (("A", "2021-07-01", 1.0), ("B", "2021-08-01", 3.0), ("C", "2021-12-20", 2.0))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three scenes and their items."""
    path = tmp_path_factory.mktemp("remote")
    for item_id, _, _ in SCENES:
        write_files(path / "scenes", item_id)
    return path


@pytest.fixture
def served(folder, tmp_path, monkeypatch):
    """The world, searched through the API; the server to be made to fail."""
    monkeypatch.setattr(network, "FIRST_PAUSE_S", 0.01)
    items = [make_item(item_id, day, **{"eo:cloud_cover": cloud}) for item_id, day, cloud in SCENES]
    (folder / "items.json").write_text(json.dumps({"type": "FeatureCollection", "features": items}))
    with DemoServer(folder, catalogs=["items.json"]) as server:
        world = World(tmp_path, [])
        world.search(server.api_url)
        world.select()
        world.create()
        yield world, server


def check_pixels(world, folder):
    """Whatever happened: what is stored is right."""
    dataset = store.open_store(world.store).load()
    for row in world.retrieved().query("status == 'ok'").itertuples():
        for part in ("dn10", "dn20", "dn60"):
            expected = read_by_hand(folder / "scenes", row.item_id, part, row.origin_x, row.origin_y)
            stored = dataset[part].isel(location=row.location).sel(season=row.season)
            np.testing.assert_array_equal(stored.values, expected)


def test_api_and_files_over_http(served, folder):
    world, server = served
    table = world.retrieve()
    assert list(table["item_id"]) == ["A", "C"]
    check_pixels(world, folder)
    searches = [path for method, path, _ in server.requests if "search" in path]
    assert 2 <= len(searches) <= 3, "one search, two pages"


def test_passing_faults_cost_only_time(served, folder):
    world, server = served
    server.faults += [
        faults.unavailable(r"A/B02\.tif", times=2),
        faults.too_many_requests(r"A/B03\.tif", retry_after_s=0, times=2),
        faults.truncated(r"A/B04\.tif", times=1),
        faults.corrupted(r"A/B08\.tif", times=1),
        faults.unavailable(r"A/SCL\.tif", times=1),
        faults.Fault(r"C/B01\.tif", "status", status=403, times=1),
    ]
    table = world.retrieve()
    assert list(table["item_id"]) == ["A", "C"]
    check_pixels(world, folder)


@pytest.mark.parametrize("make", [faults.missing, faults.unavailable, faults.truncated, faults.corrupted])
def test_lasting_faults_give_way_to_the_next_candidate(served, folder, make):
    world, server = served
    server.faults.append(make(r"A/B11\.tif"))
    table = world.retrieve()
    assert list(table["item_id"]) == ["B", "C"]
    entry = json.loads(table["screened"][0])[0]
    assert entry["outcome"] == "read_error" and "A/B11.tif" in entry["error"]
    check_pixels(world, folder)


def test_outage_fails_the_job_and_is_not_taken_for_missing_scenes(served):
    world, server = served
    server.faults.append(faults.unavailable(r"\.tif"))
    with pytest.raises(
        RuntimeError, match=r"none of the 2 patches that were wanted.*SCL\.tif: failed 5 times"
    ):
        world.retrieve()
    assert not (world.folder / "retrieved/0.parquet").exists()
    server.faults.clear()
    assert set(world.retrieve()["status"]) == {"ok"}


def test_tokens_are_renewed_and_appear_nowhere(served, folder, monkeypatch, caplog):
    """Each opening signs anew; a token refused once is no reason to lose the scene."""
    caplog.set_level("DEBUG")
    world, server = served
    made = []

    def sign(href, method):
        assert method.sign == "planetary-computer"
        made.append(f"SECRET{len(made)}")
        return f"{href}?sig={made[-1]}"

    monkeypatch.setattr(network, "sign", sign)
    server.faults.append(faults.Fault(r"A/B05\.tif", "status", status=403, times=1))
    server.faults.append(faults.missing(r"C/B06\.tif"))
    job = world.retrieve_job()
    job.params.catalogs["made"]["sign"] = "planetary-computer"
    retrieve_patches.main(job)
    table = world.retrieved()
    assert list(table["item_id"]) == ["A", ""] and table["reason"][1] == "read_error"
    assert any("sig=SECRET" in path for _, path, _ in server.requests)
    written = [path.read_bytes() for path in world.folder.rglob("*") if path.is_file()]
    assert not any(b"SECRET" in content for content in written)
    ours = [record.getMessage() for record in caplog.records if record.name.startswith("workflow_scripts")]
    assert ours and not any("SECRET" in message for message in ours)
    assert not any("SECRET" in r.getMessage() for r in caplog.records if r.name.startswith("rasterio"))
