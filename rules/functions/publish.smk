"""Functions that rules/publish.smk uses for inputs and params."""


def dataset_settings(wildcards):
    """Params function: all options of the dataset."""
    return DATASETS[wildcards.dataset]


def model_settings(wildcards):
    """Params function: all options of the model."""
    return MODELS[wildcards.model]


def trained_on(wildcards):
    """Params function: what is said about the dataset that the model was trained on."""
    return DATASETS[MODELS[wildcards.model]["dataset"]]["report"]


def model_scores(wildcards):
    """Input function: scores of the model in all tasks."""
    return [
        f"results/downstream/{wildcards.model}/{task}/{probe}.json"
        for task in TASKS
        for probe in ("linear", "knn")
    ]
