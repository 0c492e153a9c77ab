"""Functions that rules/seasons.smk uses for inputs and params."""


def greenness_option(key, dataset):
    """An option of section `greenness` that must not be null for the chosen source."""
    settings = DATASETS[dataset]["greenness"]
    if settings.get(key) is None:
        raise ValueError(
            f"datasets.{dataset}.greenness: source {settings['source']!r} needs `{key}`, which is null. "
            f"Set datasets.{dataset}.greenness.{key}, or another seasons.strategy than 'phenology'."
        )
    return settings[key]


def greenness_catalog(wildcards):
    """Local files of the vegetation-index catalog; none where it is on the network."""
    paths = CATALOGS[greenness_option("catalog", wildcards.dataset)].get("path") or []
    return [p for p in ([paths] if isinstance(paths, str) else paths) if "://" not in p]


def greenness_tiles(wildcards):
    """Series of all tiles; none where the user brings the series."""
    if DATASETS[wildcards.dataset]["greenness"]["source"] == "file":
        return []
    greenness_option("catalog", wildcards.dataset)
    return expand(
        "results/datasets/{dataset}/greenness/{tile}.parquet",
        dataset=wildcards.dataset,
        tile=modis_tiles(wildcards),
    )


def greenness_series(wildcards):
    """The user's own series; none where they are read from a catalog."""
    if DATASETS[wildcards.dataset]["greenness"]["source"] == "file":
        return [greenness_option("path", wildcards.dataset)]
    return []


def reads_product(dataset):
    """Whether the cycles are MCD12Q2's own, read and not estimated."""
    return DATASETS[dataset]["greenness"]["source"] == "mcd12q2"


def product_files(wildcards):
    """Files of MCD12Q2: a folder's, those of a pattern, or the one named."""
    path = Path(greenness_option("path", wildcards.dataset))
    pattern = "**/*" if path.is_dir() else path.name
    folder = path if path.is_dir() else path.parent
    suffixes = (".hdf", ".tif", ".tiff")
    found = sorted(str(p) for p in folder.glob(pattern) if p.suffix.lower() in suffixes)
    if not found:
        raise ValueError(
            f"datasets.{wildcards.dataset}.greenness.path: no file {', '.join(suffixes)} is {path}"
            " or in it"
        )
    return found


def season_cycles(wildcards):
    """Vegetation cycles, where the strategy needs them."""
    if uses_phenology(wildcards.dataset):
        return [f"results/datasets/{wildcards.dataset}/phenology_cycles.parquet"]
    return []


def season_dates(wildcards):
    """Table of strategy `dates`: the named one, else that of the user's locations."""
    options = DATASETS[wildcards.dataset]
    if options["seasons"]["strategy"] != "dates":
        return []
    path = options["seasons"].get("path") or options["locations"].get("path")
    if path is None:
        raise ValueError(
            f"datasets.{wildcards.dataset}.seasons: strategy 'dates' needs `path`, a table with "
            "location_id and a date column"
        )
    return [path]


def series_store(wildcards):
    """Input function: the series of all locations, read where they lie."""
    return in_place(f"results/datasets/{wildcards.dataset}/greenness.zarr/zarr.json")
