"""Take over the locations of another dataset.

Reads `locations.parquet` and `jobs.json` of the dataset that `from` names.
Writes the same files for this one, so that its folder is complete.
"""

import logging
from typing import Any

from workflow_scripts.core.stage import read_json, run_stage, write_json
from workflow_scripts.core.tables import read_table, write_table

logger = logging.getLogger(__name__)


def main(job: Any) -> None:
    """Copy locations and job list."""
    locations = read_table(job.input.locations, "locations")
    write_table(locations, job.output.locations, "locations")
    write_json(job.output.jobs, read_json(job.input.jobs))
    logger.info("took over %d locations from %s", len(locations), job.input.locations)


if "snakemake" in globals():
    run_stage(main, snakemake)  # noqa: F821
