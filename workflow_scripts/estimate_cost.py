"""Tell what a dataset will ask of catalogs, file servers, processors and disks, before anything is fetched.

Reads `jobs.json`: locations, shards and tiles.
Writes `estimate.json`: counts, and per stage requests, bytes, CPU hours, disk; hours for some numbers
        of cores. `estimate.txt`: the same to be read.

Counts follow from the layout of the store. All else follows from the rates of section `estimate` of
the configuration, which are written beside the results: some were measured on this code, the others
are assumptions about a network and an archive that nobody has asked yet. Every location and season
is reckoned to have a patch: an upper bound.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from workflow_scripts.core import bands, grid, store
from workflow_scripts.core.amounts import as_size, as_time
from workflow_scripts.core.ranges import MAX_REQUESTS
from workflow_scripts.core.stage import atomic_path, read_json, run_stage, write_json
from workflow_scripts.core.tiff import HEAD_BYTES

COMPOSITES_PER_YEAR = 23
"""16-day composites of MOD13."""
FILES_PER_SCENE = len(bands.ALL_BANDS) + 1
"""Twelve bands and the scene classification."""
MEASURED_SIZE_M, MEASURED_BLOCK_PX = 2560, 512
"""Patches and files that `estimate.measured` was measured on."""
SCREENING_MB = 0.025 * 1.6
"""Blocks of the scene classification that a patch touches (1.6 of about 25 kB)."""


@dataclass(frozen=True)
class Load:
    """What one stage asks for."""

    stage: str
    jobs: int
    """Jobs that may run at once."""
    searches: float = 0
    """Pages of a catalog's API."""
    requests: float = 0
    """Requests for files."""
    bytes: float = 0
    """Received."""
    cpu_hours: float = 0
    """The starts of its jobs included."""
    disk_bytes: float = 0
    """Left on disk."""


def bytes_per_patch(size_m: int) -> int:
    """Give the bytes of one patch's pixels, uncompressed: all bands and the scene classification."""
    total = 0
    for name in store.PIXELS:
        suffix = name.removeprefix("dn") if name != "scl" else "20"
        n_bands = len(store.BAND_NAMES[f"band{suffix}"]) if name != "scl" else 1
        n = grid.n_pixels(size_m, int(suffix))
        total += n_bands * n * n * np.dtype(store.ARRAYS[name].dtype).itemsize
    return total


def blocks_per_patch(size_m: int, block_px: int = MEASURED_BLOCK_PX) -> float:
    """Give the blocks of a scene's bands that a patch at a random place touches, on average."""
    return sum(
        (1 + (grid.n_pixels(size_m, step) - 1) / block_px) ** 2 for step in bands.RESOLUTION_M.values()
    )


def count(
    jobs: Mapping[str, Any], *, seasons: Sequence[str], size_m: int, greenness: Mapping[str, Any] | None
) -> dict[str, int]:
    """Count what a dataset is made of.

    Parameters
    ----------
    jobs : content of `jobs.json`
    seasons : labels, those of a second cycle included: at most so many patches
    size_m : side of a patch
    greenness : `years` and `platforms` of the vegetation index read from a catalog; None if none is

    Returns
    -------
    counts by name; bytes where the name says so
    """
    shards = jobs["shards"]
    n_patches = jobs["n_locations"] * len(seasons)
    n_composites = 0
    if greenness is not None:
        years = greenness["years"][1] - greenness["years"][0] + 1
        n_composites = (
            len(jobs["modis_tiles"]) * years * grid.MODIS_COMPOSITES_PER_YEAR * len(greenness["platforms"])
        )
    return {
        "n_locations": jobs["n_locations"],
        "n_patches": n_patches,
        "n_shards": len(shards),
        "n_scene_tiles": len({tile for shard in shards.values() for tile in shard["mgrs_tiles"]}),
        "n_greenness_tiles": len(jobs["modis_tiles"]) if greenness is not None else 0,
        "n_composites": n_composites,
        "n_store_files": len(shards) * len(store.ARRAYS),
        "bytes_per_patch_uncompressed": bytes_per_patch(size_m),
        "store_bytes_uncompressed": n_patches * bytes_per_patch(size_m),
        "memory_bytes_per_job": math.ceil(jobs["per_shard"] * len(seasons) * bytes_per_patch(size_m)),
    }


