"""Read the targets with y and x of a published archive, for tasks with `cells`.

Reads : `labels.parquet` (which places there are, and their split); the archive.
Writes: `label_maps.zarr`: per target float32 (location, y, x), NaN where not published; `location_id`. Its pixels
        cover the patch edge to edge, north up. One block of `PER_CHUNK` places is in memory at a time.
"""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from workflow_scripts.core.objects import new_group, parent
from workflow_scripts.core.stage import progress, run_stage
from workflow_scripts.core.tables import read_table
from workflow_scripts.importing.base import open_folders
from workflow_scripts.importing.formats import FORMATS
from workflow_scripts.importing.layouts import LAYOUTS

logger = logging.getLogger(__name__)

PER_CHUNK = 16
"""Places per chunk: 4 MB of 256 × 256 pixels."""


def main(job: Any) -> None:
    """Import the targets with y and x of one dataset; see the module's docstring."""
    name = job.params.format
    labels: pd.DataFrame = read_table(job.input.labels, "labels", ["location_id", "split"])
    folders = open_folders(Path(job.params.path), Path(parent(job.output.store)).parent)
    n, n_missing = len(labels), 0
    with new_group(parent(job.output.store)) as root:
        ids = labels["location_id"].to_numpy(object)
        array = root.create_array(
            "location_id", shape=(n,), chunks=(n,), dtype=str, dimension_names=("location",)
        )
        array[:] = ids
        root.attrs["coordinates"] = "location_id"
        for target, entry in LAYOUTS[name]["label_maps"].items():
            side = entry["side_px"]
            root.create_array(
                target,
                shape=(n, side, side),
                chunks=(min(PER_CHUNK, n), side, side),
                dtype="float32",
                fill_value=np.nan,
                dimension_names=("location", "y", "x"),
                attributes={key: entry[key] for key in ("units", "long_name")},
            )
        starts = range(0, n, PER_CHUNK)
        for first in progress(starts, len(starts), what=f"blocks of {PER_CHUNK} places"):
            here = labels[first : first + PER_CHUNK]
            found = [
                FORMATS[name].read_maps(folders, row.location_id, row.split) for row in here.itertuples()
            ]
            n_missing += sum(not maps for maps in found)
            for target, entry in LAYOUTS[name]["label_maps"].items():
                nothing = np.full((entry["side_px"],) * 2, np.nan, np.float32)
                root[target][first : first + len(here)] = np.stack(
                    [maps.get(target, nothing) for maps in found]
                )
    logger.info("%s: %d places, %d without maps", name, n, n_missing)


if "snakemake" in globals():
    run_stage(main, snakemake)  # noqa: F821
