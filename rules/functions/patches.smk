"""Functions that rules/patches.smk uses for inputs and params."""


def scene_catalog(wildcards):
    """Params function: the entry of the dataset's scene catalog."""
    name = DATASETS[wildcards.dataset]["scenes"]["catalog"]
    if name is None:
        raise ValueError(
            f"dataset {wildcards.dataset!r}: scenes.catalog is null. Name an entry of `catalogs`: {sorted(CATALOGS)}"
        )
    return CATALOGS[name]


def scene_access(wildcards):
    """Params function: how the files of the dataset's scene catalog are reached and understood."""
    name = DATASETS[wildcards.dataset]["scenes"]["catalog"]
    entry = scene_catalog(wildcards)
    return {name: {key: entry.get(key) for key in ("conventions", "sign", "s3")}}


def is_in_many_files(wildcards):
    """Whether the scene catalog is gathered once, each file read once, instead of asked per tile."""
    entry = scene_catalog(wildcards)
    path = entry.get("path")
    is_one = (
        isinstance(path, str)
        and "://" not in path
        and Path(path).suffix
        and not re.search(r"[*?]", path)
    )
    return entry["type"] == "geoparquet" and entry["conventions"] != "plain" and not is_one


def scene_catalog_files(wildcards):
    """Input function: the catalog's local files; none for one on the network or a folder."""
    paths = scene_catalog(wildcards).get("path", [])
    paths = [paths] if isinstance(paths, str) else paths
    return [path for path in paths if not re.search(r"://|[*?]", path) and Path(path).suffix]


def items_of_shard(wildcards):
    """Input function: the scenes of all tiles, or the answers for the tiles that a shard touches."""
    folder = f"results/datasets/{wildcards.dataset}"
    if is_in_many_files(wildcards):
        return [f"{folder}/items.parquet"]
    return [f"{folder}/items/{tile}.parquet" for tile in shard_tiles(wildcards)]


def files_of_shards(pattern):
    """Input function: a file of each shard."""
    return lambda wildcards: dataset_files(wildcards.dataset, pattern)


def store_objects(wildcards):
    """Input function: every object of the store, so that a lost one is noticed."""
    return in_place(object_files(wildcards.dataset))


def patch_size(wildcards):
    """Params function: side of a patch, meters."""
    if wildcards.dataset in IMPORTS:
        return LAYOUTS[IMPORTS[wildcards.dataset]["format"]]["size_m"]
    return DATASETS[wildcards.dataset]["patches"]["size_m"]


def scene_options(wildcards):
    """Params function: section `scenes`, of an imported archive what takes its place in messages."""
    if wildcards.dataset in IMPORTS:
        return {"catalog": IMPORTS[wildcards.dataset]["path"], "years": [0, 0]}
    return DATASETS[wildcards.dataset]["scenes"]
