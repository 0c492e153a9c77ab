"""Functions that rules/pretrain.smk uses for inputs and params."""


def model_dataset(file):
    """Input function: a file of the dataset that a model is trained on."""
    return lambda wildcards: dataset_file(MODELS[wildcards.model]["dataset"], file)


def dataset_file(dataset, file):
    """A file of a dataset; its store is read where it lies."""
    path = f"results/datasets/{dataset}/{file}"
    return in_place(path) if "zarr" in file else path


def model_checkpoints(wildcards):
    """Params function: folder of the bucket where checkpoints are kept, too; none without a bucket."""
    return address(f"results/models/{wildcards.model}/checkpoints") if IN_BUCKET else None


def trained_on(section, key):
    """Params function: one option of the dataset that a model is trained on."""
    return lambda wildcards: DATASETS[MODELS[wildcards.model]["dataset"]][section][key]


def finished_dataset(wildcards):
    """Params function: the folder of that dataset, if it is finished; no input, so that nothing makes it."""
    folder = Path("results/datasets") / MODELS[wildcards.model]["dataset"]
    is_finished = all((folder / f"{name}.parquet").exists() for name in ("patches", "weights"))
    return str(folder) if is_finished else None


def families(models):
    """One trained model of each family: seeds cost the same."""
    first = {MODELS[name]["family"]: name for name in reversed([*models])}
    return [name for name in MODELS if name in first.values()]


def other_indexes(wildcards):
    """Input function: the indexes of the datasets whose locations a model shares (`complete_in`)."""
    return [
        dataset_file(name, "patches.parquet")
        for name in MODELS[wildcards.model].get("complete_in", [])
    ]


def finished_others(wildcards):
    """Params function: those of them that are there; no input, so that nothing makes them."""
    return [path for path in other_indexes(wildcards) if Path(path).exists()]


def side_table(wildcards):
    """Input function: the model's table of further facts, if it has one."""
    return MODELS[wildcards.model].get("side_table") or []


def watched(file):
    """Input function: a file of the dataset of the task that a model is watched on, if there is one."""

    def path(wildcards):
        task = MODELS[wildcards.model].get("knn", {}).get("task")
        return [] if task is None else dataset_file(TASKS[task]["dataset"], file)

    return path


def watched_task(wildcards):
    """Params function: the entry of that task."""
    return TASKS.get(MODELS[wildcards.model].get("knn", {}).get("task"))


def model_options(wildcards):
    """What a model's entry says, without how many cores it gets."""
    elsewhere = ("threads", "tasks", "extents_px")
    return {key: value for key, value in MODELS[wildcards.model].items() if key not in elsewhere}


def model_threads(wildcards):
    """CPU cores of a training run: as given, else one per process of this machine and reader thread."""
    entry = MODELS[wildcards.model]
    processes = entry.get("processes", 1) // entry.get("nodes", 1)
    return entry.get("threads") or processes * entry.get("reader_threads", 1)


def model_machines(wildcards):
    """Resource function: machines of a training run on several of them; unset for one."""
    nodes = MODELS[wildcards.model].get("nodes", 1)
    return nodes if nodes > 1 else None


def model_launcher(wildcards):
    """Resource function: what starts a task on each machine (such a rule calls it itself, see pretrain.py)."""
    return None if model_machines(wildcards) is None else "srun"


def model_gpus(wildcards):
    """Resource function: GPUs of all machines together, one per process, where the entry asks for GPUs."""
    entry = MODELS[wildcards.model]
    return entry.get("processes", 1) if entry.get("device") == "cuda" else None


def estimate_gpus(wildcards):
    """Resource function: the GPU of a dry run, which is one process."""
    return None if model_gpus(wildcards) is None else 1
