"""Functions that rules/patches.smk uses for inputs and params."""


def scene_catalog(wildcards):
    """Params function: the entry of the dataset's scene catalog."""
    name = DATASETS[wildcards.dataset]["scenes"]["catalog"]
    if name is None:
        raise ValueError(
            f"dataset {wildcards.dataset!r}: scenes.catalog is null. Name an entry of `catalogs`: {sorted(CATALOGS)}"
        )
    return CATALOGS[name]


def catalog_option(key):
    """Params function: one option of the dataset's scene catalog, null where it is not given."""
    return lambda wildcards: scene_catalog(wildcards).get(key)


def scene_catalog_files(wildcards):
    """Input function: the catalog's local files; none for one on the network or a folder."""
    paths = scene_catalog(wildcards).get("path", [])
    paths = [paths] if isinstance(paths, str) else paths
    return [path for path in paths if not re.search(r"://|[*?]", path) and Path(path).suffix]


def items_of_shard(wildcards):
    """Input function: the answers for the tiles that a shard touches."""
    folder = f"results/datasets/{wildcards.dataset}/items"
    return [f"{folder}/{tile}.parquet" for tile in shard_tiles(wildcards)]


def files_of_shards(pattern):
    """Input function: a file of each shard."""
    return lambda wildcards: dataset_files(wildcards.dataset, pattern)


def store_objects(wildcards):
    """Input function: every object of the store, so that a lost one is noticed."""
    return dataset_files(wildcards.dataset, *STORE_OBJECTS)
