"""Runs of the workflow as a user starts them."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import xarray as xr
import yaml

ROOT = Path(__file__).resolve().parents[1]
NAME = "small"
DATASET = f"results/datasets/{NAME}"
SMALL = {
    "datasets": {
        NAME: {
            "locations": {
                "spacing_m": 700,
                "n_locations": 16,
                "land": "resources/demo/land.parquet",
                "ecoregions": "resources/demo/ecoregions.parquet",
                "mountains": "resources/demo/mountains.parquet",
                "allocation": "equal",
                "per_shard": 8,
            },
            "greenness": {"catalog": "demo-modis", "years": [2019, 2023]},
            "scenes": {"catalog": "demo", "years": [2021, 2022]},
            "patches": {"size_m": 640},
        }
    }
}
"""Two shards of the made world."""

TRAINED = {
    "models": {
        "tiny": {
            "dataset": NAME,
            "objective": "seco",
            "backbone": "resnet18",
            "device": "cpu",
            "steps": 4,
            "batch_size": 8,
            "queue_size": 16,
            "crop_px": 32,
            "processes": 2,
            "bn": {"group_size": 4},
            "log_steps": 1,
        }
    }
}
"""Four steps of two processes on it."""


def start(folder, *words, config=SMALL, cores=2, environment=None, snakefile=ROOT / "Snakefile"):
    """Start snakemake in a folder, in a process group of its own."""
    path = Path(folder) / "my.yaml"
    path.write_text(yaml.safe_dump(config))
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(snakefile)]
    command += ["--directory", str(folder), *map(str, words), "--configfile", str(path)]
    if cores is not None:
        command += ["--cores", str(cores)]
    return subprocess.Popen(
        command,
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        env={**os.environ, "COLUMNS": "200", **(environment or {})},
    )


def finish(process, *, good=True, timeout=1200):
    """Wait for a run and give what it printed."""
    try:
        printed, _ = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        pytest.fail(f"snakemake did not end: {process.communicate()[0][-3000:]}")
    assert (process.returncode == 0) == good, printed[-6000:]
    return printed


def run(folder, *words, good=True, timeout=1200, **options):
    """Run snakemake to its end and give what it printed."""
    return finish(start(folder, *words, **options), good=good, timeout=timeout)


def planned(folder, *words, **options):
    """Rule → number of jobs that a dry run lists."""
    printed = run(folder, "--dry-run", *words, **options)
    return {name: int(n) for name, n in re.findall(r"^(\w+) +(\d+)$", printed, flags=re.M) if name != "total"}


def link_world(source, folder):
    """Give a folder the made world of another one, without copying it."""
    subprocess.run(["cp", "-al", Path(source) / "resources", Path(folder) / "resources"], check=True)


def assert_same_dataset(expected, got):
    """Hold two datasets equal: every value of their stores, every choice, every weight and band figure."""
    stores = (xr.open_zarr(Path(folder) / DATASET / "patches.zarr").load() for folder in (expected, got))
    xr.testing.assert_identical(*stores)
    for table in ("locations", "seasons", "patches", "weights"):
        frames = [pd.read_parquet(Path(folder) / DATASET / f"{table}.parquet") for folder in (expected, got)]
        pd.testing.assert_frame_equal(*(frame.drop(columns="bbox", errors="ignore") for frame in frames))
    figures = [(Path(folder) / DATASET / "bands.json").read_text() for folder in (expected, got)]
    assert figures[0] == figures[1]
