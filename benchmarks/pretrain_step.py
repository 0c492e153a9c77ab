"""Locations per second of a training step, its memory, and the share of time waiting for data.

    python benchmarks/pretrain_step.py [--objective seco] [--backbone resnet50] [--batch 256] [--crop 224]
        [--precision bf16] [--channels-last] [--compile] [--threads 8] [--steps 20] [--cpu]

Runs twice on what this machine has: with one batch kept in memory (`synthetic`: the step alone, with
resampling and augmentation) and with the loader reading a made store (`loader`). Without a GPU it says
so and uses the CPU, by default with a ResNet-18, 8 locations, 64 px and 3 steps: such figures say nothing of a GPU.
"""

import argparse
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median

import numcodecs.blosc
import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from pretrain import recipes, train  # noqa: E402
from pretrain.data import Batch, PatchReader  # noqa: E402
from pretrain.samples import Samples, select_samples  # noqa: E402
from tests.pretrain_world import make_world  # noqa: E402
from workflow_scripts.core import tables  # noqa: E402
from workflow_scripts.core.seasons import SEASONS  # noqa: E402

WARM_UP = 2
"""Steps not counted: compilation, memory pools, first reads."""


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    has_gpu = torch.cuda.is_available()
    parser.add_argument("--objective", default="seco")
    parser.add_argument("--backbone", default="resnet50" if has_gpu else "resnet18")
    parser.add_argument("--batch", type=int, default=256 if has_gpu else 8)
    parser.add_argument("--crop", type=int, default=224 if has_gpu else 64)
    parser.add_argument("--precision", default="bf16" if has_gpu else "fp32")
    parser.add_argument("--channels-last", action="store_true")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--threads", type=int, default=8 if has_gpu else 1)
    parser.add_argument("--steps", type=int, default=20 if has_gpu else 3)
    parser.add_argument("--locations", type=int, default=128 if has_gpu else 16)
    parser.add_argument("--cpu", action="store_true", help="use the CPU even where there is a GPU")
    return parser.parse_args()


def build_step(
    options: recipes.Options, device: torch.device, reader: PatchReader
) -> Callable[[Batch], None]:
    """Make a training step of a recipe, as `pretrain.train` takes it."""
    objective, optimizer = train.prepare(options, device)

    def step(batch: Batch) -> None:
        train.learn(objective, objective, optimizer, batch.to(device), reader.plan, options)
        optimizer.step()
        objective.after_step()

    return step


def measure(step: Callable[[Batch], None], batches: Iterator[Batch], device: torch.device) -> dict:
    """Time steps one by one; median step, and the share of all time spent waiting for a batch."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    waits, steps = [], []
    asked = time.perf_counter()
    for batch in batches:
        ready = time.perf_counter()
        step(batch)
        if device.type == "cuda":
            torch.cuda.synchronize()
        waits.append(ready - asked)
        asked = time.perf_counter()
        steps.append(asked - ready)
    waits, steps = waits[WARM_UP:], steps[WARM_UP:]
    whole = [wait + one for wait, one in zip(waits, steps, strict=True)]
    memory = (
        torch.cuda.max_memory_allocated()
        if device.type == "cuda"
        else 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    )
    return {"seconds": median(whole), "wait_share": sum(waits) / sum(whole), "gb": memory / 1e9}


def main() -> None:
    arguments = parse()
    has_gpu = torch.cuda.is_available() and not arguments.cpu
    device = torch.device("cuda" if has_gpu else "cpu")
    options = recipes.resolve(
        {
            "objective": arguments.objective,
            "recipe": "paper",
            "backbone": arguments.backbone,
            "batch_size": arguments.batch,
            "queue_size": 65_536 // arguments.batch * arguments.batch,
            "crop_px": arguments.crop,
            "precision": arguments.precision,
            "channels_last": arguments.channels_last,
            "compile": arguments.compile,
            "reader_threads": arguments.threads,
            "epochs": arguments.steps + WARM_UP,
            "seed": 0,
        }
    )
    numcodecs.blosc.use_threads = False
    torch.set_num_threads(
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    )
    name = (
        torch.cuda.get_device_name() if has_gpu else f"CPU, {torch.get_num_threads()} threads (no GPU used)"
    )
    print(
        f"{name}; {options.objective}, {options.backbone}, {options.crop_px} px, batch {options.batch_size}, "
        f"{options.precision}, channels_last {options.channels_last}, compile {options.compile}"
    )
    with tempfile.TemporaryDirectory() as folder:
        world = make_world(Path(folder), n_locations=arguments.locations, size_px=256, per_shard=16)
        samples = select_samples(
            tables.read_table(world / "patches.parquet", "patches"),
            tables.read_table(world / "weights.parquet", "weights"),
            seasons=SEASONS,
        )
        reader = PatchReader(
            world / "patches.zarr", options.bands, n_threads=options.reader_threads, pin_memory=has_gpu
        )
        for kind, source in (("synthetic", kept), ("loader", loaded)):
            step = build_step(options, device, reader)
            found = measure(step, source(reader, samples, options), device)
            print(
                f"{kind:10s} {options.batch_size / found['seconds']:9.1f} locations/s, waiting "
                f"{found['wait_share']:.1%}, peak memory {found['gb']:.2f} GB"
            )
            del step


def loaded(reader: PatchReader, samples: Samples, options: recipes.Options) -> Iterator[Batch]:
    """Batches as training gets them: read ahead from the store."""
    n_seasons = 3 if options.objective == "seco" else 2
    return train.batches(reader, samples, options, n_seasons=n_seasons, first=0, last=options.epochs)


def kept(reader: PatchReader, samples: Samples, options: recipes.Options) -> Iterator[Batch]:
    """Give one batch again and again."""
    first = next(loaded(reader, samples, options))
    return (first for _ in range(options.epochs))


if __name__ == "__main__":
    main()
