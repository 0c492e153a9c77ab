"""A small patch store with vegetation that follows the seasons, and training ranks, for the tests."""

import logging
import multiprocessing
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from shapely.geometry import box

from pretrain.recipes import Options
from workflow_scripts.core import store, tables
from workflow_scripts.core.seasons import SEASONS

torch.set_num_threads(1)  # results to the bit, and no waiting for busy cores

SOIL = {"B02": 900, "B03": 1200, "B04": 1600, "B08": 2600, "B05": 1900, "B06": 2200}
SOIL |= {"B07": 2400, "B8A": 2700, "B11": 3200, "B12": 2800, "B01": 800, "B09": 2600}
LEAF = {"B02": 300, "B03": 700, "B04": 350, "B08": 4200, "B05": 1000, "B06": 3000}
LEAF |= {"B07": 3800, "B8A": 4400, "B11": 1900, "B12": 900, "B01": 250, "B09": 4300}
PHASE = {"spring": 0.6, "summer": 1.0, "autumn": 0.5, "winter": 0.1}


def _texture(rng: np.random.Generator, n: int) -> np.ndarray:
    """Smooth random field (n, n) with values 0 to 1."""
    spectrum = np.fft.fft2(rng.standard_normal((n, n)))
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(n), np.fft.fftfreq(n)))
    field = np.fft.ifft2(spectrum * np.exp(-((frequency / 0.08) ** 2))).real
    return (field - field.min()) / (field.max() - field.min())


def _pixels(cover: np.ndarray, bands: list[str], gains: dict, rng: np.random.Generator) -> np.ndarray:
    mixed = [(LEAF[band] * cover + SOIL[band] * (1 - cover)) * gains[band] for band in bands]
    noise = rng.normal(1, 0.03, (len(bands), *cover.shape))
    return np.clip(np.stack(mixed) * noise, 1, 20_000).astype(np.uint16)


