"""The explore page: a map of all locations in the browser, with what is known of each."""


include: "functions/explore.smk"


rule explore_shard:
    input:
        unpack(explored_files),
    output:
        details="results/explore/{dataset}/{shard}.json",
        quicklooks="results/explore/{dataset}/{shard}.jpg",
    log:
        "results/logs/{dataset}/explore_shard.{shard}.log",
    benchmark:
        "results/logs/{dataset}/explore_shard.{shard}.benchmark.tsv"
    threads: 1
    resources:
        mem_mb=memory(2000),
        runtime=minutes(60),
    params:
        phenology=option("phenology"),
        white=option("report", "max_reflectance"),
        code=code("workflow_scripts.explore_shard"),
    conda:
        "../envs/geo.yaml"
    script:
        "../workflow_scripts/explore_shard.py"


rule write_explore:
    input:
        unpack(mapped_files),
    output:
        page="results/explore/index.html",
        listing="results/explore/datasets.json",
        land="results/explore/land.json",
        static=[f"results/explore/{name}" for name in EXPLORE_STATIC if name != "index.html"],
        columns=expand(
            "results/explore/{dataset}/{file}",
            dataset=DATASETS,
            file=["places.bin", "seasons.bin", "ids.txt"],
        ),
    log:
        "results/logs/write_explore.log",
    benchmark:
        "results/logs/write_explore.benchmark.tsv"
    threads: 1
    resources:
        mem_mb=memory(4000),
        runtime=minutes(60),
    params:
        datasets=DATASETS,
        static=EXPLORE_STATIC,
        content=[file_digest(f"workflow_scripts/explore/static/{name}") for name in EXPLORE_STATIC],
        code=code("workflow_scripts.write_explore"),
    conda:
        "../envs/geo.yaml"
    script:
        "../workflow_scripts/write_explore.py"
