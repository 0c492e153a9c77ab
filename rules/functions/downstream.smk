"""Functions that rules/downstream.smk uses for inputs and params."""


def encoder_file(wildcards):
    """Input function: the weights of a trained model, or the user's file of a published one."""
    model = MODELS[wildcards.model]
    if is_trained(wildcards.model):
        return f"results/models/{wildcards.model}/encoder.safetensors"
    return model.get("path") or [] if model["encoder"] == "published" else []


def encoder_table(wildcards):
    """Input function: the table of an encoder that is one, by default the dataset's labels."""
    model = MODELS[wildcards.model]
    if model.get("encoder") != "table":
        return []
    return model.get("path") or f"results/datasets/{wildcards.dataset}/labels.parquet"


def encoder_parts(wildcards):
    """Input function: the embeddings that a joined model puts side by side."""
    return [
        f"results/embeddings/{part}/{wildcards.dataset}/embeddings.zarr/zarr.json"
        for part in MODELS[wildcards.model].get("parts", [])
    ]


def embedding_options(wildcards):
    """Params function: what determines an embedding; a trained encoder's file states the rest itself."""
    model = MODELS[wildcards.model]
    if is_trained(wildcards.model):
        return {key: model[key] for key in ("device", "extents_px") if key in model}
    return {key: value for key, value in model.items() if key not in ("family", "tasks")}


def evaluated_pairs(*patterns):
    """Scores of every model on every task it is evaluated on (`tasks` of the model, by default all)."""
    return [
        pattern.format(model=model, task=task)
        for pattern in patterns
        for model, options in MODELS.items()
        for task in TASKS
        if task in options.get("tasks", TASKS)
    ]


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
