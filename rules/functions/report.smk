"""Functions that rules/report.smk uses for inputs and params."""

DATASET_FILES = {
    "locations": "locations.parquet",
    "seasons": "seasons.parquet",
    "scenes": "scenes/{shard}.parquet",
    "patches": "patches.parquet",
    "store": "patches.zarr/zarr.json",
    "verification": "verification.json",
    "weights": "weights.json",
    "bands": "bands.json",
    "card": "README.md",
}
"""Kind -> file of every dataset with patches; below `results/datasets/{dataset}/`."""

BEFORE_PATCHES = ("locations", "seasons")
"""Kinds that a dataset without a scene catalog has, too."""


def greenness_owner(dataset):
    """The dataset whose greenness a dataset's cycles come from."""
    while adopts_phenology(dataset):
        dataset = DATASETS[dataset]["from"]["dataset"]
    return dataset


def reported_files(dataset):
    """Kind -> file or files of a dataset that the report shows."""
    kinds = DATASET_FILES if has_catalog(dataset) else {k: DATASET_FILES[k] for k in BEFORE_PATCHES}
    files = {kind: dataset_files(dataset, name) for kind, name in kinds.items()}
    files = {kind: names if "{shard}" in kinds[kind] else names[0] for kind, names in files.items()}
    if "store" in files:
        files["store"] = in_place(files["store"])
    sampled = DATASETS[dataset].get("from", {}).get("dataset", dataset)
    files["sampling"] = f"results/datasets/{sampled}/sampling.json"
    if uses_phenology(dataset):
        owner = greenness_owner(dataset)
        files["cycles"] = f"results/datasets/{dataset}/phenology_cycles.parquet"
        if not reads_product(owner):
            files["greenness"] = in_place(f"results/datasets/{owner}/greenness.zarr/zarr.json")
    return files


def named_sources(dataset):
    """Kind -> file that the options of a dataset name."""
    options = DATASETS[dataset]
    paths = {
        f"reference_{kind}": options["report"]["reference"][kind] for kind in ("phenology", "ndvi")
    }
    paths |= {kind: options["locations"][kind] for kind in ("land", "ecoregions")}
    paths |= options["report"]["compare"]
    paths = {kind: path for kind, path in paths.items() if isinstance(path, str)}
    wildcards = SimpleNamespace(dataset=dataset)
    areas = {key: path_option("locations", key)(wildcards) for key in ("region", "exclude")}
    return paths | {key: files for key, files in areas.items() if files}


def mapped_models(dataset):
    """Models whose embeddings of a dataset the report shows: those named, else of a dataset with tasks the first trained
    one that is evaluated there (the first, where none is trained)."""
    named = DATASETS[dataset]["report"]["embeddings"]["models"]
    if named is not None or not has_catalog(dataset):
        return named or []
    tasks = [task for task in TASKS if TASKS[task]["dataset"] == dataset and not has_cells(task)]
    models = [name for name in MODELS if set(tasks) & set(MODELS[name].get("tasks", TASKS))]
    return sorted(models, key=lambda name: not is_trained(name))[:1]


def embeddings_of_dataset(wildcards):
    """Input function: a model's embeddings of a dataset."""
    return in_place(
        f"results/embeddings/{wildcards.model}/{wildcards.dataset}/embeddings.zarr/zarr.json"
    )


def report_inputs(wildcards):
    """Input function: everything the report shows, named `<part>/<name>/<kind>`."""
    files = {}
    for dataset in DATASETS:
        kinds = reported_files(dataset) | named_sources(dataset)
        files |= {f"datasets/{dataset}/{kind}": names for kind, names in kinds.items()}
        for model in mapped_models(dataset):
            folder = f"results/embeddings/{model}/{dataset}"
            files[f"datasets/{dataset}/embeddings/{model}"] = f"{folder}/embeddings.parquet"
            files[f"datasets/{dataset}/neighbors/{model}"] = f"{folder}/neighbors.json"
    for model in filter(is_trained, MODELS):
        files[f"models/{model}/metrics"] = f"results/models/{model}/metrics.jsonl"
        files[f"models/{model}/encoder"] = f"results/models/{model}/encoder.safetensors"
    for probe in ("linear", "knn"):
        for path in evaluated_pairs(f"results/downstream/{{model}}/{{task}}/{probe}.json"):
            files[f"scores/{path.removeprefix('results/downstream/').removesuffix('.json')}"] = path
    return files
