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
    return [label["path"] for label in labels.values()]


def other(file):
    """Input function: a file of the dataset that this one starts from."""
    return (
        lambda wildcards: f"results/datasets/{DATASETS[wildcards.dataset]['from']['dataset']}/{file}"
    )
