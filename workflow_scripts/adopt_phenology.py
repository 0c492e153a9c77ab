"""Take over the vegetation cycles of another dataset.

Reads `phenology_cycles.parquet` of the dataset that `from` names.
Writes the same file for this one, so that its folder is complete.
"""

import logging
from typing import Any

from workflow_scripts.core.stage import run_stage
from workflow_scripts.core.tables import read_table, write_table

logger = logging.getLogger(__name__)


def main(job: Any) -> None:
    """Copy the table of cycles."""
    cycles = read_table(job.input.cycles, "cycles")
    write_table(cycles, job.output.cycles, "cycles")
    logger.info("took over %d cycles from %s", len(cycles), job.input.cycles)


if "snakemake" in globals():
    run_stage(main, snakemake)  # noqa: F821
