"""Functions that rules/downstream.smk uses for inputs and params."""


def encoder_file(wildcards):
    """Input function: the weights of a trained model; the others have none."""
    if MODELS[wildcards.model].get("encoder", "trained") == "trained":
        return f"results/models/{wildcards.model}/encoder.safetensors"
    return []


def embedding_options(wildcards):
    """Params function: what determines an embedding; a trained encoder's file states it itself."""
    model = MODELS[wildcards.model]
    if model.get("encoder", "trained") == "trained":
        return {"device": model.get("device", "auto")}
    return {key: value for key, value in model.items() if key != "family"}


def embedding_gpus(wildcards):
    """Resource function: one GPU where the model asks for it; unset for the CPU."""
    return 1 if MODELS[wildcards.model].get("device") == "cuda" else None


def task_embeddings(wildcards):
    """Input function: the embeddings of a task's dataset."""
    dataset = TASKS[wildcards.task]["dataset"]
    return in_place(f"results/embeddings/{wildcards.model}/{dataset}/embeddings.zarr/zarr.json")


def task_labels(wildcards):
    """Input function: the labels of a task's dataset."""
    return f"results/datasets/{TASKS[wildcards.task]['dataset']}/labels.parquet"


def task_options(wildcards):
    """Params function: the entry of a task."""
    return TASKS[wildcards.task]
