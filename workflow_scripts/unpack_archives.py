"""Unpack the archives of an imported dataset that cannot be read where they are.

Reads : the compressed tar files in the folder that `import.path` names, or that file.
Writes: their files below `unpacked/`, member by member; `unpacked.json`, how many each gave. A broken
        run goes on where it stopped. See `importing/archives.py` for what is refused.
"""

from pathlib import Path
from typing import Any

from workflow_scripts.core.stage import run_stage, write_json
from workflow_scripts.importing.archives import unpack


def main(job: Any) -> None:
    """Unpack the archives of one dataset."""
    folder = Path(str(job.output.summary)).parent / "unpacked"
    folder.mkdir(parents=True, exist_ok=True)
    archives = [Path(str(path)) for path in job.input.archives]
    write_json(job.output.summary, {path.name: unpack(path, folder) for path in archives})


if "snakemake" in globals():
    run_stage(main, snakemake)  # noqa: F821
