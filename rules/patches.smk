"""From seasons to patches: search the catalog, choose scenes, retrieve, index, verify."""


include: "functions/patches.smk"


rule search_tile:
    input:
        catalog=files_of(catalogs_searched),
    output:
        found="results/datasets/{dataset}/items/{tile}.parquet",
    log:
        "results/logs/{dataset}/search_tile.{tile}.log",
    benchmark:
        "results/logs/{dataset}/search_tile.{tile}.benchmark.tsv"
    threads: 1
    resources:
        mem_mb=memory(2000),
        runtime=minutes(60),
        searches=searches,
    params:
        code=code("workflow_scripts.search_tile"),
        catalogs=catalogs_searched,
        years=option("scenes", "years"),
    conda:
        "../envs/geo.yaml"
    script:
        "../workflow_scripts/search_tile.py"


rule gather_items:
    input:
        jobs="results/datasets/{dataset}/jobs.json",
        catalog=files_of(catalogs_gathered),
    output:
        found="results/datasets/{dataset}/items.parquet",
    log:
        "results/logs/{dataset}/gather_items.log",
    benchmark:
        "results/logs/{dataset}/gather_items.benchmark.tsv"
    threads: 4
    resources:
        mem_mb=memory(6000),
        runtime=minutes(600),
    params:
        code=code("workflow_scripts.gather_items"),
        catalogs=catalogs_gathered,
        years=option("scenes", "years"),
    conda:
        "../envs/geo.yaml"
    script:
        "../workflow_scripts/gather_items.py"


rule select_scenes:
    input:
        locations="results/datasets/{dataset}/locations.parquet",
        seasons="results/datasets/{dataset}/seasons.parquet",
        found=items_of_shard,
        index=path_option("scenes", "path"),
    output:
        scenes="results/datasets/{dataset}/scenes/{shard}.parquet",
    log:
        "results/logs/{dataset}/select_scenes.{shard}.log",
    benchmark:
        "results/logs/{dataset}/select_scenes.{shard}.benchmark.tsv"
    threads: 1
    resources:
        mem_mb=memory(2000),
        runtime=minutes(30),
    params:
        code=code("workflow_scripts.select_scenes"),
        settings=option("scenes"),
        seasons=option("seasons", "names"),
        size_m=option("patches", "size_m"),
    conda:
        "../envs/geo.yaml"
    script:
        "../workflow_scripts/select_scenes.py"


rule create_store:
    input:
        locations="results/datasets/{dataset}/locations.parquet",
        seasons="results/datasets/{dataset}/seasons.parquet",
    output:
        # never deleted before a rerun: the store grows, and its metadata belongs to the patches in it
        metadata=in_place(kept("results/datasets/{dataset}/patches.zarr/zarr.json")),
    log:
        "results/logs/{dataset}/create_store.log",
    benchmark:
        "results/logs/{dataset}/create_store.benchmark.tsv"
    threads: 1
    resources:
        mem_mb=memory(2000),
        runtime=minutes(30),
    params:
        code=code("workflow_scripts.create_store"),
        seasons=season_labels,
        per_shard=option("locations", "per_shard"),
        size_m=option("patches", "size_m"),
        codec=option("patches", "codec"),
    conda:
        "../envs/geo.yaml"
    script:
        "../workflow_scripts/create_store.py"


rule retrieve_patches:
    input:
        scenes="results/datasets/{dataset}/scenes/{shard}.parquet",
        store=ancient(store_metadata),
    output:
        # a rerun keeps what is unchanged, so nothing is deleted before it
        objects=kept(
            [f"results/datasets/{{dataset}}/patches.zarr/{name}" for name in SHARD_OBJECTS]
        ),
        retrieved=kept("results/datasets/{dataset}/retrieved/{shard}.parquet"),
    log:
        "results/logs/{dataset}/retrieve_patches.{shard}.log",
    benchmark:
        "results/logs/{dataset}/retrieve_patches.{shard}.benchmark.tsv"
    threads: 1
    resources:
        mem_mb=memory(2000),
        runtime=minutes(240),
    params:
        # not a digest of the code: a comment edited here must not fetch terabytes again
        version=constant("workflow_scripts/retrieve_patches.py", "VERSION"),
        reader=option("patches", "reader"),
        max_cloud_fraction=option("patches", "max_cloud_fraction"),
        max_nodata_fraction=option("patches", "max_nodata_fraction"),
        catalogs=scene_access,
    conda:
        "../envs/geo.yaml"
    script:
        "../workflow_scripts/retrieve_patches.py"


rule index_patches:
    input:
        locations="results/datasets/{dataset}/locations.parquet",
        retrieved=files_of_shards("retrieved/{shard}.parquet"),
    output:
        patches="results/datasets/{dataset}/patches.parquet",
    log:
        "results/logs/{dataset}/index_patches.log",
    benchmark:
        "results/logs/{dataset}/index_patches.benchmark.tsv"
    wildcard_constraints:
        dataset=alternatives([*DATASETS, *IMPORTS]),
    threads: 1
    resources:
        mem_mb=memory(4000),
        runtime=minutes(30),
    params:
        code=code("workflow_scripts.index_patches"),
        size_m=patch_size,
        scenes=scene_options,
    conda:
        "../envs/geo.yaml"
    script:
        "../workflow_scripts/index_patches.py"


rule verify_store:
    input:
        locations="results/datasets/{dataset}/locations.parquet",
        patches="results/datasets/{dataset}/patches.parquet",
        store=store_metadata,
    output:
        verification=report(
            "results/datasets/{dataset}/verification.json",
            category="Datasets",
            labels={"dataset": "{dataset}", "what": "verification"},
            caption="../report/verification.rst",
        ),
    log:
        "results/logs/{dataset}/verify_store.log",
    benchmark:
        "results/logs/{dataset}/verify_store.benchmark.tsv"
    wildcard_constraints:
        dataset=alternatives([*DATASETS, *IMPORTS]),
    threads: 2
    resources:
        mem_mb=memory(4000),
        runtime=minutes(240),
    params:
        code=code("workflow_scripts.verify_store"),
    conda:
        "../envs/geo.yaml"
    script:
        "../workflow_scripts/verify_store.py"
