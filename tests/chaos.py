"""Rounds of damage, kills and faults over a made world's road up to `dataset`: `make chaos ROUNDS=20`.

A round takes a copy of a finished dataset and, by its seed, deletes, cuts or damages some of its files. Then
the workflow runs, is killed with all its processes at random moments, and is started again; the server of the
scenes answers with errors, cut and damaged bodies all the while. What a message asks for is done: delete a
file, repair the store, delete a table that cannot be read. In the end every value must be that of the undisturbed run.
"""

import argparse
import dataclasses
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import pyarrow.parquet as pq  # noqa: E402
from small_world import SMALL as WORLD  # noqa: E402
from small_world import build_in  # noqa: E402
from workflow_runs import DATASET, NAME, assert_same_dataset, finish, start  # noqa: E402

from workflow_scripts.demo import faults  # noqa: E402
from workflow_scripts.demo.server import DemoServer  # noqa: E402

MAX_STARTS = 12
"""Starts of the workflow in a round."""
KILL_WITHIN_S = (3, 20)
YEARS = (2019, 2022)
INPUTS = {name: f"resources/demo/{name}.parquet" for name in ("land", "ecoregions")}


def configuration(server: DemoServer) -> dict:
    """A dataset of two shards, its catalogs behind the server."""
    api = {"type": "api", "url": server.api_url}
    options = {
        "locations": {"spacing_m": 700, "n_locations": 12, "per_shard": 6, **INPUTS},
        "greenness": {"catalog": "world-modis", "years": list(YEARS)},
        "phenology": {"min_years": 1},
        "scenes": {"catalog": "world", "years": [2021, 2022], "max_cloud_cover": 100},
        "patches": {"size_m": 640, "max_cloud_fraction": 1.0},
    }
    return {
        "catalogs": {
            "world": {**api, "collection": "sentinel-2-l2a", "conventions": "earth-search"},
            "world-modis": {**api, "collection": "modis-13A1-061"},
        },
        "datasets": {NAME: options},
    }


def files_of(folder: Path, *patterns: str) -> list[Path]:
    """Files of the dataset, sorted."""
    return sorted(path for pattern in patterns for path in (folder / DATASET).glob(pattern) if path.is_file())


def delete(path: Path, rng: random.Random) -> None:
    """Lose a file."""
    path.unlink()


def cut(path: Path, rng: random.Random) -> None:
    """Lose the end of a file."""
    os.truncate(path, rng.randrange(path.stat().st_size))


def flip(path: Path, rng: random.Random) -> None:
    """Change a byte, and nothing that the file system tells."""
    times = path.stat()
    content = bytearray(path.read_bytes())
    content[rng.randrange(len(content))] ^= 0xFF
    path.write_bytes(content)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


OBJECTS = ("patches.zarr/*/c.*.0*",)
TABLES = ("*.parquet", "*/*.parquet", "bands.json")
TARGETS = ("dataset", f"{DATASET}/seasons.parquet", f"{DATASET}/phenology_cycles.parquet")
"""Tables in between are not made again unless they are asked for."""
DAMAGES = (
    ("object deleted", delete, OBJECTS),
    ("object cut", cut, OBJECTS),
    ("object flipped", flip, ("patches.zarr/dn*/c.*.0*", "patches.zarr/scl/c.*.0*")),
    ("table deleted", delete, TABLES),
    ("table cut", cut, TABLES),
)


def server_faults(seed: int) -> list[faults.Fault]:
    """What the server does wrong: some answers fail, are cut or damaged."""
    return [
        faults.Fault(r"\.tif|search", "status", status=503, share=0.03, seed=seed),
        faults.Fault(r"\.tif|search", "status", status=429, retry_after_s=0, share=0.02, seed=seed + 1),
        faults.Fault(r"\.tif", "truncate", share=0.01, seed=seed + 2),
        faults.Fault(r"\.tif", "corrupt", share=0.01, seed=seed + 3),
    ]


