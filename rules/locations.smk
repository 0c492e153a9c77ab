"""Locations and their labels: where the patches of a dataset lie."""


include: "functions/locations.smk"


rule draw_points:
    input:
        source=point_source,
    output:
        points="results/datasets/{dataset}/points.parquet",
    log:
        "results/logs/{dataset}/draw_points.log",
    benchmark:
        "results/logs/{dataset}/draw_points.benchmark.tsv"
    wildcard_constraints:
        dataset=alternatives(filter(draws_points, DATASETS)),
    threads: 1
    resources:
        mem_mb=memory(4000),
        runtime=minutes(120),
    params:
        options=lambda wildcards: point_options(wildcards.dataset),
        seed=SEED,
        code=code("workflow_scripts.draw_points"),
    conda:
        "../envs/geo.yaml"
    script:
        "../workflow_scripts/draw_points.py"


checkpoint sample_locations:
    input:
        land=path_option("locations", "land"),
        ecoregions=path_option("locations", "ecoregions"),
        mountains=path_option("locations", "mountains"),
        region=path_option("locations", "region"),
        exclude=path_option("locations", "exclude"),
        strata_path=path_option("locations", "strata_path"),
        strata_areas=path_option("locations", "strata_areas"),
        path=own_points,
        spread=path_option("locations", "spread"),
        evaluation=evaluation_points,
    output:
        locations="results/datasets/{dataset}/locations.parquet",
        jobs="results/datasets/{dataset}/jobs.json",
        sampling="results/datasets/{dataset}/sampling.json",
    log:
        "results/logs/{dataset}/sample_locations.log",
    benchmark:
        "results/logs/{dataset}/sample_locations.benchmark.tsv"
    wildcard_constraints:
        dataset=alternatives(name for name in DATASETS if "from" not in DATASETS[name]),
    threads: 1
    resources:
        mem_mb=memory(3000),
        runtime=minutes(30),
    params:
        settings=option("locations"),
        size_m=option("patches", "size_m"),
        seed=SEED,
        code=code("workflow_scripts.sample_locations"),
    conda:
        "../envs/geo.yaml"
    script:
        "../workflow_scripts/sample_locations.py"


checkpoint adopt_locations:
    input:
        locations=other("locations.parquet"),
        jobs=other("jobs.json"),
    output:
        locations="results/datasets/{dataset}/locations.parquet",
        jobs="results/datasets/{dataset}/jobs.json",
    log:
        "results/logs/{dataset}/adopt_locations.log",
    benchmark:
        "results/logs/{dataset}/adopt_locations.benchmark.tsv"
    wildcard_constraints:
        dataset=alternatives(name for name in DATASETS if "from" in DATASETS[name]),
    threads: 1
    resources:
        mem_mb=memory(2000),
        runtime=minutes(10),
    params:
        code=code("workflow_scripts.adopt_locations"),
    conda:
        "../envs/geo.yaml"
    script:
        "../workflow_scripts/adopt_locations.py"


rule label_locations:
    input:
        locations="results/datasets/{dataset}/locations.parquet",
        sources=label_sources,
        points=drawn_points,
    output:
        labels="results/datasets/{dataset}/labels.parquet",
    log:
        "results/logs/{dataset}/label_locations.log",
    benchmark:
        "results/logs/{dataset}/label_locations.benchmark.tsv"
    threads: 1
    resources:
        mem_mb=memory(3000),
        runtime=minutes(30),
    params:
        labels=option("labels"),
        code=code("workflow_scripts.label_locations"),
    conda:
        "../envs/geo.yaml"
    script:
        "../workflow_scripts/label_locations.py"
