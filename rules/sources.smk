"""Files under resources/ that are downloaded: one rule per entry of `sources` in the config."""

for source_path, source in SETTINGS.sources.items():

    rule:
        name:
            source_rule(source_path)
        output:
            file=source_path,
        log:
            f"results/logs/sources/{source_path}.log",
        benchmark:
            f"results/logs/sources/{source_path}.benchmark.tsv"
        threads: 1
        resources:
            mem_mb=memory(500),
            runtime=minutes(240),
        params:
            url=source["url"],
            sha256=source.get("sha256"),
            code=code("workflow_scripts.download_source"),
        conda:
            "../envs/geo.yaml"
        script:
            "../workflow_scripts/download_source.py"
