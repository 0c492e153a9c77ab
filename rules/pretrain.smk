"""Self-supervised pretraining. Data are ancient: only changed params or --forcerun train again."""


include: "functions/pretrain.smk"


rule estimate_training:
    input:
        jobs=model_dataset("jobs.json"),
    output:
        estimate="results/models/{model}/estimate.json",
        text="results/models/{model}/estimate.txt",
    log:
        "results/logs/models/{model}/estimate_training.log",
    benchmark:
        "results/logs/models/{model}/estimate_training.benchmark.tsv"
    threads: model_threads
    resources:
        mem_mb=memory(8000),
        runtime=minutes(30),
        gpu=estimate_gpus,
    params:
        code=code("pretrain.estimate_training"),
        model=model_options,
        seasons=trained_on("seasons", "names"),
        size_m=trained_on("patches", "size_m"),
        finished=finished_dataset,
        others=finished_others,
    conda:
        "../envs/torch.yaml"
    script:
        "../pretrain/estimate_training.py"


rule pretrain:
    input:
        patches=ancient(model_dataset("patches.parquet")),
        weights=ancient(model_dataset("weights.parquet")),
        store=ancient(model_dataset("patches.zarr/zarr.json")),
        locations=ancient(model_dataset("locations.parquet")),
        others=ancient(other_indexes),
        side_table=ancient(side_table),
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
        mem_mb=memory(8000),
        runtime=10080,  # no more at a further attempt, which goes on from the last checkpoint
        nodes=model_machines,
        tasks=model_machines,
        mpi=model_launcher,
        gpu=model_gpus,
        tasks_per_gpu=0,  # no task count from GPUs: one launcher per machine takes all of its
    params:
        version=constant("pretrain/pretrain.py", "VERSION"),
        model=model_options,
        watched_task=watched_task,
        checkpoints=model_checkpoints,
    conda:
        "../envs/torch.yaml"
    script:
        "../pretrain/pretrain.py"
