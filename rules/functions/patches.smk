"""Functions that rules/patches.smk uses for inputs and params."""


def scene_catalogs(wildcards, keep=lambda entry: True):
    """Params function: the dataset's scene catalog and the one that stands in for it, name → entry."""
    scenes = DATASETS[wildcards.dataset]["scenes"]
    if scenes["catalog"] is None:
        raise ValueError(
            f"dataset {wildcards.dataset!r}: scenes.catalog is null. Name an entry of `catalogs`: {sorted(CATALOGS)}"
        )
    names = [name for name in (scenes["catalog"], scenes["failover"]) if name is not None]
    # without the terms of use: a word changed there must not ask every tile again
    return {
        name: {key: value for key, value in CATALOGS[name].items() if key != "terms"}
        for name in names
        if keep(CATALOGS[name])
    }


def scene_access(wildcards):
    """Params function: how the files of the dataset's scene catalogs are reached and understood."""
    return {
        name: {key: entry.get(key) for key in ("conventions", "sign", "s3")}
        for name, entry in scene_catalogs(wildcards).items()
    }


def is_in_many_files(entry):
    """Whether a catalog is gathered once, each file read once, instead of asked per tile."""
    path = entry.get("path")
    is_one = (
        isinstance(path, str)
        and "://" not in path
        and Path(path).suffix
        and not re.search(r"[*?]", path)
    )
    return entry["type"] == "geoparquet" and entry["conventions"] != "plain" and not is_one


def catalogs_gathered(wildcards):
    """Params function: the scene catalogs in many files."""
    return scene_catalogs(wildcards, keep=is_in_many_files)


def catalogs_searched(wildcards):
    """Params function: the scene catalogs that are asked per tile."""
    return scene_catalogs(wildcards, keep=lambda entry: not is_in_many_files(entry))


def searches(wildcards):
    """Resources function: searches of a service that a job makes at a time; profiles bound their number."""
    return sum(entry["type"] == "api" for entry in catalogs_searched(wildcards).values())


def files_of(catalogs):
    """Input function: local files of some catalogs; none for those on the network and folders."""

    def files(wildcards):
        paths = [entry.get("path", []) for entry in catalogs(wildcards).values()]
        paths = [path for some in paths for path in ([some] if isinstance(some, str) else some)]
        return [path for path in paths if not re.search(r"://|[*?]", path) and Path(path).suffix]

    return files


def items_of_shard(wildcards):
    """Input function: the gathered scenes of all tiles, and the answers for the tiles of a shard."""
    folder = f"results/datasets/{wildcards.dataset}"
    gathered = [f"{folder}/items.parquet"] if catalogs_gathered(wildcards) else []
    if not catalogs_searched(wildcards):
        return gathered
    return gathered + [f"{folder}/items/{tile}.parquet" for tile in shard_tiles(wildcards)]


def files_of_shards(pattern):
    """Input function: a file of each shard."""
    return lambda wildcards: dataset_files(wildcards.dataset, pattern)


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
