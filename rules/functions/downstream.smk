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
        and not (options.get("encoder") in WITHOUT_MAPS and has_cells(task))
    ]


WITHOUT_MAPS = ("mean_spectrum", "band_quantiles", "coordinates", "table", "joined")
"""Encoders that are not evaluated on tasks with `cells`."""


def has_cells(task):
    """Whether a task's targets have y and x."""
    return TASKS[task].get("cells") is not None


def embedding_gpus(wildcards):
    """Resource function: one GPU where the model asks for it; unset for the CPU."""
    return 1 if MODELS[wildcards.model].get("device") == "cuda" else None


def task_embeddings(wildcards):
    """Input function: the embeddings of a task's dataset, or its feature maps."""
    dataset = TASKS[wildcards.task]["dataset"]
    name = "maps" if has_cells(wildcards.task) else "embeddings"
    return in_place(f"results/embeddings/{wildcards.model}/{dataset}/{name}.zarr/zarr.json")


def task_labels(wildcards):
    """Input function: the labels of a task's dataset."""
    return f"results/datasets/{TASKS[wildcards.task]['dataset']}/labels.parquet"


def task_label_maps(wildcards):
    """Input function: for a task with cells, the store with each of its targets."""
    task = TASKS[wildcards.task]
    if not has_cells(wildcards.task):
        return []
    targets = [task["target"]] if isinstance(task["target"], str) else task["target"]
    if task["dataset"] in IMPORTS:
        return [f"results/datasets/{task['dataset']}/label_maps.zarr/zarr.json" for _ in targets]
    return [DATASETS[task["dataset"]]["labels"][target]["path"] for target in targets]


def task_options(wildcards):
    """Params function: the entry of a task."""
    return TASKS[wildcards.task]
