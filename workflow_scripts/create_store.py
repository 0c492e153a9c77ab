"""Create the patch store's metadata and location coordinates, or let a store grow.

Reads : locations.parquet; seasons.parquet (which labels there are).
Writes: patches.zarr, without patches: `retrieve_patches` fills it shard by shard.

An existing store is never emptied. One with other seasons, size, codec or locations is refused;
one whose locations are the first of those asked for is lengthened.
"""

import logging
from collections.abc import Sequence
from types import SimpleNamespace

from workflow_scripts.core import store, tables
from workflow_scripts.core.objects import parent
from workflow_scripts.core.stage import run_stage

logger = logging.getLogger(__name__)


def season_labels(named: Sequence[str], present: Sequence[str]) -> list[str]:
    """Order the labels of the season table as config names them, others after them.

    Parameters
    ----------
    named : `seasons.names`
    present : labels of the table

    Raises
    ------
    ValueError
        If the table has no label.
    """
    labels = [name for name in named if name in set(present)]
    labels += sorted(set(present) - set(labels))
    if not labels:
        raise ValueError("seasons.parquet has no season: check seasons.strategy and seasons.names")
    return labels


def main(job: SimpleNamespace) -> None:
    """Create or lengthen the store of a dataset; see the module's docstring."""
    locations = tables.read_table(job.input.locations, "locations", ["location_id", "lon", "lat"])
    present = tables.read_table(job.input.seasons, "seasons", ["season"])["season"].unique()
    labels = season_labels(job.params.seasons, present)
    path = parent(job.output.metadata)
    store.create_store(
        path,
        locations=locations,
        seasons=labels,
        size_m=job.params.size_m,
        per_shard=job.params.per_shard,
        codec=job.params.codec,
        attributes={"dataset": job.wildcards.dataset},
    )
    logger.info("%s: %d locations, seasons %s, %d m", path, len(locations), labels, job.params.size_m)


if "snakemake" in globals():
    run_stage(main, snakemake)  # noqa: F821
