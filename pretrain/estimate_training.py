"""Tell what a training run will cost, from a few steps of it, before it starts.

Reads   `jobs.json` of the model's dataset; where the dataset is finished also its tables and store
Writes  `estimate.json`: steps, epochs, samples per second of a dry run of 20 steps, hours, disk;
        `estimate.txt`: the same to be read

A finished dataset is read as training will read it. Before that, made patches of the dataset's size stand
in for it, read from this machine's disk, and every location is reckoned to have patches: an upper bound.
One process takes its share of the batch; that several are as fast each is an assumption. On the CPU, time
grows with the batch, so there a smaller one is measured and the time scaled.
"""

import logging
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import numcodecs.blosc
import numpy as np
import pandas as pd
import torch

from pretrain import recipes, train
from pretrain.data import PatchReader, on_device
from pretrain.samples import Samples, choose, select_samples
from workflow_scripts.core import store, tables
from workflow_scripts.core.amounts import as_time
from workflow_scripts.core.stage import atomic_path, read_json, run_stage, write_json

logger = logging.getLogger(__name__)

STEPS = 20
"""Steps measured."""
WARM_UP = 3
"""Steps before them: first reads, memory pools, compilation."""
LIMIT_S = 120
"""Of time, after which fewer steps suffice."""
CPU_BATCH = 16
"""Locations per step of a dry run on the CPU, at most."""
MADE_LOCATIONS = 16


@dataclass(frozen=True)
class DryRun:
    """What was measured."""

    device: str
    steps: int
    batch_size: int
    """Locations per step."""
    samples_per_s: float
    """Of one process."""
    wait_share: float
    """Share of the time in which the data were not ready."""
    state_bytes: int
    """Of a checkpoint."""
    encoder_bytes: int


def make_store(folder: Path, *, seasons: Sequence[str], size_m: int, n_locations: int) -> Samples:
    """Write a store of noise in `folder`, one shard, and choose all of it."""
    rng = np.random.default_rng(0)
    ids = [str(i) for i in range(n_locations)]
    locations = pd.DataFrame({"location_id": ids, "lon": 0.0, "lat": 0.0})
    store.create_store(folder, locations=locations, seasons=seasons, size_m=size_m, per_shard=n_locations)
    arrays = store.empty_shard(folder, 0)
    for name in ("dn10", "dn20", "dn60"):
        arrays[name][:] = rng.normal(2000, 60, arrays[name].shape)  # 3 % noise compresses as pixels do
    store.write_shard(folder, 0, arrays)
    patches = pd.MultiIndex.from_product([range(n_locations), seasons], names=["location", "season"])
    index = patches.to_frame(index=False).assign(status="ok", lon=0.0, lat=0.0, datetime=pd.Timestamp(0))
    index["location_id"] = index["location"].astype(str)
    return select_samples(
        index, pd.DataFrame({"location_id": ids, "weight": 1.0}), seasons=seasons, min_seasons=1
    )


