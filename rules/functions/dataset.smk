"""Functions that rules/dataset.smk uses for inputs and params."""


def scene_tables(wildcards):
    """Input function: the ranked scenes of all shards."""
    return dataset_files(wildcards.dataset, "scenes/{shard}.parquet")


def greenness_years(wildcards):
    """Params function: years of vegetation index that are read from a catalog; none for own series."""
    options = DATASETS[wildcards.dataset]
    is_read = uses_phenology(wildcards.dataset) and options["greenness"]["source"] == "modis"
    return options["greenness"]["years"] if is_read else None
