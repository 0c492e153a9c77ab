"""Evaluation of frozen encoders: embeddings once per model and dataset, then two probes per task."""


def encoder_file(wildcards):
    """Input function: the weights of a trained model; the others have none."""
    if MODELS[wildcards.model].get("encoder", "trained") == "trained":
        return f"results/models/{wildcards.model}/encoder.safetensors"
    return []


def embedding_options(wildcards):
    """Params function: what determines an embedding; a trained encoder's file states it itself."""
    model = MODELS[wildcards.model]
    if model.get("encoder", "trained") == "trained":
        return {"device": model.get("device", "auto")}
    return {key: value for key, value in model.items() if key != "family"}


def task_embeddings(wildcards):
    """Input function: the embeddings of a task's dataset."""
    dataset = TASKS[wildcards.task]["dataset"]
    return f"results/embeddings/{wildcards.model}/{dataset}/embeddings.zarr/zarr.json"


def task_labels(wildcards):
    """Input function: the labels of a task's dataset."""
    return f"results/datasets/{TASKS[wildcards.task]['dataset']}/labels.parquet"


def task_options(wildcards):
    """Params function: the entry of a task."""
    return TASKS[wildcards.task]


rule embed_patches:
    input:
        encoder=encoder_file,
        patches="results/datasets/{dataset}/patches.parquet",
        store=ancient("results/datasets/{dataset}/patches.zarr/zarr.json"),
    output:
        store="results/embeddings/{model}/{dataset}/embeddings.zarr/zarr.json",
    log:
        "results/logs/downstream/{model}/embed_patches.{dataset}.log",
    benchmark:
        "results/logs/downstream/{model}/embed_patches.{dataset}.benchmark.tsv"
    threads: 4
    resources:
        mem_mb=8000,
        runtime=240,
    params:
        model=embedding_options,
        code=code("pretrain.downstream.embed_patches"),
    conda:
        "../envs/torch.yaml"
    script:
        "../pretrain/downstream/embed_patches.py"


rule linear_probe:
    input:
        embeddings=task_embeddings,
        labels=task_labels,
    output:
        scores="results/downstream/{model}/{task}/linear.json",
    log:
        "results/logs/downstream/{model}/{task}/linear_probe.log",
    benchmark:
        "results/logs/downstream/{model}/{task}/linear_probe.benchmark.tsv"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=120,
    params:
        task=task_options,
        seed=SEED,
        code=code("pretrain.downstream.linear_probe"),
    conda:
        "../envs/torch.yaml"
    script:
        "../pretrain/downstream/linear_probe.py"


rule knn_probe:
    input:
        embeddings=task_embeddings,
        labels=task_labels,
    output:
        scores="results/downstream/{model}/{task}/knn.json",
    log:
        "results/logs/downstream/{model}/{task}/knn_probe.log",
    benchmark:
        "results/logs/downstream/{model}/{task}/knn_probe.benchmark.tsv"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=60,
    params:
        task=task_options,
        seed=SEED,
        code=code("pretrain.downstream.knn_probe"),
    conda:
        "../envs/torch.yaml"
    script:
        "../pretrain/downstream/knn_probe.py"