def dry_run(options: recipes.Options, samples: Samples, store_path: str | Path, *, steps: int) -> DryRun:
    """Train a few steps of a run in this process."""
    device = train.choose_device(options.device, 1)
    share = options.batch_size // options.processes
    if device.type == "cpu":
        share = min(share, CPU_BATCH * options.accumulate)
    group = min(options.bn_group_size, share // options.accumulate)
    if share // options.accumulate % group:
        group = share // options.accumulate
    alone = replace(options, processes=1, nodes=1, batch_size=share, bn_group_size=group)
    reader = PatchReader(
        store_path, options.bands, n_threads=options.reader_threads, pin_memory=device.type == "cuda"
    )
    objective, optimizer = train.prepare(alone, device)
    samples = replace_side(samples, objective.side_columns)
    seconds, waits = [], []
    source = train.batches(reader, samples, alone, objective, first=0, last=WARM_UP + steps)
    started = asked = time.perf_counter()
    for batch in on_device(source, device):
        ready = time.perf_counter()
        train.learn(objective, objective, optimizer, batch, reader.plan, alone)
        optimizer.step()
        objective.after_step()
        if device.type == "cuda":
            torch.cuda.synchronize()
        done = time.perf_counter()
        waits.append(ready - asked)
        seconds.append(done - asked)
        asked = done
        if done - started > LIMIT_S and len(seconds) > WARM_UP:
            break
    momenta = [value for state in optimizer.state.values() for value in state.values()]
    return DryRun(
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU",
        steps=len(seconds) - WARM_UP,
        batch_size=share,
        samples_per_s=share / median(seconds[WARM_UP:]),
        wait_share=sum(waits[WARM_UP:]) / sum(seconds[WARM_UP:]),
        state_bytes=n_bytes([*objective.state_dict().values(), *momenta]),
        encoder_bytes=n_bytes(objective.encoder.state_dict().values()),
    )


def replace_side(samples: Samples, columns: Sequence[str]) -> Samples:
    """Give samples with zeros for what a side table would hold."""
    return replace(
        samples,
        side=np.zeros((len(samples), len(columns)), np.float32),
        side_columns=np.asarray(columns, np.str_),
    )


def n_bytes(values: Iterable[Any]) -> int:
    """Sum up the sizes of the tensors among some values."""
    return sum(value.nbytes for value in values if isinstance(value, torch.Tensor))


def estimate(options: recipes.Options, n_locations: int, measured: DryRun | None) -> dict[str, Any]:
    """Reckon a whole run.

    Parameters
    ----------
    n_locations : to train on
    measured : None where the device is not here

    Returns
    -------
    JSON-like document; speed, hours and disk are null without a measurement
    """
    steps = recipes.total_steps(options, n_locations)
    document = {
        "locations": n_locations,
        "epochs": steps / recipes.steps_per_epoch(options, n_locations),
        "steps": steps,
        "processes": options.processes,
        "samples_per_s": None,
        "hours": None,
        "disk_gb": None,
        "measured": None,
    }
    if measured is None:
        return document
    per_s = measured.samples_per_s * options.processes
    disk = options.keep_checkpoints * measured.state_bytes + measured.encoder_bytes
    return document | {
        "samples_per_s": per_s,
        "hours": steps * options.batch_size / per_s / 3600,
        "disk_gb": disk / 1e9,
        "measured": asdict(measured),
    }


def as_text(model: str, document: Mapping[str, Any], *, data: str) -> str:
    """Lay an estimate out to be read."""
    first = (
        f"Model {model}: {document['locations']:,} locations, {document['epochs']:,.4g} epochs, "
        f"{document['steps']:,} steps"
    )
    measured = document["measured"]
    if measured is None:
        return f"{first}\n  time not measured: {document['reason']}\n"
    return (
        f"{first}\n  {document['samples_per_s']:,.4g} samples per second on {document['processes']} x "
        f"{measured['device']}: {as_time(document['hours'])}, {document['disk_gb']:,.3g} GB of checkpoints and "
        f"weights\n  measured: {measured['steps']} steps of {measured['batch_size']} locations in one process, "
        f"{measured['wait_share']:.0%} of the time waiting for data; {data}\n"
    )


def main(job: Any) -> None:
    """Estimate one model; see the module's docstring."""
    options = recipes.resolve(dict(job.params.model))
    numcodecs.blosc.use_threads = False
    torch.set_num_threads(max(1, job.threads * options.nodes // options.processes))
    measured, reason = None, None
    with tempfile.TemporaryDirectory() as name:
        if job.params.finished is not None:
            folder, data = Path(job.params.finished), "the dataset's own patches"
            store_path = options.store or folder / "patches.zarr"
            chosen = choose(
                options,
                patches=tables.read_table(folder / "patches.parquet", "patches"),
                weights=tables.read_table(folder / "weights.parquet", "weights"),
                store_path=store_path,
                locations=folder / "locations.parquet",
                others=[
                    tables.read_table(path, "patches", columns=("location_id", "season", "status"))
                    for path in job.params.others
                ],
            )
            n_locations = len(chosen)
        else:
            data = "made patches, as the dataset is not there yet"
            store_path = Path(name) / "patches.zarr"
            chosen = make_store(
                store_path, seasons=job.params.seasons, size_m=job.params.size_m, n_locations=MADE_LOCATIONS
            )
            n_locations = min(read_json(job.input.jobs)["n_locations"], options.n_locations or sys.maxsize)
        try:
            train.choose_device(options.device, 1)
        except ValueError as error:
            reason = str(error)
            logger.warning("%s", reason)
        else:
            measured = dry_run(options, chosen, store_path, steps=STEPS)
    document = {"model": job.wildcards.model, **estimate(options, n_locations, measured), "reason": reason}
    write_json(job.output.estimate, document)
    with atomic_path(job.output.text) as temporary:
        temporary.write_text(as_text(job.wildcards.model, document, data=data))


if "snakemake" in globals():
    run_stage(main, snakemake)  # noqa: F821