def module(name: str, folder: Path) -> subprocess.CompletedProcess:
    """Run one of the commands on the dataset's store."""
    command = [sys.executable, "-m", f"workflow_scripts.{name}", str(folder / DATASET / "patches.zarr")]
    environment = {**os.environ, "PYTHONPATH": str(HERE.parent)}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def follow(message: str, folder: Path) -> str:
    """Do what the message of a failed run asks for, and name it."""
    done = []
    for name in sorted(set(re.findall(r"(results/\S+?): not [^\n]*Delete it", message))):
        (folder / name).unlink(missing_ok=True)
        done.append("file deleted")
    if "workflow_scripts.repair" in message:
        module("repair", folder)
        done.append("repaired")
    return ", ".join(done) or "started again"


def unreadable(folder: Path) -> list[Path]:
    """Tables that nobody can read: those no later stage reads are noticed by who uses them."""
    found = []
    for path in files_of(folder, *TABLES):
        try:
            json.loads(path.read_text()) if path.suffix == ".json" else pq.read_table(path)
        except (ValueError, OSError):
            found.append(path)
    return found


def play(seed: int, reference: Path, folder: Path, config: dict) -> tuple[list[str], int, int]:
    """Play one round; give what was done, the kills, and the failed runs."""
    rng = random.Random(seed)
    for part in ("results", ".snakemake"):
        shutil.copytree(reference / part, folder / part)
    os.symlink(reference / "resources", folder / "resources")
    story = []
    for kind, damage, patterns in rng.sample(DAMAGES, rng.randint(1, 3)):
        path = rng.choice(files_of(folder, *patterns))
        damage(path, rng)
        story.append(f"{kind}: {path.relative_to(folder / DATASET)}")
    n_kills = n_failed = 0
    for n_starts in range(MAX_STARTS):
        process = start(folder, *TARGETS, config=config)
        if n_starts < 3 and rng.random() < 0.6:
            try:
                process.wait(rng.uniform(*KILL_WITHIN_S))
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.communicate()
                finish(start(folder, "--unlock", config=config))
                n_kills += 1
                continue
        printed, _ = process.communicate(timeout=1200)
        if process.returncode == 0 and (checked := module("verify_store", folder)).returncode != 0:
            printed = f"{checked.stdout}{checked.stderr} workflow_scripts.repair"  # its message says so, too
        elif process.returncode == 0 and (broken := unreadable(folder)):
            for path in broken:
                path.unlink()
            printed = ""
        elif process.returncode == 0:
            return story, n_kills, n_failed
        n_failed += 1
        story.append(follow(printed, folder))
    raise RuntimeError(
        f"round {seed}: not finished after {MAX_STARTS} starts; the last said: {printed[-2000:]}"
    )


def main() -> int:
    """Play the rounds, print a table, and tell by the exit status whether all were right."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1, help="of the first round; the next ones count on")
    options = parser.parse_args()
    n_wrong = total_kills = total_failed = 0
    with tempfile.TemporaryDirectory(prefix="chaos-") as name:
        reference = Path(name) / "reference"
        world = dataclasses.replace(WORLD, modis_years=YEARS)
        build_in(reference / "resources/demo", world, n_processes=2)
        with DemoServer(reference / "resources/demo") as server:
            config = configuration(server)
            finish(start(reference, "dataset", config=config))
            print("| seed | s | kills | failed runs | what happened | values |\n|---|---|---|---|---|---|")
            for seed in range(options.seed, options.seed + options.rounds):
                server.faults[:] = server_faults(seed)
                folder, begin = Path(name) / f"round-{seed}", time.monotonic()
                folder.mkdir()
                try:
                    story, n_kills, n_failed = play(seed, reference, folder, config)
                    assert_same_dataset(reference, folder)
                    outcome = "right"
                except (AssertionError, RuntimeError, ValueError, OSError) as error:
                    outcome, n_wrong = "WRONG: " + str(error)[:300].replace("\n", " "), n_wrong + 1
                    story, n_kills, n_failed = [], 0, 0
                seconds = time.monotonic() - begin
                total_kills, total_failed = total_kills + n_kills, total_failed + n_failed
                listed = "; ".join(story)
                print(
                    f"| {seed} | {seconds:.0f} | {n_kills} | {n_failed} | {listed} | {outcome} |", flush=True
                )
                shutil.rmtree(folder)
    print(
        f"{options.rounds} rounds, {total_kills} kills, {total_failed} failed runs: {n_wrong} with a wrong value"
    )
    return int(n_wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
