"""Evaluation of frozen encoders: embeddings once per model and dataset, then two probes per task."""


include: "functions/downstream.smk"


rule embed_patches:
    input:
        encoder=encoder_file,
        table=encoder_table,
        parts=encoder_parts,
        patches="results/datasets/{dataset}/patches.parquet",
        store=ancient(store_metadata),
    output:
        store=in_place("results/embeddings/{model}/{dataset}/embeddings.zarr/zarr.json"),
    log:
        "results/logs/downstream/{model}/embed_patches.{dataset}.log",
    benchmark:
        "results/logs/downstream/{model}/embed_patches.{dataset}.benchmark.tsv"
    wildcard_constraints:
        dataset=alternatives([*DATASETS, *IMPORTS]),
    threads: 4
    resources:
        mem_mb=memory(8000),
        runtime=minutes(240),
        gpu=embedding_gpus,
    params:
        model=embedding_options,
        code=code("pretrain.downstream.embed_patches"),
    conda:
        "../envs/torch.yaml"
    script:
        "../pretrain/downstream/embed_patches.py"


rule embed_maps:
    input:
        encoder=encoder_file,
        table=encoder_table,
        parts=encoder_parts,
        patches="results/datasets/{dataset}/patches.parquet",
        store=ancient(store_metadata),
    output:
        store=in_place("results/embeddings/{model}/{dataset}/maps.zarr/zarr.json"),
    log:
        "results/logs/downstream/{model}/embed_maps.{dataset}.log",
    benchmark:
        "results/logs/downstream/{model}/embed_maps.{dataset}.benchmark.tsv"
    wildcard_constraints:
        dataset=alternatives([*DATASETS, *IMPORTS]),
    threads: 4
    resources:
        mem_mb=memory(8000),
        runtime=minutes(480),
        gpu=embedding_gpus,
    params:
        model=embedding_options,
        code=code("pretrain.downstream.embed_maps"),
    conda:
        "../envs/torch.yaml"
    script:
        "../pretrain/downstream/embed_maps.py"


rule linear_probe:
    input:
        embeddings=task_embeddings,
        labels=task_labels,
        label_maps=task_label_maps,
    output:
        scores=report(
            "results/downstream/{model}/{task}/linear.json",
            category="Tasks",
            subcategory="{task}",
            labels={"model": "{model}", "probe": "linear"},
            caption="../report/scores.rst",
        ),
    log:
        "results/logs/downstream/{model}/{task}/linear_probe.log",
    benchmark:
        "results/logs/downstream/{model}/{task}/linear_probe.benchmark.tsv"
    threads: 1
    resources:
        mem_mb=memory(4000),
        runtime=minutes(120),
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
        label_maps=task_label_maps,
    output:
        scores=report(
            "results/downstream/{model}/{task}/knn.json",
            category="Tasks",
            subcategory="{task}",
            labels={"model": "{model}", "probe": "knn"},
            caption="../report/scores.rst",
        ),
    log:
        "results/logs/downstream/{model}/{task}/knn_probe.log",
    benchmark:
        "results/logs/downstream/{model}/{task}/knn_probe.benchmark.tsv"
    threads: 1
    resources:
        mem_mb=memory(4000),
        runtime=minutes(60),
    params:
        task=task_options,
        seed=SEED,
        code=code("pretrain.downstream.knn_probe"),
    conda:
        "../envs/torch.yaml"
    script:
        "../pretrain/downstream/knn_probe.py"


rule write_submission:
    input:
        embeddings=task_embeddings,
        labels=task_labels,
    output:
        submission="results/downstream/{model}/{task}/submission.csv",
    log:
        "results/logs/downstream/{model}/{task}/write_submission.log",
    benchmark:
        "results/logs/downstream/{model}/{task}/write_submission.benchmark.tsv"
    threads: 1
    resources:
        mem_mb=memory(4000),
        runtime=minutes(120),
    params:
        task=task_options,
        seed=SEED,
        code=code("pretrain.downstream.write_submission"),
    conda:
        "../envs/torch.yaml"
    script:
        "../pretrain/downstream/write_submission.py"
