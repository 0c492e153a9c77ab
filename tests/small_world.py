"""The made world at a small size: islands 2 km wide, three passes, one year of composites."""

import dataclasses
import tempfile
from functools import cache
from pathlib import Path
from types import SimpleNamespace

from workflow_scripts.build_demo_world import build
from workflow_scripts.demo.parameters import World

SMALL = dataclasses.replace(
    World(),
    radius_km=0.95,
    window_m=2400,
    modis_years=(2021, 2021),
    scene_years=(2021, 2022),
    max_scenes=4,
    aqua_items=1,
    n_truth_points=4,
)
FILES = {
    "land": "land.parquet",
    "ecoregions": "ecoregions.parquet",
    "mountains": "mountains.parquet",
    "climate": "climate.tif",
    "scenes": "items.parquet",
    "scenes_json": "items.json",
    "modis": "modis.parquet",
    "modis_json": "modis.json",
    "truth_phenology": "truth/phenology.parquet",
    "truth_ndvi": "truth/ndvi.parquet",
}


def build_in(folder: Path, world: World = SMALL, *, n_processes: int = 1) -> SimpleNamespace:
    """Build a world below `folder` and give the paths of its files."""
    output = SimpleNamespace(**{name: str(folder / file) for name, file in FILES.items()})
    build(world, output, n_processes=n_processes)
    return output


@cache
def _folder() -> tempfile.TemporaryDirectory:
    folder = tempfile.TemporaryDirectory(prefix="small_world_")
    build_in(Path(folder.name))
    return folder


def small_world() -> Path:
    """Give the folder of a small world, built once per test session. Not to be written into."""
    return Path(_folder().name)