def loads(
    counts: Mapping[str, int],
    *,
    size_m: int,
    scene_years: Sequence[int],
    page_size: int | None,
    rates: Mapping[str, Any],
) -> list[Load]:
    """Reckon what each stage asks for.

    Parameters
    ----------
    counts : from `count`
    size_m : side of a patch
    scene_years : first and last year of the scenes
    page_size : items per page of the scene catalog's API; None for a catalog in files
    rates : section `estimate` of the configuration
    """
    assumed, measured = rates["assumed"], rates["measured"]
    n_patches, n_tiles, n_shards = counts["n_patches"], counts["n_scene_tiles"], max(counts["n_shards"], 1)
    n_items = n_tiles * (scene_years[1] - scene_years[0] + 1) * assumed["scenes_per_tile_year"]
    n_opened = n_patches / assumed["patches_per_scene"]
    larger = blocks_per_patch(size_m) / blocks_per_patch(MEASURED_SIZE_M)
    stored = (
        bytes_per_patch(size_m) / bytes_per_patch(MEASURED_SIZE_M) * measured["stored_mb_per_patch"] * 1e6
    )
    read_bytes = (
        n_patches * (larger * measured["mb_per_patch"] + assumed["tries_per_patch"] * SCREENING_MB) * 1e6
    )
    read_bytes += n_opened * FILES_PER_SCENE * HEAD_BYTES
    work = [
        Load(
            "read_tile",
            jobs=counts["n_greenness_tiles"],
            requests=counts["n_composites"] * assumed["requests_per_composite"],
            bytes=counts["n_composites"] * assumed["composite_mb"] * 1e6,
            cpu_hours=counts["n_composites"] / measured["composites_per_cpu_s"] / 3600,
        ),
        Load(
            "search_tile",
            jobs=n_tiles,
            searches=n_tiles * math.ceil(n_items / max(n_tiles, 1) / page_size) if page_size else 0,
            bytes=n_items * assumed["item_kb"] * 1e3 if page_size else 0,
            cpu_hours=n_items / measured["items_per_cpu_s"] / 3600,
        ),
        Load("select_scenes", jobs=n_shards, cpu_hours=n_patches / measured["selected_per_cpu_s"] / 3600),
        Load(
            "retrieve_patches",
            jobs=n_shards,
            requests=n_opened * FILES_PER_SCENE
            + n_patches * (larger * measured["requests_per_patch"] + assumed["tries_per_patch"] - 1),
            bytes=read_bytes,
            cpu_hours=n_patches * larger / measured["patches_per_cpu_s"] / 3600,
            disk_bytes=n_patches * stored,
        ),
        Load("verify_store", jobs=1, cpu_hours=n_patches / measured["verified_per_cpu_s"] / 3600),
    ]
    starts = measured["start_cpu_s"] / 3600
    return [replace(load, cpu_hours=load.cpu_hours + load.jobs * starts) for load in work]


def wall_hours(load: Load, cores: int, assumed: Mapping[str, float]) -> tuple[float, str]:
    """Give the hours a stage takes on some cores, and what limits it.

    A job computes and waits in turns: its own time is that of its processor and of its answers, many
    of which are under way at once. All jobs together can be slower than this by the bandwidth, or by
    the rate at which servers answer.
    """
    busy = load.cpu_hours + (load.requests / MAX_REQUESTS + load.searches) * assumed["latency_ms"] / 3.6e6
    limits = {
        "cores": busy / max(1, min(cores, load.jobs)),
        "bandwidth": load.bytes / (assumed["bandwidth_mb_s"] * 1e6) / 3600,
        "requests": load.requests / assumed["requests_per_s"] / 3600,
        "searches": load.searches / assumed["searches_per_s"] / 3600,
    }
    limit = max(limits, key=limits.get)
    return limits[limit], limit


