"""Folders of datasets and models that can be put on a hub or in an archive as they are."""


include: "functions/publish.smk"


rule publish_dataset:
    input:
        locations="results/datasets/{dataset}/locations.parquet",
        seasons="results/datasets/{dataset}/seasons.parquet",
        patches="results/datasets/{dataset}/patches.parquet",
        weights="results/datasets/{dataset}/weights.parquet",
        bands="results/datasets/{dataset}/bands.json",
        verification="results/datasets/{dataset}/verification.json",
        collection="results/datasets/{dataset}/collection.json",
        card="results/datasets/{dataset}/README.md",
        store=ancient("results/datasets/{dataset}/patches.zarr/zarr.json"),
    output:
        croissant="results/published/datasets/{dataset}/croissant.json",
        stac_items="results/published/datasets/{dataset}/items.parquet",
        licenses="results/published/datasets/{dataset}/LICENSES.md",
        citation="results/published/datasets/{dataset}/CITATION.cff",
    log:
        "results/logs/{dataset}/publish_dataset.log",
    benchmark:
        "results/logs/{dataset}/publish_dataset.benchmark.tsv"
    threads: 1
    resources:
        mem_mb=memory(4000),
        runtime=minutes(240),
    params:
        settings=dataset_settings,
        code=code("workflow_scripts.publish_dataset"),
    conda:
        "../envs/geo.yaml"
    script:
        "../workflow_scripts/publish_dataset.py"


rule publish_model:
    input:
        encoder="results/models/{model}/encoder.safetensors",
        options="results/models/{model}/options.json",
        metrics="results/models/{model}/metrics.jsonl",
        scores=model_scores,
    output:
        card="results/published/models/{model}/README.md",
        licenses="results/published/models/{model}/LICENSES.md",
        citation="results/published/models/{model}/CITATION.cff",
    log:
        "results/logs/models/{model}/publish_model.log",
    benchmark:
        "results/logs/models/{model}/publish_model.benchmark.tsv"
    threads: 1
    resources:
        mem_mb=memory(2000),
        runtime=minutes(30),
    params:
        model=model_settings,
        report=trained_on,
        code=code("workflow_scripts.publish_model"),
    conda:
        "../envs/geo.yaml"
    script:
        "../workflow_scripts/publish_model.py"
