rule build_demo_world:
    # Scene and composite files are listed in the catalogs, which are written last.
    output:
        land="resources/demo/land.parquet",
        ecoregions="resources/demo/ecoregions.parquet",
        mountains="resources/demo/mountains.parquet",
        climate="resources/demo/climate.tif",
        scenes="resources/demo/items.parquet",
        scenes_json="resources/demo/items.json",
        modis="resources/demo/modis.parquet",
        modis_json="resources/demo/modis.json",
        truth_phenology="resources/demo/truth/phenology.parquet",
        truth_ndvi="resources/demo/truth/ndvi.parquet",
    log:
        "results/logs/demo/build_demo_world.log",
    benchmark:
        "results/logs/demo/build_demo_world.benchmark.tsv"
    threads: 2
    resources:
        mem_mb=memory(1500),
        runtime=minutes(10),
    params:
        code=code("workflow_scripts.build_demo_world"),
        seed=SEED,
    conda:
        "../envs/geo.yaml"
    script:
        "../workflow_scripts/build_demo_world.py"
