"""From config.yaml to a trained, evaluated model: locations, greenness, phenology, seasons,
scenes, patches, dataset, pretraining, downstream tasks, report."""

from snakemake.utils import min_version

min_version("9.0")


report: "report/workflow.rst"


include: "rules/common.smk"
include: "rules/demo.smk"
include: "rules/sources.smk"
include: "rules/locations.smk"
include: "rules/seasons.smk"
include: "rules/patches.smk"
include: "rules/imports.smk"
include: "rules/dataset.smk"
include: "rules/pretrain.smk"
include: "rules/downstream.smk"
include: "rules/publish.smk"
include: "rules/report.smk"
include: "rules/explore.smk"


localrules:
    all,
    sample,
    estimate,
    phenology,
    scenes,
    patches,
    dataset,
    verify,
    publish,
    pretrained,
    evaluated,
    report,
    explore,


rule sample:
    input:
        per_dataset("locations.parquet"),


rule estimate:
    input:
        per_dataset("estimate.txt"),
        expand("results/models/{model}/estimate.txt", model=families(filter(is_trained, MODELS))),
    log:
        "results/logs/estimate.log",
    conda:
        "envs/geo.yaml"
    shell:
        "cat {input} | tee {log}"


rule phenology:
    input:
        per_dataset("seasons.parquet"),
        per_dataset("phenology_cycles.parquet", having=uses_phenology),


rule scenes:
    input:
        per_dataset("scenes/{shard}.parquet", having=has_catalog),


rule patches:
    input:
        per_dataset("patches.parquet", *STORE_OBJECTS, having=has_catalog),
        stores,
        per_import("patches.parquet"),


rule dataset:
    input:
        rules.patches.input,
        per_dataset(
            "verification.json",
            "weights.parquet",
            "bands.json",
            "README.md",
            having=has_catalog,
        ),
        per_import("verification.json", "labels.parquet"),


rule verify:
    input:
        rules.patches.input,
        per_dataset("verification.json", having=has_catalog),
        per_import("verification.json"),


rule publish:
    input:
        expand(plain(rules.publish_dataset.output), dataset=filter(has_catalog, DATASETS)),
        expand(plain(rules.publish_model.output), model=filter(is_trained, MODELS)),


rule pretrained:
    input:
        rules.dataset.input,
        expand("results/models/{model}/encoder.safetensors", model=filter(is_trained, MODELS)),


rule evaluated:
    input:
        rules.pretrained.input,
        evaluated_pairs(
            "results/downstream/{model}/{task}/linear.json",
            "results/downstream/{model}/{task}/knn.json",
        ),


rule report:
    input:
        rules.evaluated.input,
        rules.write_report.output.report,


rule explore:
    input:
        rules.write_explore.output,
        explored_shards,


rule all:
    default_target: True
    input:
        rules.report.input,


onsuccess:
    check_targets()
