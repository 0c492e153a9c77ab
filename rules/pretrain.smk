"""Self-supervised pretraining. Data are ancient: only changed params or --forcerun train again."""


def model_dataset(file):
    """Input function: a file of the dataset that a model is trained on."""
    return lambda wildcards: f"results/datasets/{MODELS[wildcards.model]['dataset']}/{file}"


def model_options(wildcards):
    """What a model's entry says, without how many cores it gets."""
    return {key: value for key, value in MODELS[wildcards.model].items() if key != "threads"}


def model_threads(wildcards):
    """CPU cores of a training run: as given, else one per process and reader thread."""
    entry = MODELS[wildcards.model]
    return entry.get("threads") or entry.get("processes", 1) * entry.get("reader_threads", 1)


rule pretrain:
    input:
        patches=ancient(model_dataset("patches.parquet")),
        weights=ancient(model_dataset("weights.parquet")),
        store=ancient(model_dataset("patches.zarr/zarr.json")),
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
    conda:
        "../envs/torch.yaml"
    script:
        "../pretrain/pretrain.py"