def estimate(
    jobs: Mapping[str, Any],
    *,
    seasons: Sequence[str],
    size_m: int,
    greenness: Mapping[str, Any] | None,
    scene_years: Sequence[int],
    page_size: int | None,
    rates: Mapping[str, Any],
) -> dict[str, Any]:
    """Estimate a dataset.

    Parameters
    ----------
    jobs, seasons, size_m, greenness : as in `count`
    scene_years, page_size, rates : as in `loads`

    Returns
    -------
    JSON-like document: `counts`, `stages`, `total`, `wall` (one entry per number of cores: hours,
    and per stage hours and what limits it), `rates`
    """
    counts = count(jobs, seasons=seasons, size_m=size_m, greenness=greenness)
    stages = loads(counts, size_m=size_m, scene_years=scene_years, page_size=page_size, rates=rates)
    summed = ("searches", "requests", "bytes", "cpu_hours", "disk_bytes")
    wall = []
    for cores in rates["cores"]:
        by_stage = {load.stage: wall_hours(load, cores, rates["assumed"]) for load in stages}
        wall.append(
            {
                "cores": cores,
                "hours": sum(hours for hours, _ in by_stage.values()),
                "stages": {name: {"hours": h, "limit": limit} for name, (h, limit) in by_stage.items()},
            }
        )
    return {
        "counts": counts,
        "stages": [asdict(load) for load in stages],
        "total": {name: sum(getattr(load, name) for load in stages) for name in summed},
        "wall": wall,
        "rates": {kind: dict(rates[kind]) for kind in ("assumed", "measured")},
    }


def as_text(document: Mapping[str, Any]) -> str:
    """Lay an estimate out as tables to be read."""
    counts = document["counts"]
    lines = [
        f"Dataset {document.get('dataset', '')}: {counts['n_locations']:,} locations, {counts['n_patches']:,} patches "
        f"at most, {counts['n_shards']:,} jobs, {counts['n_store_files']:,} files in the store",
        f"{'':18}{'searches':>12}{'requests':>14}{'received':>12}{'CPU time':>12}{'disk':>12}",
    ]
    for row in [*document["stages"], {"stage": "together", **document["total"]}]:
        lines.append(
            f"  {row['stage']:16}{row['searches']:12,.0f}{row['requests']:14,.0f}"
            f"{as_size(row['bytes']):>12}{as_time(row['cpu_hours']):>12}{as_size(row['disk_bytes']):>12}"
        )
    for entry in document["wall"]:
        slowest = max(entry["stages"].items(), key=lambda stage: stage[1]["hours"])
        lines.append(
            f"  {entry['cores']:5,} core{'s' if entry['cores'] > 1 else ' '}: {as_time(entry['hours']):>10}, most of it {slowest[0]}, "
            f"limited by {slowest[1]['limit']}"
        )
    for kind, meaning in (("assumed", "your network, the catalog"), ("measured", "this code, one core")):
        listed = ", ".join(f"{name} {value:g}" for name, value in document["rates"][kind].items())
        lines.append(f"  {kind} ({meaning}): {listed}")
    return "\n".join(lines) + "\n"


def main(job: Any) -> None:
    """Estimate one dataset; see the module's docstring."""
    result = estimate(
        read_json(job.input.jobs),
        seasons=job.params.seasons,
        size_m=job.params.size_m,
        greenness=job.params.greenness,
        scene_years=job.params.scene_years,
        page_size=job.params.page_size,
        rates=job.params.rates,
    )
    document = {"dataset": job.wildcards.dataset, **result}
    write_json(job.output.estimate, document)
    with atomic_path(job.output.text) as temporary:
        temporary.write_text(as_text(document))


if "snakemake" in globals():
    run_stage(main, snakemake)  # noqa: F821
