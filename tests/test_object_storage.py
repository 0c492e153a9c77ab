"""All data in a bucket: `make test-s3`. The bucket is that of moto's server on loopback, no real object store."""

import json

import boto3
import pytest
import zarr
from moto.server import ThreadedMotoServer
from workflow_runs import DATASET, NAME, ROOT, SMALL, TRAINED, assert_same_dataset, run

from workflow_scripts.core import objects
from workflow_scripts.demo.server import DemoServer

pytestmark = pytest.mark.s3

PREFIX = "s3://data/some/folder"
INPUTS = ("land.parquet", "ecoregions.parquet", "mountains.parquet")


@pytest.fixture(scope="module")
def bucket():
    """An empty bucket, and the variables by which it is found."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    variables = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        bucket = boto3.resource("s3").create_bucket(Bucket="data")
        yield bucket
    server.stop()


def keys(bucket, below=""):
    """Names of objects and when they were last written."""
    prefix = f"some/folder/{below}"
    return {o.key.removeprefix("some/folder/"): o.last_modified for o in bucket.objects.filter(Prefix=prefix)}


def download(bucket, folder):
    """Copy the whole bucket into a folder."""
    for name in keys(bucket):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        bucket.download_file(f"some/folder/{name}", str(path))


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """The made world, and the dataset made from it on disk."""
    folder = tmp_path_factory.mktemp("local")
    run(folder, "resources/demo/land.parquet", config=SMALL)
    return folder


@pytest.fixture(scope="module")
def server(world):
    """A server of the world's scenes and composites: what is public in reality."""
    with DemoServer(world / "resources/demo") as server:
        yield server


@pytest.fixture(scope="module")
def config(server):
    """The small dataset with labels, a model and a task, catalogs behind an API."""
    api = {"type": "api", "url": server.api_url}
    sentinel2, modis = (
        json.loads((server.folder / f"{name}.json").read_text())["features"][0]["collection"]
        for name in ("items", "modis")
    )
    options = SMALL["datasets"][NAME]
    labels = {
        "biome_num": {"source": "vector", "path": options["locations"]["ecoregions"], "column": "BIOME_NUM"}
    }
    options = options | {
        "greenness": options["greenness"] | {"catalog": "world-modis"},
        "scenes": options["scenes"] | {"catalog": "world"},
        "labels": labels,
    }
    task = {"dataset": NAME, "target": "biome_num", "kind": "classification", "classes": "resolve-biomes"}
    return {
        "catalogs": {
            "world": {**api, "collection": sentinel2, "conventions": "earth-search"},
            "world-modis": {**api, "collection": modis},
        },
        "datasets": {NAME: options},
        "models": TRAINED["models"],
        "tasks": {"biome": task | {"mode": "fast", "folds": 2, "block_km": 1.5}},
    }


def run_in_bucket(folder, *words, config, **options):
    profile = ("--workflow-profile", ROOT / "profiles/s3", "--default-storage-prefix", PREFIX)
    return run(folder, *words, *profile, config=config, **options)


def test_a_bucket_holds_the_whole_dataset_model_and_report(bucket, world, config, tmp_path):
    for name in INPUTS:
        bucket.upload_file(str(world / "resources/demo" / name), f"some/folder/resources/demo/{name}")
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    run_in_bucket(first, config=config)
    assert not (first / "results").exists() and not (first / "resources").exists()
    assert keys(bucket, "results/report.html") and keys(bucket, "results/models/tiny/checkpoints/step-")

    run(world, config=config)
    copy = tmp_path / "copy"
    download(bucket, copy)
    assert_same_dataset(world, copy)
    losses = [
        [
            json.loads(line)["loss"]
            for line in (f / "results/models/tiny/metrics.jsonl").read_text().splitlines()
        ]
        for f in (world, copy)
    ]
    assert losses[0] == losses[1]

    assert "Nothing to be done" in run_in_bucket(first, config=config)
    assert "Nothing to be done" in run_in_bucket(second, config=config)  # another machine, only the bucket

    before = keys(bucket)
    lost = f"{DATASET}/patches.zarr/dn10/c.1.0.0.0.0"
    expected = bucket.Object(f"some/folder/{lost}").get()["Body"].read()
    bucket.Object(f"some/folder/{lost}").delete()
    run_in_bucket(second, "patches", config=config)
    assert bucket.Object(f"some/folder/{lost}").get()["Body"].read() == expected
    after = keys(bucket, f"{DATASET}/patches.zarr/dn10/")
    assert {name for name, when in after.items() if when != before[name]} == {lost}


def test_folders_of_a_bucket(bucket, tmp_path):
    folder = objects.open_folder(f"{PREFIX}/things")
    (tmp_path / "file").write_bytes(b"content")
    for name in ("a.txt", "b.txt", "c.json", "deeper/d.txt"):
        folder.write(name, tmp_path / "file")
    assert folder.list("*.txt") == ["a.txt", "b.txt"]
    folder.delete("a.txt")
    assert folder.list("*") == ["b.txt", "c.json"] and not objects.has_object(folder, "a.txt")
    assert folder.read("deeper/d.txt") == b"content"
    for value in (1, 2):  # the second group replaces the first
        with objects.new_group(f"{PREFIX}/group.zarr") as root:
            root.create_array(f"a{value}", shape=(3,), dtype="i4")[:] = value
    group = zarr.open_group(objects.open_folder(f"{PREFIX}/group.zarr").zarr_store(), mode="r")
    assert list(group) == ["a2"] and group["a2"][:].tolist() == [2, 2, 2]
