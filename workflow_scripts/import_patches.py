"""Read the images of one shard of a published archive and write them into the store.

Reads : samples.parquet; the images it names; patches.zarr (metadata).
Writes: the shard's objects in patches.zarr; retrieved/{shard}.parquet, one row per place and season.

Pixels are stored as published, at the resolution they were published at: see `importing/formats.py` for
each format's scaling. A missing or damaged file ends the job; a month that was not published is a
missing patch with the reason `not_published`.
"""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from workflow_scripts.core import store, tables
from workflow_scripts.core.patches import PARTS
from workflow_scripts.core.stage import run_stage
from workflow_scripts.importing.base import Image, open_folders, resolve
from workflow_scripts.importing.formats import FORMATS

logger = logging.getLogger(__name__)

VERSION = 1
"""Raised by hand when the meaning of what is stored changes: every image is then read again."""

_TEXTS = (
    "item_id",
    "mgrs_tile",
    "baseline",
    "offset_source",
    "failover_from",
    "checksum",
    "reason",
    "screened",
)
_NUMBERS = ("scene_cloud_cover", "cloud_fraction", "valid_fraction", "sun_zenith", "origin_x", "origin_y")


def place_image(
    image: Image, arrays: Mapping[str, np.ndarray], here: tuple[int, int], moment: pd.Timestamp
) -> dict[str, Any]:
    """Put an image and its facts into the arrays of a shard.

    Parameters
    ----------
    image : what was read
    arrays : of `store.empty_shard`
    here : place within the shard, and season
    moment : when it was taken; NaT where that is not published

    Returns
    -------
    its columns of table `retrieved`
    """
    for name, values in image.arrays.items():
        arrays[name][here] = values
    facts = {
        "epsg": image.epsg,
        "origin_x": image.origin_x,
        "origin_y": image.origin_y,
        "valid_fraction": float((image.arrays["dn10"] > 0).all(axis=0).mean()),
        "dn_offset": 0,
    }
    for name, value in facts.items():
        arrays[name][here] = value
    if "dn60" in arrays:
        arrays["origin60_x"][here], arrays["origin60_y"][here] = image.origin_x, image.origin_y
    arrays["datetime"][here] = store.MISSING_TIME if pd.isna(moment) else int(moment.timestamp())
    pixels = [arrays[part][here] for part in PARTS if part in arrays]
    return {"status": "ok", "datetime": moment, "rank": 0, "checksum": store.patch_checksum(*pixels), **facts}


def main(job: Any) -> None:
    """Import the images of one shard; see the module's docstring."""
    shard, path = int(job.wildcards.shard), Path(job.input.store).parent
    first, last = store.shard_range(path, shard)
    seasons, name = store.layout(path)["seasons"], job.params.format
    samples = tables.read_table(job.input.samples, "samples")
    ids = store.open_store(path)["location_id"].values[first:last]
    here = samples[(samples["location"] >= first) & (samples["location"] < last)]
    by_place = {(row.location - first, row.season): row for row in here.itertuples()}
    folders = open_folders(Path(job.params.path), path.parent)
    arrays, rows = store.empty_shard(path, shard), []
    for i in range(last - first):
        for column, season in enumerate(seasons):
            row = {"location_id": str(ids[i]), "location": first + i, "season": season}
            row |= dict.fromkeys(_TEXTS, "") | dict.fromkeys(_NUMBERS, np.nan)
            row |= {"collection": name, "catalog": "import", "datetime": pd.NaT, "target_date": pd.NaT}
            row |= {"days_from_target": 0, "rank": -1, "epsg": 0, "dn_offset": -1}
            sample = by_place.get((i, season))
            if sample is None:
                rows.append(row | {"status": "missing", "reason": "not_published"})
                continue
            image = FORMATS[name].read(resolve(folders, sample.path))
            found = place_image(image, arrays, (i, column), sample.datetime)
            rows.append(row | found | {"item_id": Path(sample.path).stem})
    arrays["span_days"][:] = store.span_days(arrays["datetime"])
    arrays["aligned"][:] = store.aligned(arrays["epsg"], arrays["origin_x"], arrays["origin_y"])
    store.write_shard(path, shard, arrays)
    table = pd.DataFrame(rows)
    tables.write_table(table, job.output.retrieved, "retrieved")
    logger.info("shard %d: %d of %d images", shard, (table["status"] == "ok").sum(), len(table))


if "snakemake" in globals():
    run_stage(main, snakemake)  # noqa: F821
