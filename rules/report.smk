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
        runtime=60,
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