def make_world(
    folder: Path, *, n_locations: int = 12, size_px: int = 32, per_shard: int = 5, seed: int = 0
) -> Path:
    """Write patches.zarr, patches.parquet and weights.parquet.

    Location 1 has two seasons, location 2 one (it is no training location), others four.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    identifiers = [f"{i}U_{i}R" for i in range(n_locations)]
    lon, lat = 10 + 0.01 * np.arange(n_locations), 47 + 0.01 * np.arange(n_locations)
    path = folder / "patches.zarr"
    locations = pd.DataFrame({"location_id": identifiers, "lon": lon, "lat": lat})
    store.create_store(path, locations=locations, seasons=SEASONS, size_m=10 * size_px, per_shard=per_shard)
    rows = []
    for shard in range(-(-n_locations // per_shard)):
        arrays = store.empty_shard(path, shard)
        first, last = store.shard_range(path, shard)
        for location in range(first, last):
            texture, richness = _texture(rng, size_px), rng.uniform(0.2, 1)
            gains = {band: rng.uniform(0.8, 1.2) for band in SOIL}
            for k, season in enumerate(SEASONS):
                missing = (location == 1 and k >= 2) or (location == 2 and k >= 1)
                if not missing:
                    cover = np.clip(texture * richness * (0.2 + PHASE[season]), 0, 1)
                    _fill(arrays, location - first, k, cover, gains, rng)
                rows.append(_row(location, identifiers, lon, lat, season, k, missing))
        store.write_shard(path, shard, arrays)
    patches = pd.DataFrame(rows)
    text = [
        "reason",
        "item_id",
        "collection",
        "catalog",
        "mgrs_tile",
        "baseline",
        "offset_source",
        "failover_from",
    ]
    for column in tables.COLUMNS["patches"]:
        if column not in patches:
            patches[column] = "" if column in text else pd.NaT if column == "target_date" else 0
    tables.write_table(patches, folder / "patches.parquet", "patches")
    weights = pd.DataFrame({"location_id": identifiers, "weight": 1.0})
    weights.loc[::3, "weight"] = 0.25
    weights = weights.assign(is_non_vegetated=False, is_mountain=False, mean_ndvi_max=0.5)
    tables.write_table(weights, folder / "weights.parquet", "weights")
    return folder


def _fill(arrays: dict, row: int, k: int, cover: np.ndarray, gains: dict, rng: np.random.Generator) -> None:
    coarse = cover.reshape(len(cover) // 2, 2, -1, 2).mean(axis=(1, 3))
    n60 = arrays["dn60"].shape[-1]
    arrays["dn10"][row, k] = _pixels(cover, list(store.bands.BANDS10), gains, rng)
    arrays["dn20"][row, k] = _pixels(coarse, list(store.bands.BANDS20), gains, rng)
    arrays["dn60"][row, k] = rng.integers(500, 5000, (2, n60, n60))
    arrays["scl"][row, k] = 4
    arrays["datetime"][row, k] = (19_000 + 91 * k) * 86_400
    arrays["epsg"][row, k] = 32632
    arrays["origin_x"][row, k], arrays["origin_y"][row, k] = 600_000, 5_200_000
    arrays["origin60_x"][row, k], arrays["origin60_y"][row, k] = 599_980, 5_200_040
    arrays["valid_fraction"][row, k], arrays["dn_offset"][row, k] = 1, 0


def _row(
    location: int, identifiers: list, lon: np.ndarray, lat: np.ndarray, season: str, k: int, missing: bool
) -> dict:
    return {
        "location_id": identifiers[location],
        "location": location,
        "season": season,
        "status": "missing" if missing else "ok",
        "datetime": pd.NaT if missing else pd.Timestamp("1970-01-01") + pd.Timedelta(days=19_000 + 91 * k),
        "checksum": "" if missing else f"{location}-{k}",
        "lon": lon[location],
        "lat": lat[location],
        "is_complete": location != 2,
        "geometry": box(lon[location], lat[location], lon[location] + 0.01, lat[location] + 0.01),
    }


@contextmanager
def serve_bucket(folder: Path) -> Iterator[tuple[str, Any]]:
    """Copy a folder into a bucket of a local S3 server; give its address there and the server's client."""
    server_of, boto3 = pytest.importorskip("moto.server"), pytest.importorskip("boto3")
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = server_of.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    keys = dict.fromkeys(("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), "made")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (
            keys | {"AWS_ENDPOINT_URL": f"http://{host}:{port}", "AWS_REGION": "us-east-1"}
        ).items():
            patch.setenv(name, value)
        client = boto3.client("s3")
        client.create_bucket(Bucket="made-bucket")
        for path in folder.rglob("*"):
            if path.is_file():
                key = f"data/{path.relative_to(folder)}"
                client.put_object(Bucket="made-bucket", Key=key, Body=path.read_bytes())
        yield "s3://made-bucket/data", client
    server.stop()


def _one_rank(run_file: str, error_file: str, environment: dict) -> None:
    from pretrain import train

    os.environ.update(environment)
    raise SystemExit(train.main(run_file, error_file, str(os.getppid())))


def train_on_ranks(run_file: Path, *, options: Options, threads: int, error_file: Path) -> None:
    """Stand in for `pretrain.launch`: as torchrun, but the ranks share one import of the libraries."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["pretrain.train", "transformers.models.resnet.modeling_resnet"])
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    ranks = []
    for rank in range(options.processes):
        environment = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": options.processes, "MASTER_PORT": port}
        environment |= {"MASTER_ADDR": "127.0.0.1", "OMP_NUM_THREADS": 1}
        environment = {key: str(value) for key, value in environment.items()}
        arguments = (str(run_file), str(error_file), environment)
        ranks.append(context.Process(target=_one_rank, args=arguments))
        ranks[-1].start()
    for process in ranks:
        process.join()
    if any(process.exitcode for process in ranks):
        raise RuntimeError(error_file.read_text())
