"""Plan the published dataset at full size: how long Snakemake thinks, how many files, what all of it costs.

    python benchmarks/rehearsal.py [POLYGONS] --out FOLDER --parts sample
    python benchmarks/scale.py [FOLDER]

FOLDER holds the sampled locations (recipes/ssl4eco.yaml: the 23 km grid); without it they are sampled from
generated polygons. Nothing is fetched: the workflow is
planned by a dry run to `dataset`, as `snakemake -n` does after sampling, once with nothing made and once for a
store of which every object is there. The costs are those `snakemake estimate` gives, and the same for half and
twice as many locations, seasons, years and bands.
"""

import argparse
import copy
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import yaml  # noqa: E402

from workflow_scripts import estimate_cost  # noqa: E402
from workflow_scripts.core import config, store  # noqa: E402
from workflow_scripts.core.stage import read_json  # noqa: E402

NAME = "ssl4eco"
SEASONS = ["spring", "summer", "autumn", "winter"]


def settings() -> config.Settings:
    """The recipe over the project's configuration."""
    recipe = yaml.safe_load((ROOT / "recipes/ssl4eco.yaml").read_text())
    project = yaml.safe_load((ROOT / "config.yaml").read_text())
    return config.load(config.merge(project, recipe), ROOT / "schemas")


def prepare(work: Path, sampled: Path) -> None:
    """Lay the sampled locations where the workflow looks for them, after empty files in the place of sources."""
    for path in settings().sources:
        (work / path).parent.mkdir(parents=True, exist_ok=True)
        (work / path).touch()
    results = work / "results/datasets" / NAME
    results.mkdir(parents=True)
    time.sleep(1)  # results are newer than sources
    for name in ("locations.parquet", "jobs.json", "sampling.json"):
        (results / name).write_bytes((sampled / name).read_bytes())


def plan(work: Path) -> str:
    """Dry-run the workflow and tell jobs, time, processor time and memory."""
    command = [
        sys.executable,
        "-m",
        "snakemake",
        "--snakefile",
        str(ROOT / "Snakefile"),
        "--dry-run",
        "--quiet",
    ]
    command += [
        "rules",
        "--cores",
        "64",
        "--configfile",
        str(ROOT / "recipes/ssl4eco.yaml"),
        "--directory",
        str(work),
    ]
    begin, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([*command, "--", "dataset"], capture_output=True, text=True)
    took = time.perf_counter() - begin
    if done.returncode:
        raise SystemExit(done.stdout[-2000:] + done.stderr[-2000:])
    totals = [line.split()[-1] for line in done.stdout.splitlines() if line.startswith("total")]
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    n_jobs = totals[-1] if totals else "0"
    return (
        f"{n_jobs} jobs: {took:.0f} s, {cpu:.0f} s of processor time, {after.ru_maxrss * 1024 / 1e9:.2f} GB"
    )


def make_outputs(work: Path, n_shards: int, tiles: set[str]) -> int:
    """Put an empty file in the place of every file up to the shards; give how many."""
    results = work / "results/datasets" / NAME
    names = [f"patches.zarr/{name}" for shard in range(n_shards) for name in store.shard_objects(shard)]
    names += [f"retrieved/{shard}.parquet" for shard in range(n_shards)]
    names += [f"scenes/{shard}.parquet" for shard in range(n_shards)]
    order = [[f"items/{tile}.parquet" for tile in tiles], [n for n in names if n[:6] == "scenes"]]
    order.append([n for n in names if n[:6] != "scenes"])
    for part in order:
        for name in part:
            (results / name).parent.mkdir(parents=True, exist_ok=True)
            (results / name).touch()
        time.sleep(0.01)
    return sum(map(len, order))


def costs(
    jobs: dict, *, locations: float = 1, seasons: float = 1, years: float = 1, bands: float = 1
) -> dict:
    """The estimate with each of these multiplied."""
    resolved = settings()
    options, rates = resolved.datasets[NAME], copy.deepcopy(resolved.estimate)
    if locations != 1:
        n_shards = round(len(jobs["shards"]) * locations)
        kept = {str(i): jobs["shards"][str(i % len(jobs["shards"]))] for i in range(n_shards)}
        jobs = {**jobs, "n_locations": round(jobs["n_locations"] * locations), "shards": kept}
    for name in ("mb_per_patch", "stored_mb_per_patch", "requests_per_patch"):
        rates["measured"][name] *= bands
    rates["measured"]["patches_per_cpu_s"] /= bands
    first, last = options["scenes"]["years"]
    n_years = round((last - first + 1) * years)
    greenness = options["greenness"]
    return estimate_cost.estimate(
        jobs,
        seasons=SEASONS[: round(4 * seasons)] if seasons <= 1 else SEASONS * round(seasons),
        size_m=options["patches"]["size_m"],
        greenness={"years": [first, first + n_years - 1], "platforms": greenness["platforms"]},
        scene_years=[first, first + n_years - 1],
        page_size=100,
        rates=rates,
    )


def show_costs(jobs: dict) -> None:
    """Print the table of costs, and how they grow."""
    base = costs(jobs)
    print(estimate_cost.as_text({"dataset": NAME, **base}))
    cores = [entry["cores"] for entry in base["wall"]]
    print(
        "| | searches | requests | received | CPU hours | disk | "
        + " | ".join(f"{n} cores" for n in cores)
        + " |"
    )
    print("|---|" + "---|" * (5 + len(cores)))
    rows = {"as published": {}}
    rows |= {
        f"{factor:g} × {what}": {what: factor}
        for what in ("locations", "seasons", "years", "bands")
        for factor in (0.5, 2)
    }
    for name, change in rows.items():
        found = costs(jobs, **change)
        total = found["total"]
        hours = " | ".join(f"{entry['hours']:,.0f} h" for entry in found["wall"])
        print(
            f"| {name} | {total['searches']:,.0f} | {total['requests'] / 1e6:,.1f} M | {total['bytes'] / 1e12:,.1f} TB | "
            f"{total['cpu_hours']:,.0f} | {total['disk_bytes'] / 1e12:,.2f} TB | {hours} |"
        )


def measure(sampled: Path) -> None:
    """Tell costs and plans of the sampled locations."""
    jobs = read_json(sampled / "jobs.json")
    show_costs(jobs)
    tiles = {tile for shard in jobs["shards"].values() for tile in shard["mgrs_tiles"]}
    print(
        f"{jobs['n_locations']} locations, {len(jobs['shards'])} shards, {len(tiles)} MGRS tiles", flush=True
    )
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        prepare(work, sampled)
        print(f"plan of {plan(work)}", flush=True)
        n_files = make_outputs(work, len(jobs["shards"]), tiles)
        print(f"plan with {n_files} files there of {plan(work)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        sampled = options.folder or Path(name)
        if options.folder is None:
            rehearsal = [
                sys.executable,
                str(ROOT / "benchmarks/rehearsal.py"),
                "--out",
                name,
                "--parts",
                "sample",
            ]
            subprocess.run(rehearsal, check=True)
        measure(sampled.resolve())


if __name__ == "__main__":
    main()
