"""Lay out a dataset as a folder that can be put on a hub or in an archive as it is.

Reads the dataset's tables, card, STAC collection and store.
Writes `results/published/datasets/{dataset}/`: those files and the store (hard links where the file
system allows), STAC items of the stored patches as GeoParquet, a Croissant description, the licenses
and attributions of everything it was made from, and a citation file. A later run of the pipeline
replaces objects of the dataset and never changes them, so a published folder stays as it is.
"""

import logging
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

from workflow_scripts.core import tables
from workflow_scripts.core.stage import read_json, run_stage, write_json
from workflow_scripts.publish.croissant import describe
from workflow_scripts.publish.items import write_items
from workflow_scripts.publish.layout import place, place_store, write_citation, write_licenses

LOG = logging.getLogger(__name__)

KEYWORDS = ("Sentinel-2", "remote sensing", "phenology", "ecology", "self-supervised learning")
VERSION = "1.0.0"
"""Of the description; the digest in the citation tells which patches these are."""
STAC_ITEMS = {
    "href": "./items.parquet",
    "type": "application/vnd.apache.parquet",
    "title": "one STAC item per stored patch",
    "roles": ["stac-items"],
}
"""Asset of the collection."""
DESCRIBED = {f"{table}.parquet": table for table in ("locations", "seasons", "patches", "weights")}
"""File -> its table."""


def main(job: SimpleNamespace) -> None:
    """Lay out the folder of one dataset."""
    name, settings = job.wildcards.dataset, job.params.settings
    folder, source = Path(job.output.croissant).parent, Path(job.input.store).parent.parent
    title = settings["report"]["title"] or name
    patches = tables.read_table(job.input.patches, "patches")
    digest = tables.dataset_digest(patches)
    for file in ("locations", "seasons", "patches", "weights", "bands", "verification", "card"):
        path = Path(getattr(job.input, file))
        place(path, folder / path.name)
    write_licenses(Path(job.output.licenses), settings["report"]["sources"], what=title)
    citation = write_citation(Path(job.output.citation), title=title, kind="dataset", version=digest)
    collection = read_json(job.input.collection)
    collection["assets"]["items"] = STAC_ITEMS
    write_json(folder / "collection.json", collection)
    n_items = write_items(
        Path(job.output.stac_items),
        patches,
        collection=collection,
        size_m=settings["patches"]["size_m"],
    )
    n_files = place_store(source / "patches.zarr", folder / "patches.zarr")
    facts = {
        "description": collection["description"],
        "license": "LICENSES.md",
        "citation": citation,
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "version": VERSION,
        "keywords": KEYWORDS,
    }
    others = ["items.parquet", "bands.json", "patches.zarr/zarr.json"]
    write_json(
        job.output.croissant, describe(name, facts=facts, folder=folder, described=DESCRIBED, others=others)
    )
    LOG.info("%s: %d items, store of %d files", folder, n_items, n_files)


if "snakemake" in globals():
    run_stage(main, snakemake)  # noqa: F821
