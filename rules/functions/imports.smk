"""Functions that rules/imports.smk uses for inputs and params."""

PACKED = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")


def import_options(wildcards):
    """Params function: section `import` of the dataset."""
    return IMPORTS[wildcards.dataset]


def import_format_of(wildcards):
    """Params function: the format of the archive."""
    return IMPORTS[wildcards.dataset]["format"]


def import_path(wildcards):
    """Params function: where the archive lies."""
    return IMPORTS[wildcards.dataset]["path"]


def packed_files(wildcards):
    """Input function: the archives in the folder of an imported dataset, or the one it names."""
    path = Path(IMPORTS[wildcards.dataset]["path"])
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    return [str(file) for file in files if str(file).lower().endswith(PACKED)]


def unpacked_summary(wildcards):
    """Input function: what was unpacked, where anything is packed."""
    packed = packed_files(wildcards)
    return f"results/datasets/{wildcards.dataset}/unpacked.json" if packed else []
