"""Ask a scene catalog once for all scenes of one MGRS tile.

Reads : the catalog (files or a STAC API).
Writes: items/{tile}.parquet, table `items`: one row per scene with its time, quality, footprint,
        radiometric offset, and where its files are. A tile without scenes gives an empty table.

Answers are kept per tile, so that another choice of scenes asks nothing again. Filters are left to
`select_scenes`, which counts what it rejects.
"""

import logging
from types import SimpleNamespace

from workflow_scripts.core import stac, tables
from workflow_scripts.core.stage import run_stage

logger = logging.getLogger(__name__)


def main(job: SimpleNamespace) -> None:
    """Search one tile; see the module's docstring."""
    catalog = {**job.params.catalog, "name": job.params.catalog_name}
    items = stac.search_items(
        catalog, tile=job.wildcards.tile, years=tuple(job.params.years), kind="sentinel-2"
    )
    if items.empty:
        logger.info(
            "catalog %r has no scene on tile %s in %s to %s",
            job.params.catalog_name,
            job.wildcards.tile,
            *job.params.years,
        )
    for source, group in items.groupby("offset_source"):
        logger.info("offset %s decided by %s: %d scenes", group["dn_offset"].iloc[0], source, len(group))
    tables.write_table(items, job.output.found, "items")


if "snakemake" in globals():
    run_stage(main, snakemake)  # noqa: F821
