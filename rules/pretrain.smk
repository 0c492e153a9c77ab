"""Self-supervised pretraining. Data are ancient: only changed params or --forcerun train again."""


def model_dataset(file):
    """Input function: a file of the dataset that a model is trained on."""
    return lambda wildcards: f"results/datasets/{MODELS[wildcards.model]['dataset']}/{file}"


def watched(file):
    """Input function: a file of the dataset of the task that a model is watched on, if there is one."""

    def path(wildcards):
        task = MODELS[wildcards.model].get("knn", {}).get("task")
        return [] if task is None else f"results/datasets/{TASKS[task]['dataset']}/{file}"

    return path


def watched_task(wildcards):
    """Params function: the entry of that task."""
    return TASKS.get(MODELS[wildcards.model].get("knn", {}).get("task"))


def model_options(wildcards):
    """What a model's entry says, without how many cores it gets."""
    return {key: value for key, value in MODELS[wildcards.model].items() if key != "threads"}


def model_threads(wildcards):
    """CPU cores of a training run: as given, else one per process of this machine and reader thread."""
    entry = MODELS[wildcards.model]
    processes = entry.get("processes", 1) // entry.get("nodes", 1)
    return entry.get("threads") or processes * entry.get("reader_threads", 1)


rule pretrain:
    input:
        patches=ancient(model_dataset("patches.parquet")),
        weights=ancient(model_dataset("weights.parquet")),
        store=ancient(model_dataset("patches.zarr/zarr.json")),
        locations=ancient(model_dataset("locations.parquet")),
        watched_patches=ancient(watched("patches.parquet")),
        watched_labels=ancient(watched("labels.parquet")),
        watched_store=ancient(watched("patches.zarr/zarr.json")),
    output:
        options="results/models/{model}/options.json",
        metrics="results/models/{model}/metrics.jsonl",
        encoder="results/models/{model}/encoder.safetensors",
    log:
        "results/logs/models/{model}/pretrain.log",
    benchmark:
        "results/logs/models/{model}/pretrain.benchmark.tsv"
    threads: model_threads
    resources:
        mem_mb=8000,
        runtime=10080,
    params:
        version=constant("pretrain/pretrain.py", "VERSION"),
        model=model_options,
        watched_task=watched_task,
    conda:
        "../envs/torch.yaml"
    script:
        "../pretrain/pretrain.py"
