"""The report: one HTML file over all datasets, models and tasks of the configuration."""


include: "functions/report.smk"


rule write_report:
    input:
        unpack(report_inputs),
    output:
        report=report("results/report.html", category="Report", caption="../report/report.rst"),
    log:
        "results/logs/write_report.log",
    benchmark:
        "results/logs/write_report.benchmark.tsv"
    threads: 1
    resources:
        mem_mb=memory(8000),
        runtime=minutes(60),
    params:
        datasets=DATASETS,
        models=MODELS,
        seed=SEED,
        logs="results/logs",
        config_digest=digest(SETTINGS.document),
        code=code("workflow_scripts.write_report"),
    conda:
        "../envs/geo.yaml"
    script:
        "../workflow_scripts/write_report.py"


rule write_paper_tables:
    input:
        scores=evaluated_pairs(
            "results/downstream/{model}/{task}/linear.json",
            "results/downstream/{model}/{task}/knn.json",
        ),
    output:
        tables="results/paper-tables.html",
    log:
        "results/logs/write_paper_tables.log",
    benchmark:
        "results/logs/write_paper_tables.benchmark.tsv"
    threads: 1
    resources:
        mem_mb=memory(2000),
        runtime=minutes(10),
    params:
        models=MODELS,
        notices={name: options["report"]["notice"] for name, options in DATASETS.items()},
        code=code("workflow_scripts.write_paper_tables"),
    conda:
        "../envs/geo.yaml"
    script:
        "../workflow_scripts/write_paper_tables.py"


rule map_embeddings:
    input:
        embeddings=embeddings_of_dataset,
    output:
        table="results/embeddings/{model}/{dataset}/embeddings.parquet",
        neighbors="results/embeddings/{model}/{dataset}/neighbors.json",
    log:
        "results/logs/map_embeddings/{model}.{dataset}.log",
    benchmark:
        "results/logs/map_embeddings/{model}.{dataset}.benchmark.tsv"
    threads: 1
    resources:
        mem_mb=memory(8000),
        runtime=minutes(60),
    params:
        neighbors_of=lambda wildcards: DATASETS[wildcards.dataset]["report"]["embeddings"][
            "neighbors_of"
        ],
        code=code("workflow_scripts.map_embeddings"),
    conda:
        "../envs/geo.yaml"
    script:
        "../workflow_scripts/map_embeddings.py"
