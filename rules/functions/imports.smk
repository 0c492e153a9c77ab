"""Functions that rules/imports.smk uses for inputs and params."""

IN_PLACE = (".zip", ".tar")
"""Archives that are read where they are."""
PACKED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
"""Archives that are unpacked first."""


def import_options(wildcards):
    """Params function: section `import` of the dataset."""
    return IMPORTS[wildcards.dataset]


def import_format_of(wildcards):
    """Params function: the format of the archive."""
    return IMPORTS[wildcards.dataset]["format"]


def import_path(wildcards):
    """Params function: where the archive lies."""
    return IMPORTS[wildcards.dataset]["path"]


def archives(endings):
    """Input function: the archives of some kinds in the folder of an imported dataset, or the one it names."""

    def files(wildcards):
        path = Path(IMPORTS[wildcards.dataset]["path"])
        found = sorted(path.iterdir()) if path.is_dir() else [path]
        return [str(file) for file in found if str(file).lower().endswith(endings)]

    return files


def unpacked_summary(wildcards):
    """Input function: what was unpacked, where anything is packed."""
    packed = archives(PACKED)(wildcards)
    return f"results/datasets/{wildcards.dataset}/unpacked.json" if packed else []
