"""Functions that rules/locations.smk uses for inputs and params."""


def evaluation_points(wildcards):
    """Input function: point files of locations.evaluation."""
    evaluation = DATASETS[wildcards.dataset]["locations"]["evaluation"]
    return evaluation["points"] if evaluation else []


def label_sources(wildcards):
    """Input function: one file per target of the dataset's labels."""
    labels = DATASETS[wildcards.dataset].get("labels")
    if not labels:
        raise ValueError(
            f"datasets.{wildcards.dataset} has no `labels`: name a source for each target there"
        )
    if labels.get("source") == "reference_index":
        return []
    paths = [
        label["path"] for label in labels.values() if label["source"] not in ("points", "maps")
    ]
    return [path for path in paths if "://" not in path]


def point_options(dataset):
    """How the places of a dataset are drawn from its labels' source; None where they are not."""
    labels = DATASETS[dataset].get("labels") or {}
    if labels.get("source") == "reference_index":
        return {"rule": "index", "path": labels["path"]}
    return DATASETS[dataset].get("points")


def draws_points(dataset):
    return point_options(dataset) is not None


def point_source(wildcards):
    """Input function: the file that points are drawn from."""
    return point_options(wildcards.dataset)["path"]


def drawn_points(wildcards):
    """Input function: the drawn points, where the dataset has them or starts from one that has."""
    start = DATASETS[wildcards.dataset].get("from", {}).get("dataset", wildcards.dataset)
    return f"results/datasets/{start}/points.parquet" if draws_points(start) else []


def own_points(wildcards):
    """Input function: the points of design `file`: drawn, or the user's."""
    if draws_points(wildcards.dataset):
        return [f"results/datasets/{wildcards.dataset}/points.parquet"]
    return path_option("locations", "path")(wildcards)


def other(file):
    """Input function: a file of the dataset that this one starts from."""
    return (
        lambda wildcards: f"results/datasets/{DATASETS[wildcards.dataset]['from']['dataset']}/{file}"
    )
