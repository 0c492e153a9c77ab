"""Tell what a training run will cost, from a few steps of it: ``python -m pretrain.estimate MODEL``.

Reads   config.yaml (or ``--configfile``), the tables and the store of the model's dataset
Writes  nothing but its answer: steps, epochs, samples per second of a dry run of 20 steps in one
        process, hours, and the disk its results take

The dry run uses the configured batch and device, so several processes are estimated by one with its
share of the batch; the speed-up of many is not measured.
"""

import argparse
import sys
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import torch
import yaml

from pretrain import recipes, train
from pretrain.data import PatchReader, on_device
from pretrain.samples import Samples, choose
from workflow_scripts.core import config, tables
from workflow_scripts.core.provenance import ROOT

WARM_UP = 3
"""Steps not counted: first reads, memory pools, compilation."""


@dataclass(frozen=True)
class Estimate:
    """What a run will take."""

    steps: int
    epochs: float
    samples_per_s: float
    """Of all processes together, if each is as fast as the one measured."""
    wait_share: float
    """Share of the time of the dry run in which the data were not ready."""
    hours: float
    disk_gb: float
    """Checkpoints kept and the encoder."""


def dry_run(options: recipes.Options, samples: Samples, store_path: Path, *, steps: int) -> Estimate:
    """Train a few steps of a run in this process and extrapolate."""
    share = options.batch_size // options.processes
    alone = replace(
        options,
        processes=1,
        batch_size=share,
        bn_group_size=min(options.bn_group_size, share // options.accumulate),
    )
    device = train.choose_device(options.device, 1)
    reader = PatchReader(
        store_path, options.bands, n_threads=options.reader_threads, pin_memory=device.type == "cuda"
    )
    objective, optimizer = train.prepare(alone, device)
    seconds, waits = [], []
    asked = time.perf_counter()
    source = train.batches(reader, samples, alone, objective, first=0, last=WARM_UP + steps)
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
    per_step = median(seconds[WARM_UP:])
    n_steps = recipes.total_steps(options, len(samples))
    momenta = [value for state in optimizer.state.values() for value in state.values()]
    checkpoint = n_bytes([*objective.state_dict().values(), *momenta])
    encoder = n_bytes(objective.encoder.state_dict().values())
    return Estimate(
        steps=n_steps,
        epochs=n_steps / recipes.steps_per_epoch(options, len(samples)),
        samples_per_s=options.batch_size / per_step,
        wait_share=sum(waits[WARM_UP:]) / sum(seconds[WARM_UP:]),
        hours=n_steps * per_step / 3600,
        disk_gb=(options.keep_checkpoints * checkpoint + encoder) / 1e9,
    )


def n_bytes(values: Iterable[Any]) -> int:
    """Sum up the sizes of the tensors among some values."""
    return sum(value.nbytes for value in values if isinstance(value, torch.Tensor))


def main(arguments: list[str]) -> int:
    """Print the estimate of a model of the configuration."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="name of an entry of `models`, with its seed (NAME-s1)")
    parser.add_argument("--configfile", type=Path, help="laid over the project's config.yaml")
    parser.add_argument("--steps", type=int, default=20)
    chosen = parser.parse_args(arguments)
    try:
        model = find_model(chosen.model, chosen.configfile)
        options = recipes.resolve(model)
        folder = Path("results/datasets") / model["dataset"]
        store_path = options.store or folder / "patches.zarr"
        samples = choose(
            options,
            patches=tables.read_table(folder / "patches.parquet", "patches"),
            weights=tables.read_table(folder / "weights.parquet", "weights"),
            store_path=store_path,
            locations=folder / "locations.parquet",
        )
        found = dry_run(options, samples, store_path, steps=chosen.steps)
    except (ValueError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    for name, value in asdict(found).items():
        sys.stdout.write(
            f"{name:14s} {value:,.4g}\n" if isinstance(value, float) else f"{name:14s} {value:,}\n"
        )
    return 0


def find_model(name: str, configfile: Path | None) -> dict[str, Any]:
    """Give the entry of a trained model of the configuration."""
    document = yaml.safe_load((ROOT / "config.yaml").read_text())
    user = yaml.safe_load(configfile.read_text()) if configfile else {}
    models = config.load(config.merge(document, user), ROOT / "schemas").models
    if name not in models or "dataset" not in models[name]:
        trained = [key for key, entry in models.items() if "dataset" in entry]
        raise ValueError(f"model {name!r} is not one of those to be trained: {trained}")
    return models[name]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
