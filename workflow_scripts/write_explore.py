"""Write the explore page: a map of all locations of all datasets, and the columns it is colored by.

Reads locations, seasons and, where there are any, patches of every dataset, named `<dataset>/<kind>`,
and the land polygons they were sampled from.
Writes `results/explore/`: the page itself, `datasets.json` (what there is), `land.json`, and for each
dataset `places.bin`, `seasons.bin` (columns of numbers, described in `datasets.json`) and `ids.txt`.
What is shown of a single location stands in the files of `explore_shard`.
"""

import json
import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from workflow_scripts.core import tables
from workflow_scripts.core.stage import atomic_path, run_stage
from workflow_scripts.explore import columns
from workflow_scripts.explore.land import land_rings
from workflow_scripts.explore.quicklooks import COLUMNS, QUICKLOOK_PX

LOG = logging.getLogger(__name__)

STATIC = Path(__file__).parent / "explore" / "static"
PATCH_COLUMNS = ["location_id", "season", "status", "reason", "datetime", "cloud_fraction"]


def write_dataset(
    folder: Path, name: str, *, settings: Mapping[str, Any], files: Mapping[str, str]
) -> dict[str, Any]:
    """Write the columns of a dataset and say what they are.

    Parameters
    ----------
    folder : of the dataset on the page
    name : of the dataset
    settings : its resolved options
    files : kind -> path: locations, seasons and, where patches were asked for, patches
    """
    locations = tables.read_table(
        files["locations"], "locations", ["location_id", "lon", "lat", "biome_name"]
    )
    seasons = tables.read_table(files["seasons"], "seasons", ["location_id", "season", "source"])
    patches = tables.read_table(files["patches"], "patches", PATCH_COLUMNS) if "patches" in files else None
    described = {}
    for part, listed in (
        ("places", columns.place_columns(locations)),
        ("seasons", columns.season_columns(locations, seasons, patches)),
    ):
        content, described[part] = columns.packed(listed)
        with atomic_path(folder / f"{part}.bin") as temporary:
            temporary.write_bytes(content)
    with atomic_path(folder / "ids.txt") as temporary:
        temporary.write_text("\n".join(locations["location_id"]) + "\n")
    LOG.info("dataset %s: %d locations", name, len(locations))
    return {
        "name": name,
        "title": settings["report"]["title"] or name,
        "notice": settings["report"]["notice"],
        "n": len(locations),
        "per_shard": settings["locations"]["per_shard"],
        "seasons": list(dict.fromkeys(seasons["season"])),
        "columns": described,
    }


def main(job: SimpleNamespace) -> None:
    """Write the page and the columns of every dataset."""
    folder = Path(job.output.page).parent
    files: dict[str, dict[str, str]] = {}
    for key, path in job.input.items():
        dataset, kind = key.split("/")
        files.setdefault(dataset, {})[kind] = path
    listed = [
        write_dataset(folder / name, name, settings=settings, files=files[name])
        for name, settings in job.params.datasets.items()
    ]
    land = land_rings(part["land"] for part in files.values() if "land" in part)
    contents = {
        "datasets.json": {"datasets": listed, "quicklook_px": QUICKLOOK_PX, "quicklook_columns": COLUMNS},
        "land.json": land,
    }
    for name, content in contents.items():
        with atomic_path(folder / name) as temporary:
            temporary.write_text(json.dumps(content, separators=(",", ":"), allow_nan=False))
    for name in job.params.static:
        with atomic_path(folder / name) as temporary:
            shutil.copyfile(STATIC / name, temporary)
    LOG.info("%s: %d datasets, %d outlines of land", folder, len(listed), len(land))


if "snakemake" in globals():
    run_stage(main, snakemake)  # noqa: F821
