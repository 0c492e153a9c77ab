"""Nothing secret is written down, nothing is written elsewhere, nothing that is read is run."""

import ast
import json
import os
import pickle
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from made_scenes import World, make_item, make_locations, write_collection, write_files

from workflow_scripts import (
    download_source,
    retrieve_patches,
)
from workflow_scripts.core import config, network, tables
from workflow_scripts.core.stage import run_stage
from workflow_scripts.demo import faults
from workflow_scripts.demo.server import DemoServer

ROOT = Path(__file__).resolve().parents[1]
SECRETS = {
    "AWS_SECRET_ACCESS_KEY": "planted-aws-secret",
    "AWS_SESSION_TOKEN": "planted-aws-token",
    "PC_SDK_SUBSCRIPTION_KEY": "planted-subscription",
    "SNAKEMAKE_STORAGE_S3_SECRET_KEY": "planted-storage-secret",
}

# ---- what is read is not run -----------------------------------------------------------------

FORBIDDEN_MODULES = {"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
FORBIDDEN_CALLS = {
    "eval",
    "exec",
    "yaml.load",
    "yaml.unsafe_load",
    "yaml.full_load",
    "pd.read_pickle",
    "os.system",
    "tempfile.mktemp",
}
SAFE_ARGUMENTS = {"torch.load": ("weights_only", True)}
UNSAFE_ARGUMENTS = {"allow_pickle": True, "shell": True, "verify": False}
UNPACKING = ("extractall", "unpack_archive")
"""`importing.archives` unpacks by itself, with a check of each name."""


def dangers(source):
    """Calls and imports of a module that could run, or trust, what is read."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names]
            yield from (name for name in names if name.split(".")[0] in FORBIDDEN_MODULES)
        if not isinstance(node, ast.Call):
            continue
        name, given = ast.unparse(node.func), {k.arg: ast.unparse(k.value) for k in node.keywords}
        needed = SAFE_ARGUMENTS.get(name)
        if name in FORBIDDEN_CALLS or name.split(".")[-1] in UNPACKING:
            yield name
        if needed is not None and given.get(needed[0]) != str(needed[1]):
            yield f"{name} without {needed[0]}={needed[1]}"
        yield from (f"{k}={v}" for k, v in UNSAFE_ARGUMENTS.items() if given.get(k) == str(v))


def test_no_module_runs_what_it_reads():
    files = [p for folder in ("workflow_scripts", "pretrain") for p in (ROOT / folder).rglob("*.py")]
    found = {str(path.relative_to(ROOT)): list(dangers(path.read_text())) for path in files}
    assert len(files) > 100
    assert {path: names for path, names in found.items() if names} == {}


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from joblib import load",
        "yaml.load(text, yaml.Loader)",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "np.load(path, allow_pickle=True)",
        "pd.read_pickle(path)",
        "archive.extractall(folder)",
        "requests.get(url, verify=False)",
        "subprocess.run(text, shell=True)",
    ],
)
def test_the_search_finds_what_it_looks_for(source):
    assert list(dangers(source))


class Payload:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder):
        self.folder = str(folder)

    def __reduce__(self):
        return os.mkdir, (self.folder,)


@pytest.mark.parametrize("place", ["filters", "compressor"])
def test_a_pickle_in_a_users_zarr_store_is_not_loaded(tmp_path, place):
    from workflow_scripts.phenology.user_series import series_blocks

    array = tmp_path / "series.zarr" / "evi"
    array.mkdir(parents=True)
    codec = {"id": "pickle", "protocol": 5}
    metadata = {"zarr_format": 2, "shape": [2], "chunks": [2], "dtype": "<i4", "fill_value": 0, "order": "C"}
    metadata |= {"filters": [codec], "compressor": None} if place == "filters" else {"compressor": codec}
    (array / ".zarray").write_text(json.dumps({"filters": None, **metadata}))
    (array / ".zattrs").write_text(json.dumps({"_ARRAY_DIMENSIONS": ["x"]}))
    (array.parent / ".zgroup").write_text(json.dumps({"zarr_format": 2}))
    (array / "0").write_bytes(pickle.dumps(Payload(tmp_path / "ran")))
    with pytest.raises(ValueError, match="no Zarr store that can be read"):
        list(series_blocks(str(array.parent), "evi"))
    assert not (tmp_path / "ran").exists()


def test_a_configuration_cannot_make_objects(tmp_path):
    path = tmp_path / "my.yaml"
    path.write_text(f"seed: !!python/object/apply:os.mkdir ['{tmp_path / 'ran'}']")
    with pytest.raises(yaml.constructor.ConstructorError):
        config.read(path)
    assert not (tmp_path / "ran").exists()


# ---- nothing is written elsewhere ------------------------------------------------------------


@pytest.mark.parametrize("name", ["../../elsewhere", "/etc/elsewhere", "a/b", "a\\b", "..", ""])
def test_an_id_that_is_no_file_name_is_refused(tmp_path, name):
    """Ids become names of files where patches are exported."""
    locations = make_locations([(733_510.0, 5_266_490.0)]).assign(location_id=[name])
    with pytest.raises(ValueError, match="location_id"):
        tables.write_table(locations, tmp_path / "locations.parquet", "locations")


@pytest.mark.parametrize(
    "path", ["resources/../../elsewhere", "resources/land/../../../x", "elsewhere/land.zip"]
)
def test_a_source_lies_below_resources(path):
    schema = yaml.safe_load((ROOT / "schemas/sources.schema.yaml").read_text())
    import jsonschema

    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({path: {"url": "https://example.org/land.zip"}}, schema)
    jsonschema.validate({"resources/land/ne_10m..zip": {"url": "https://example.org/land.zip"}}, schema)


def test_a_file_with_another_checksum_is_not_used(tmp_path):
    """It never gets the name under which stages look for it."""
    (tmp_path / "origin").write_bytes(b"other content")
    job = SimpleNamespace(
        params=SimpleNamespace(url=str(tmp_path / "origin"), sha256="0" * 64),
        output=SimpleNamespace(file=str(tmp_path / "land.zip")),
    )
    with pytest.raises(ValueError, match="SHA-256"):
        download_source.main(job)
    assert not (tmp_path / "land.zip").exists()


# ---- nothing secret is written down ----------------------------------------------------------


@pytest.fixture
def planted(monkeypatch):
    """Secrets in the environment and in every signed address."""
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(network, "FIRST_PAUSE_S", 0.002)
    signed = "sv=2021&sig=planted-signature&se=2026"
    monkeypatch.setattr(
        network, "sign", lambda href, access: f"{href}?{signed}" if href.endswith(".tif") else href
    )


def run_logged(stage, job, log):
    """Run a stage as Snakemake does; its failure is told in the log and on the terminal."""
    job.log, job.rule = [str(log)], stage.__name__.split(".")[-1]
    job.wildcards = vars(job.wildcards)
    try:
        run_stage(
            lambda job: stage.main(
                SimpleNamespace(**{**vars(job), "wildcards": SimpleNamespace(**job.wildcards)})
            ),
            job,
        )
    except SystemExit:
        return False
    return True


def written_secrets(folder):
    """Files that hold a planted secret."""
    return [
        str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file() and b"planted-" in p.read_bytes()
    ]


@pytest.mark.parametrize("failing", [False, True])
def test_secrets_are_in_no_file_table_log_or_message(tmp_path, planted, failing, capfd):
    for item_id in ("A", "B"):
        write_files(tmp_path / "public/scenes", item_id)
    items = [make_item("A", "2021-07-01"), make_item("B", "2021-12-20")]
    write_collection(tmp_path / "public/items.json", items)
    made = tmp_path / "made"
    made.mkdir()
    with DemoServer(tmp_path / "public", catalogs=["items.json"]) as server:
        world = World(made, [], per_shard=1)
        world.search(server.api_url)
        world.select()
        world.create()
        if failing:
            server.faults += [faults.Fault(r"\.tif", "status", status=500)]
        good = run_logged(retrieve_patches, world.retrieve_job(), made / "retrieve.log")
        assert good != failing
        assert any("planted-signature" in path for _, path, _ in server.requests)
    assert written_secrets(made) == []
    told = capfd.readouterr()
    assert "planted-" not in told.out + told.err
    if failing:
        assert (
            "made/" in (made / "retrieve.log").read_text() or "shard 0" in (made / "retrieve.log").read_text()
        )


@pytest.mark.parametrize(
    "address",
    [
        "https://host/folder/file.tif?sv=2021&sig=planted-signature",
        "https://me:planted-password@host/file.tif",
        "https://host/f.tif?X-Amz-Credential=planted-key&X-Amz-Signature=planted-signature",
    ],
)
def test_messages_name_addresses_without_what_is_secret_in_them(address):
    told = network.redact(f"reading {address!r} failed")
    assert "planted-" not in told and "host" in told


def test_a_download_leaves_no_token_on_disk(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(network, "FIRST_PAUSE_S", 0.002)
    (tmp_path / "public").mkdir()
    (tmp_path / "public/land.zip").write_bytes(b"x" * 100_000)
    with DemoServer(tmp_path / "public", catalogs=[]) as server:
        server.faults.append(faults.truncated(r"land", times=99))
        job = SimpleNamespace(
            params=SimpleNamespace(url=f"{server.files_url}land.zip?sig=planted-signature", sha256=None),
            output=SimpleNamespace(file=str(tmp_path / "made/land.zip")),
        )
        with pytest.raises(RuntimeError) as error:
            download_source.main(job)
    assert "planted-" not in str(error.value) + caplog.text
    assert written_secrets(tmp_path / "made") == []
