"""Ask a scene catalog once for all scenes of one MGRS tile, and the one that stands in for it.

Reads : the catalogs (files or a STAC API).
Writes: items/{tile}.parquet, table `items`: one row per scene with its time, quality, footprint,
        radiometric offset, and where its files are. A tile without scenes gives an empty table.

Answers are kept per tile, so that another choice of scenes asks nothing again. Filters are left to
`select_scenes`, which counts what it rejects.
"""

import logging
from types import SimpleNamespace

import pandas as pd

from workflow_scripts.core import stac, tables
from workflow_scripts.core.items import sentinel2_frame
from workflow_scripts.core.stage import run_stage

logger = logging.getLogger(__name__)


def main(job: SimpleNamespace) -> None:
    """Search one tile; see the module's docstring."""
    tile, years = job.wildcards.tile, tuple(job.params.years)
    parts = {
        name: stac.search_items({**entry, "name": name}, tile=tile, years=years, kind="sentinel-2")
        for name, entry in job.params.catalogs.items()
    }
    for name, found in parts.items():
        if found.empty:
            logger.info("catalog %r has no scene on tile %s in %s to %s", name, tile, *years)
    items = pd.concat(
        [found for found in parts.values() if len(found)] or [sentinel2_frame([])], ignore_index=True
    )
    for source, group in items.groupby("offset_source"):
        logger.info("offset %s decided by %s: %d scenes", group["dn_offset"].iloc[0], source, len(group))
    tables.write_table(items, job.output.found, "items")


if "snakemake" in globals():
    run_stage(main, snakemake)  # noqa: F821
