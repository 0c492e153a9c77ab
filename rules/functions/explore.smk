"""Functions that rules/explore.smk uses for inputs and params."""

EXPLORE_STATIC = [
    "index.html",
    "explore.js",
    "explore.css",
    "vendor.js",
    "vendor.css",
    "vendor.LICENSES.txt",
]
"""Files of the page itself, which are copied."""


def explored_files(wildcards):
    """Input function: kind -> file of what the page shows of the locations of a shard."""
    dataset, folder = wildcards.dataset, f"results/datasets/{wildcards.dataset}"
    files = {kind: f"{folder}/{kind}.parquet" for kind in ("locations", "seasons")}
    files |= {
        kind: path
        for kind, path in reported_files(dataset).items()
        if kind in ("cycles", "greenness")
    }
    if has_catalog(dataset):
        files["store"] = ancient(f"{folder}/patches.zarr/zarr.json")
        files |= {
            kind: f"{folder}/{kind}/{wildcards.shard}.parquet" for kind in ("scenes", "retrieved")
        }
    return files


def mapped_files(wildcards):
    """Input function: what the map shows of every dataset, named `<dataset>/<kind>`."""
    files = {}
    for dataset in DATASETS:
        kinds = ("locations", "seasons") + (("patches",) if has_catalog(dataset) else ())
        files |= {
            f"{dataset}/{kind}": f"results/datasets/{dataset}/{kind}.parquet" for kind in kinds
        }
        files |= {
            f"{dataset}/{kind}": path
            for kind, path in named_sources(dataset).items()
            if kind == "land"
        }
    return files


def explored_shards(wildcards):
    """Input function: details and quicklooks of all shards of all datasets."""
    return [
        f"results/explore/{dataset}/{shard}.{kind}"
        for dataset in DATASETS
        for shard in sorted(map(int, jobs(dataset)["shards"]))
        for kind in ("json", "jpg")
    ]
