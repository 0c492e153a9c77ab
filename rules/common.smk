"""Configuration, and the helper functions that the other rule files use."""

import functools
import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace

ROOT = Path(workflow.current_basedir).parent
sys.path.insert(0, str(ROOT))
os.environ.update(
    PYTHONPATH=os.pathsep.join(
        dict.fromkeys([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    )
)

from snakemake.settings.enums import RerunTrigger

from pretrain.recipes import resolve as resolve_model
from pretrain.recipes import what_is_learned
from workflow_scripts.core import config as settings_of
from workflow_scripts.core import provenance
from workflow_scripts.core.provenance import constant, digest, file_digest

# Not by `configfile:`, which merges a --configfile recursively (so that the project's own datasets,
# models and tasks would stay in it) and is skipped in a module that is given its `config`.
config.update(settings_of.merge(settings_of.read(ROOT / "config.yaml"), config))
SETTINGS = settings_of.load(config, ROOT / "schemas", resolve_model)
SEED = SETTINGS.seed
CATALOGS = SETTINGS.catalogs
DATASETS = SETTINGS.datasets
IMPORTS = SETTINGS.imports
MODELS = SETTINGS.models
TASKS = SETTINGS.tasks


def alternatives(names):
    """Regular expression of names, one that matches nothing where there are none."""
    return "|".join(map(re.escape, names)) or "(?!)"


wildcard_constraints:
    dataset=alternatives(DATASETS),
    model=alternatives(MODELS),
    task=alternatives(TASKS),
    shard=r"\d+",
    tile=r"h\d\dv\d\d|\d\d[C-X][A-Z][A-Z]",


STORAGE = workflow.storage_settings
IN_BUCKET = STORAGE.default_storage_provider is not None
"""Whether all files lie in a bucket (profiles/s3), of which jobs get copies."""


def address(path):
    """Address of a file in the bucket."""
    return f"{(STORAGE.default_storage_prefix or '').rstrip('/')}/{path}"


def plain(outputs):
    """Outputs of a rule for expand(), which does not take what lies in a bucket."""
    here = f"{address('').split('://')[-1]}"
    return [str(file).split(here, 1)[-1] for file in outputs] if IN_BUCKET else outputs


def in_place(files):
    """Files that a job reads, or writes, where they lie, also in a bucket: no copy is made."""
    if not IN_BUCKET:
        return files
    if not isinstance(files, str):
        return [in_place(file) for file in files]
    return storage(address(files), retrieve=False)


def kept(files):
    """Outputs that stay for their rule to build on; Snakemake 9.27 cannot do that in a bucket."""
    return files if IN_BUCKET else update(files)


OBJECTS = {
    name: f"{name}/c.{{shard}}{'.0' * (n - 1)}"
    for name, n in constant("workflow_scripts/core/store.py", "OBJECT_DIMENSIONS").items()
}
SHARD_OBJECTS = list(OBJECTS.values())
"""Objects that one job writes into patches.zarr, relative to it."""
LAYOUTS = constant("workflow_scripts/importing/layouts.py", "LAYOUTS")


def import_objects(form):
    """Objects that one job writes into the store of an imported archive of a format."""
    absent = {"dn10", "dn20", "dn60", "scl"} - set(LAYOUTS[form]["arrays"])
    return [path for name, path in OBJECTS.items() if name not in absent]


def code(module):
    """Params function: digest of a module of ours and all it imports of ours.

    A function, so that a job on a cluster, which starts with a look at all rules, digests its own module only.
    """
    return lambda wildcards: provenance.code(module)


def option(section, key=None):
    """Params function: one option of a section of the wildcard's dataset, or the whole section."""

    def value(wildcards):
        options = DATASETS[wildcards.dataset][section]
        return options if key is None else options[key]

    return value


def memory(mb):
    """Resource function: MB of memory, that much more at each further attempt (option `retries`)."""
    return lambda wildcards, attempt: mb * attempt


def minutes(n):
    """Resource function: minutes of time, that many more at each further attempt."""
    return lambda wildcards, attempt: n * attempt


def season_labels(wildcards):
    """Labels of a dataset's windows, those of a second cycle included."""
    return settings_of.season_labels(DATASETS[wildcards.dataset]["seasons"])


def path_option(section, key):
    """Input function: the files an option or its list names (a path, or {path: …}); none where null."""

    def value(wildcards):
        entry = DATASETS[wildcards.dataset][section].get(key)
        entries = entry if isinstance(entry, list) else [entry]
        paths = [some.get("path") if isinstance(some, dict) else some for some in entries]
        return [path for path in paths if isinstance(path, str)]

    return value


def jobs(dataset):
    """What follows from the sampled locations: shards and tiles (checkpoint)."""
    if dataset in IMPORTS:
        provider = checkpoints.import_archive
    elif "from" in DATASETS[dataset]:
        provider = checkpoints.adopt_locations
    else:
        provider = checkpoints.sample_locations
    file = provider.get(dataset=dataset).output.jobs
    if file.is_storage:
        return read_jobs_in_bucket(file.storage_object)
    return read_jobs(file, os.stat(file).st_mtime_ns)


@functools.cache
def read_jobs(file, changed):
    """Content of jobs.json; planning thousands of shards asks for it as often."""
    return json.loads(Path(file).read_text())


def read_jobs_in_bucket(file):
    """Content of jobs.json, which a job on another machine may have made."""
    if file.query not in JOBS_IN_BUCKET:
        JOBS_IN_BUCKET[file.query] = json.loads(file.s3obj().get()["Body"].read())
    return JOBS_IN_BUCKET[file.query]


JOBS_IN_BUCKET = {}


def shard_tiles(wildcards):
    """MGRS tiles that the locations of a shard may lie on."""
    return jobs(wildcards.dataset)["shards"][wildcards.shard]["mgrs_tiles"]


def mgrs_tiles(wildcards):
    """MGRS tiles of the wildcard's dataset."""
    tiles = {t for s in jobs(wildcards.dataset)["shards"].values() for t in s["mgrs_tiles"]}
    return sorted(tiles)


def modis_tiles(wildcards):
    """Sinusoidal tiles of the wildcard's dataset."""
    return jobs(wildcards.dataset)["modis_tiles"]


def adopts_phenology(dataset):
    return DATASETS[dataset].get("from", {}).get("until") == "phenology"


def uses_phenology(dataset):
    seasons = DATASETS[dataset]["seasons"]
    takes_lengths = seasons["strategy"] == "calendar" and seasons["lengths"] == "phenology"
    return seasons["strategy"] == "phenology" or takes_lengths


def has_catalog(dataset):
    return DATASETS[dataset]["scenes"]["catalog"] is not None


def is_trained(model):
    return MODELS[model].get("encoder", "trained") == "trained"


def source_rule(path):
    """Name of the rule that downloads a file."""
    return f"download_source_{re.sub(r'[^A-Za-z0-9]+', '_', path)}"


def dataset_files(dataset, *patterns):
    """Files of a dataset; a pattern with {shard} stands for those of all its shards."""
    sharded = any("{shard}" in pattern for pattern in patterns)
    numbers = sorted(map(int, jobs(dataset)["shards"])) if sharded else []
    names = [
        name
        for pattern in patterns
        for name in (expand(pattern, shard=numbers) if "{shard}" in pattern else [pattern])
    ]
    return [f"results/datasets/{dataset}/{name}" for name in names]


def per_dataset(*patterns, having=lambda dataset: True):
    """Input function: the files of every dataset that has something."""

    def files(wildcards):
        return [f for name in DATASETS if having(name) for f in dataset_files(name, *patterns)]

    return files


def store_metadata(wildcards):
    """Input function: a dataset's store, which jobs read where it lies."""
    return in_place(f"results/datasets/{wildcards.dataset}/patches.zarr/zarr.json")


def stores(wildcards):
    """Input function: the store of every dataset.

    For targets that list its objects: Snakemake 9.27 looks at no job behind one that runs unless a link
    that is not ancient() leads on, so that a rerun of create_store alone would hide a lost object.
    """
    return [
        in_place(f"results/datasets/{name}/patches.zarr/zarr.json")
        for name in filter(has_catalog, DATASETS)
    ]


STORE_OBJECTS = [f"patches.zarr/{name}" for name in SHARD_OBJECTS]


def object_files(dataset):
    """Every object of a dataset's store."""
    names = import_objects(IMPORTS[dataset]["format"]) if dataset in IMPORTS else SHARD_OBJECTS
    return dataset_files(dataset, *(f"patches.zarr/{name}" for name in names))


def per_import(*files):
    """Input function: files of every imported archive, and the objects of its store."""
    return lambda wildcards: [
        f for name in IMPORTS for f in [*dataset_files(name, *files), *object_files(name)]
    ]


def check_targets():
    """Raise unless every file that was asked for is there, and every model trained as its entry says now.

    Snakemake 9.27 leaves out a job whose inputs are all ancient() when something upstream of it runs
    first, even if its output is missing or its parameters changed: pretrain, for one.
    """
    if IN_BUCKET:
        return
    targets = workflow.dag_settings.targets
    files = [name for name in targets if "/" in name]
    again = [name for name in files if not Path(name).exists()]
    if RerunTrigger.PARAMS in workflow.rerun_triggers:
        asked = filter(is_trained, MODELS if not targets or WITH_MODELS & set(targets) else ())
        again += [f"model {name} ({now})" for name in asked if (now := changed_options(name))]
    if again:
        raise WorkflowError(
            f"upstream files were made first; run the same command again for: {', '.join(again)}"
        )


WITH_MODELS = {"all", "pretrained", "evaluated", "report", "publish"}
"""Targets that every model to train is part of."""


def changed_options(model):
    """Tell which options a model was trained with, and what they are now; nothing where they are the same."""
    file = Path(f"results/models/{model}/options.json")
    if not file.exists():
        return ""
    found = json.loads(file.read_text())["options"]
    wanted = json.loads(json.dumps(what_is_learned(resolve_model(MODELS[model]))))
    return ", ".join(
        f"{key}: {found[key]!r}, now {value!r}"
        for key, value in wanted.items()
        if key in found and found[key] != value
    )
