"""Functions that rules/dataset.smk uses for inputs and params."""


def scene_tables(wildcards):
    """Input function: the ranked scenes of all shards."""
    return dataset_files(wildcards.dataset, "scenes/{shard}.parquet")


def composites_read(wildcards):
    """Params function: years and platforms of the vegetation index read from a catalog; none for own series."""
    options = DATASETS[wildcards.dataset]["greenness"]
    is_read = uses_phenology(wildcards.dataset) and not adopts_phenology(wildcards.dataset)
    if not is_read or options["source"] != "modis":
        return None
    return {key: options[key] for key in ("years", "platforms")}


def search_page(wildcards):
    """Params function: items per page of the scene catalog's API; none for a catalog in files."""
    catalog = CATALOGS.get(DATASETS[wildcards.dataset]["scenes"]["catalog"], {})
    return catalog.get("page_size", 100) if catalog.get("type") == "api" else None
