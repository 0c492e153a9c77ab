"""List the places, images and labels of a published archive, and create the store for them.

Reads : the folder that `import.path` names, zip and plain tar files in it, and `unpacked/` (of compressed tar files).
Writes: `locations.parquet` (in the order of their ids), `jobs.json`, `samples.parquet` (where each image
        is), `labels.parquet` (the targets, and the published `split`), `patches.zarr` without patches.

The formats are in `importing/`, a module each.
"""

import logging
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd

from workflow_scripts.core import store
from workflow_scripts.core.stage import run_stage, write_json
from workflow_scripts.core.tables import COLUMNS, write_table
from workflow_scripts.importing.base import Scan, open_folders, refuse_duplicates
from workflow_scripts.importing.formats import FORMATS
from workflow_scripts.importing.layouts import LAYOUTS

logger = logging.getLogger(__name__)


def list_locations(places: pd.DataFrame, *, per_shard: int) -> gpd.GeoDataFrame:
    """Make the table of locations: sorted by id, without what only sampling knows."""
    refuse_duplicates(places["location_id"], "import")
    frame = places.sort_values("location_id", kind="stable", ignore_index=True)
    frame["shard"] = np.arange(len(frame)) // per_shard
    unknown = {"eco_id": -1, "biome_num": -1, "is_mountain": False}
    unknown |= {"inclusion_probability": np.nan, "distance_to_evaluation_km": np.nan}
    for name in COLUMNS["locations"]:
        if name not in frame.columns and name != "geometry":
            frame[name] = unknown.get(name, "")
    geometry = gpd.points_from_xy(frame["lon"], frame["lat"])
    return gpd.GeoDataFrame(frame, geometry=geometry, crs=4326)


def list_samples(scan: Scan, locations: pd.DataFrame, seasons: list[str]) -> pd.DataFrame:
    """Give each image its location's number; refuse two images of one place and season."""
    samples = scan.samples.copy()
    samples["location"] = pd.Index(locations["location_id"]).get_indexer(samples["location_id"])
    refuse_duplicates(samples["location_id"] + ", " + samples["season"], "import, place and season")
    samples["season"] = pd.Categorical(samples["season"], seasons)
    return samples.sort_values(["location", "season"], ignore_index=True).astype({"season": str})


def main(job: Any) -> None:
    """Scan one dataset's archive; see the module's docstring."""
    options, output = job.params.options, job.output
    name, layout = options["format"], LAYOUTS[options["format"]]
    folders = open_folders(Path(options["path"]), Path(str(output.locations)).parent)
    scan = FORMATS[name].scan(folders, options)
    if scan.places.empty:
        raise ValueError(f"import: no sample of format {name!r} in {', '.join(map(str, folders))}")
    per_shard = options.get("per_shard") or layout["per_shard"]
    seasons = [s for s in layout["seasons"] if s in (options.get("seasons") or layout["seasons"])]
    locations = list_locations(scan.places, per_shard=per_shard)
    n = len(locations)
    shards = {
        str(i): {"first": first, "last": min(first + per_shard, n), "mgrs_tiles": []}
        for i, first in enumerate(range(0, n, per_shard))
    }
    store.create_store(
        Path(str(output.metadata)).parent,
        locations=locations,
        seasons=seasons,
        size_m=layout["size_m"],
        per_shard=per_shard,
        codec=job.params.codec,
        arrays=layout["arrays"],
        attributes={"dataset": job.wildcards.dataset, "source": name, "scaling": FORMATS[name].scaling},
    )
    write_table(list_samples(scan, locations, seasons), output.samples, "samples")
    labels = scan.labels.set_index("location_id").reindex(locations["location_id"]).reset_index()
    write_table(labels, output.labels, "labels")
    write_table(locations, output.locations, "locations")
    write_json(output.jobs, {"n_locations": n, "per_shard": per_shard, "shards": shards, "modis_tiles": []})
    parts = labels["split"].value_counts().to_dict()
    logger.info("%s: %d places, %d images; split %s", name, n, len(scan.samples), parts)


if "snakemake" in globals():
    run_stage(main, snakemake)  # noqa: F821
