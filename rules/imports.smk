"""Published archives read into the patch store: unpack, list, read shard by shard."""


include: "functions/imports.smk"


rule unpack_archives:
    input:
        archives=archives(PACKED),
    output:
        summary="results/datasets/{dataset}/unpacked.json",
    log:
        "results/logs/{dataset}/unpack_archives.log",
    benchmark:
        "results/logs/{dataset}/unpack_archives.benchmark.tsv"
    wildcard_constraints:
        dataset=alternatives(IMPORTS),
    threads: 1
    resources:
        mem_mb=memory(1000),
        runtime=minutes(1440),
    params:
        code=code("workflow_scripts.unpack_archives"),
    conda:
        "../envs/geo.yaml"
    script:
        "../workflow_scripts/unpack_archives.py"


checkpoint import_archive:
    input:
        unpacked=unpacked_summary,
        archives=archives(IN_PLACE),
    output:
        locations="results/datasets/{dataset}/locations.parquet",
        jobs="results/datasets/{dataset}/jobs.json",
        samples="results/datasets/{dataset}/samples.parquet",
        labels="results/datasets/{dataset}/labels.parquet",
        # never deleted before a rerun: it belongs to the patches in the store
        metadata=update("results/datasets/{dataset}/patches.zarr/zarr.json"),
    log:
        "results/logs/{dataset}/import_archive.log",
    benchmark:
        "results/logs/{dataset}/import_archive.benchmark.tsv"
    wildcard_constraints:
        dataset=alternatives(IMPORTS),
    threads: 1
    resources:
        mem_mb=memory(4000),
        runtime=minutes(480),
    params:
        options=import_options,
        codec=SETTINGS.document["defaults"]["patches"]["codec"],
        code=code("workflow_scripts.import_archive"),
    conda:
        "../envs/geo.yaml"
    script:
        "../workflow_scripts/import_archive.py"


for import_format in LAYOUTS:

    rule:
        name:
            f"import_patches_{import_format.replace('-', '_')}"
        input:
            samples="results/datasets/{dataset}/samples.parquet",
            store=ancient("results/datasets/{dataset}/patches.zarr/zarr.json"),
        output:
            objects=[
                f"results/datasets/{{dataset}}/patches.zarr/{name}"
                for name in import_objects(import_format)
            ],
            retrieved="results/datasets/{dataset}/retrieved/{shard}.parquet",
        log:
            "results/logs/{dataset}/import_patches.{shard}.log",
        benchmark:
            "results/logs/{dataset}/import_patches.{shard}.benchmark.tsv"
        wildcard_constraints:
            dataset=alternatives(
                name for name in IMPORTS if IMPORTS[name]["format"] == import_format
            ),
        threads: 1
        resources:
            mem_mb=memory(2000),
            runtime=minutes(240),
        params:
            format=import_format,
            path=import_path,
            version=constant("workflow_scripts/import_patches.py", "VERSION"),
        conda:
            "../envs/geo.yaml"
        script:
            "../workflow_scripts/import_patches.py"


rule import_label_maps:
    input:
        labels="results/datasets/{dataset}/labels.parquet",
    output:
        store="results/datasets/{dataset}/label_maps.zarr/zarr.json",
    log:
        "results/logs/{dataset}/import_label_maps.log",
    benchmark:
        "results/logs/{dataset}/import_label_maps.benchmark.tsv"
    wildcard_constraints:
        dataset=alternatives(
            name for name in IMPORTS if "label_maps" in LAYOUTS[IMPORTS[name]["format"]]
        ),
    threads: 1
    resources:
        mem_mb=memory(1000),
        runtime=minutes(240),
    params:
        format=import_format_of,
        path=import_path,
        code=code("workflow_scripts.import_label_maps"),
    conda:
        "../envs/geo.yaml"
    script:
        "../workflow_scripts/import_label_maps.py"
