"""Greenness series, vegetation cycles and the windows of the seasons."""


include: "functions/seasons.smk"


CLIMATOLOGY = {"min_years": 3, "group_days": 60}
"""Options of section `phenology` that define_seasons reads, with their defaults; the rest is
estimate_phenology's, so that one rule's options do not rerun the other."""


rule read_tile:
    input:
        locations="results/datasets/{dataset}/locations.parquet",
        catalog=greenness_catalog,
    output:
        greenness="results/datasets/{dataset}/greenness/{tile}.parquet",
    log:
        "results/logs/{dataset}/read_tile.{tile}.log",
    benchmark:
        "results/logs/{dataset}/read_tile.{tile}.benchmark.tsv"
    wildcard_constraints:
        tile=r"h\d\dv\d\d",
    threads: 4
    resources:
        mem_mb=memory(2000),
        runtime=minutes(240),
    params:
        code=code("workflow_scripts.read_tile"),
        settings=option("greenness"),
        catalog=lambda w: {
            "name": greenness_option("catalog", w.dataset),
            **CATALOGS[greenness_option("catalog", w.dataset)],
        },
    conda:
        "../envs/geo.yaml"
    script:
        "../workflow_scripts/read_tile.py"


rule extract_greenness:
    input:
        locations="results/datasets/{dataset}/locations.parquet",
        tiles=greenness_tiles,
        series=greenness_series,
    output:
        store=in_place("results/datasets/{dataset}/greenness.zarr/zarr.json"),
    log:
        "results/logs/{dataset}/extract_greenness.log",
    benchmark:
        "results/logs/{dataset}/extract_greenness.benchmark.tsv"
    threads: 1
    resources:
        mem_mb=memory(4000),
        runtime=minutes(60),
    params:
        code=code("workflow_scripts.extract_greenness"),
        settings=option("greenness"),
    conda:
        "../envs/geo.yaml"
    script:
        "../workflow_scripts/extract_greenness.py"


rule estimate_phenology:
    input:
        greenness=series_store,
    output:
        cycles="results/datasets/{dataset}/phenology_cycles.parquet",
    log:
        "results/logs/{dataset}/estimate_phenology.log",
    benchmark:
        "results/logs/{dataset}/estimate_phenology.benchmark.tsv"
    wildcard_constraints:
        dataset=alternatives(
            name for name in DATASETS if not (adopts_phenology(name) or reads_product(name))
        ),
    threads: 4
    resources:
        mem_mb=memory(4000),
        runtime=minutes(60),
    params:
        code=code("workflow_scripts.estimate_phenology"),
        settings=lambda w: {
            key: value
            for key, value in DATASETS[w.dataset]["phenology"].items()
            if key not in CLIMATOLOGY
        },
    conda:
        "../envs/geo.yaml"
    script:
        "../workflow_scripts/estimate_phenology.py"


rule read_mcd12q2:
    input:
        locations="results/datasets/{dataset}/locations.parquet",
        files=product_files,
    output:
        cycles="results/datasets/{dataset}/phenology_cycles.parquet",
    log:
        "results/logs/{dataset}/read_mcd12q2.log",
    benchmark:
        "results/logs/{dataset}/read_mcd12q2.benchmark.tsv"
    wildcard_constraints:
        dataset=alternatives(
            name for name in DATASETS if reads_product(name) and not adopts_phenology(name)
        ),
    threads: 1
    resources:
        mem_mb=memory(4000),
        runtime=minutes(240),
    params:
        code=code("workflow_scripts.read_mcd12q2"),
    conda:
        "../envs/geo.yaml"
    script:
        "../workflow_scripts/read_mcd12q2.py"


rule adopt_phenology:
    input:
        cycles=other("phenology_cycles.parquet"),
    output:
        cycles="results/datasets/{dataset}/phenology_cycles.parquet",
    log:
        "results/logs/{dataset}/adopt_phenology.log",
    benchmark:
        "results/logs/{dataset}/adopt_phenology.benchmark.tsv"
    wildcard_constraints:
        dataset=alternatives(filter(adopts_phenology, DATASETS)),
    threads: 1
    resources:
        mem_mb=memory(2000),
        runtime=minutes(10),
    params:
        code=code("workflow_scripts.adopt_phenology"),
    conda:
        "../envs/geo.yaml"
    script:
        "../workflow_scripts/adopt_phenology.py"


rule define_seasons:
    input:
        locations="results/datasets/{dataset}/locations.parquet",
        cycles=season_cycles,
        dates=season_dates,
    output:
        seasons="results/datasets/{dataset}/seasons.parquet",
    log:
        "results/logs/{dataset}/define_seasons.log",
    benchmark:
        "results/logs/{dataset}/define_seasons.benchmark.tsv"
    threads: 1
    resources:
        mem_mb=memory(4000),
        runtime=minutes(60),
    params:
        code=code("workflow_scripts.define_seasons"),
        settings=option("seasons"),
        climatology=lambda w: {
            key: DATASETS[w.dataset]["phenology"].get(key, default)
            for key, default in CLIMATOLOGY.items()
        },
        max_sun_zenith=lambda w: DATASETS[w.dataset]["scenes"].get("max_sun_zenith", 85),
        seed=SEED,
    conda:
        "../envs/geo.yaml"
    script:
        "../workflow_scripts/define_seasons.py"
