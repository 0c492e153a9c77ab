"""What makes patches a dataset: sampling weights, band statistics, the card."""


include: "functions/dataset.smk"


rule weigh_locations:
    input:
        locations="results/datasets/{dataset}/locations.parquet",
        patches="results/datasets/{dataset}/patches.parquet",
        store=ancient(store_metadata),
    output:
        weights="results/datasets/{dataset}/weights.parquet",
        shares="results/datasets/{dataset}/weights.json",
    log:
        "results/logs/{dataset}/weigh_locations.log",
    benchmark:
        "results/logs/{dataset}/weigh_locations.benchmark.tsv"
    threads: 1
    resources:
        mem_mb=memory(3000),
        runtime=minutes(240),
    params:
        settings=option("weights"),
        code=code("workflow_scripts.weigh_locations"),
    conda:
        "../envs/geo.yaml"
    script:
        "../workflow_scripts/weigh_locations.py"


rule summarize_bands:
    input:
        patches="results/datasets/{dataset}/patches.parquet",
        store=ancient(store_metadata),
    output:
        bands="results/datasets/{dataset}/bands.json",
    log:
        "results/logs/{dataset}/summarize_bands.log",
    benchmark:
        "results/logs/{dataset}/summarize_bands.benchmark.tsv"
    threads: 4
    resources:
        mem_mb=memory(4000),
        runtime=minutes(480),
    params:
        code=code("workflow_scripts.summarize_bands"),
    conda:
        "../envs/geo.yaml"
    script:
        "../workflow_scripts/summarize_bands.py"


rule write_dataset_card:
    input:
        patches="results/datasets/{dataset}/patches.parquet",
        seasons="results/datasets/{dataset}/seasons.parquet",
        scenes=scene_tables,
        store=ancient(store_metadata),
        bands="results/datasets/{dataset}/bands.json",
        shares="results/datasets/{dataset}/weights.json",
        verification="results/datasets/{dataset}/verification.json",
    output:
        card=report(
            "results/datasets/{dataset}/README.md",
            category="Datasets",
            labels={"dataset": "{dataset}", "what": "card"},
            caption="../report/card.rst",
        ),
        collection="results/datasets/{dataset}/collection.json",
    log:
        "results/logs/{dataset}/write_dataset_card.log",
    benchmark:
        "results/logs/{dataset}/write_dataset_card.benchmark.tsv"
    threads: 1
    resources:
        mem_mb=memory(4000),
        runtime=minutes(30),
    params:
        settings=lambda wildcards: DATASETS[wildcards.dataset],
        code=code("workflow_scripts.write_dataset_card"),
    conda:
        "../envs/geo.yaml"
    script:
        "../workflow_scripts/write_dataset_card.py"


rule estimate_cost:
    input:
        jobs="results/datasets/{dataset}/jobs.json",
    output:
        estimate="results/datasets/{dataset}/estimate.json",
        text="results/datasets/{dataset}/estimate.txt",
    log:
        "results/logs/{dataset}/estimate_cost.log",
    benchmark:
        "results/logs/{dataset}/estimate_cost.benchmark.tsv"
    threads: 1
    resources:
        mem_mb=memory(2000),
        runtime=minutes(10),
    params:
        code=code("workflow_scripts.estimate_cost"),
        seasons=season_labels,
        size_m=option("patches", "size_m"),
        greenness=composites_read,
        scene_years=option("scenes", "years"),
        page_size=search_page,
        rates=SETTINGS.estimate,
    conda:
        "../envs/geo.yaml"
    script:
        "../workflow_scripts/estimate_cost.py"
