"""A small land with four ecoregions, and the sampling stage run on it."""

import json
from functools import cache
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace

import geopandas as gpd
import shapely
import yaml
from jsonschema import Draft202012Validator

from workflow_scripts.core.tables import read_table
from workflow_scripts.sample_locations import main

SCHEMAS = Path(__file__).parents[1] / "schemas"
SCHEMA = yaml.safe_load((SCHEMAS / "locations.schema.yaml").read_text())
VALIDATOR = Draft202012Validator(SCHEMA)
DEFAULTS = {name: entry["default"] for name, entry in SCHEMA["properties"].items() if "default" in entry} | {
    "splits": {"validation_fraction": 0.3, "block_km": 100}
}
FILES = ("land", "ecoregions", "mountains", "region", "path", "spread", "strata_path", "strata_areas")
OUTPUTS = {"locations": "parquet", "jobs": "json", "sampling": "json"}


def make_world(folder):
    """Land of 6 by 4 degrees with four ecoregions of unequal size and a gap, mountains in the north."""
    for name, content in world_files().items():
        (folder / name).write_bytes(content)
    return folder


@cache
def world_files():
    """Made once: GeoParquet is slow to write."""
    land = gpd.GeoDataFrame(geometry=[shapely.box(10, 44, 16, 48), shapely.box(20, 44, 20.3, 44.3)], crs=4326)
    boxes = [(10, 44, 11, 45), (11, 44, 16, 45), (10, 45.05, 16, 47), (10, 47, 16, 48)]
    ecoregions = gpd.GeoDataFrame(
        {
            "ECO_ID": [3, 1, 2, 0],
            "ECO_NAME": ["three", "one", "two", "Rock and Ice"],
            "BIOME_NUM": [1, 1, 4, 11],
            "BIOME_NAME": ["moist", "moist", "mixed", "N/A"],
            "REALM": ["P", "P", "P", "N/A"],
        },
        geometry=[shapely.box(*box) for box in boxes],
        crs=4326,
    )
    mountains = gpd.GeoDataFrame(geometry=[shapely.box(9, 47, 17, 49)], crs=4326)
    files = {"land.parquet": land, "eco.parquet": ecoregions, "mountains.parquet": mountains}
    for name, frame in files.items():
        frame.to_parquet(buffer := BytesIO())
        files[name] = buffer.getvalue()
    return files


def named_files(entries):
    paths = [entry["path"] if isinstance(entry, dict) else entry for entry in entries]
    return [path for path in paths if isinstance(path, str)]


def make_job(folder, output="out", *, size_m=2560, seed=7, **options):
    settings = DEFAULTS | {
        "design": "grid",
        "spacing_m": 20_000,
        "per_shard": 32,
        "land": str(folder / "land.parquet"),
        "ecoregions": str(folder / "eco.parquet"),
        "mountains": str(folder / "mountains.parquet"),
    }
    settings |= options
    VALIDATOR.validate(settings)
    files = {name: named_files([settings[name]]) for name in FILES}
    files["exclude"] = named_files(settings["exclude"])
    files["evaluation"] = settings["evaluation"]["points"] if settings["evaluation"] else []
    out = folder / output
    return SimpleNamespace(
        input=SimpleNamespace(**files),
        output=SimpleNamespace(
            **{name: str(out / f"{name}.{kind}") for name, kind in OUTPUTS.items()},
        ),
        params=SimpleNamespace(settings=settings, size_m=size_m, seed=seed),
        wildcards=SimpleNamespace(dataset="test"),
    )


def run(folder, output="out", **options):
    job = make_job(folder, output, **options)
    main(job)
    return read_table(job.output.locations, "locations"), json.loads(Path(job.output.jobs).read_text())
