"""The training loop, one process of it; `torchrun -m pretrain.train RUN.json` starts them all.

Reads   the run's description written by `pretrain.pretrain`, the patch store, checkpoints
Writes  checkpoints, the metrics of every logged step, `encoder.safetensors` (rank 0)

Every random choice is a function of seed, epoch and sample slot, so a run continued from a checkpoint
is the uninterrupted one, and the samples do not depend on the number of processes.
"""

import json
import logging
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numcodecs.blosc
import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from pretrain.augment import make_masks, make_views
from pretrain.cache import fill_cache, objects_to_copy
from pretrain.checkpoint import newest_checkpoint, save_checkpoint, send_checkpoints
from pretrain.data import BandPlan, Batch, PatchReader, on_device, prefetch, to_images, to_valid
from pretrain.distribution import average_statistics, mean_over_ranks, world
from pretrain.encoders import Encoder, build_encoder, group_batch_norm, save_encoder
from pretrain.objectives import OBJECTIVES
from pretrain.objectives.base import Objective
from pretrain.recipes import Options, checkpoint_interval, learning_rate, steps_per_epoch, total_steps
from pretrain.samples import Samples, read_samples
from pretrain.watch import NeighborWatch
from workflow_scripts.core.stage import atomic_path

logger = logging.getLogger(__name__)

DTYPES = {"fp32": torch.float32, "bf16": torch.float32, "fp64": torch.float64}
"""Type of weights and inputs by precision; bf16 is an autocast of fp32 weights."""
COLLAPSED_STD = 0.05
"""A space whose queries vary less than this (1: spread over the sphere, 0: one point) is reported."""


@dataclass(frozen=True)
class Run:
    """What the processes of a run are told."""

    store: str
    """Path or address."""
    samples: Path
    checkpoints: Path
    metrics: Path
    encoder: Path
    options: Options
    facts: dict[str, Any]
    """Metadata of the encoder file."""
    bucket: str | None = None
    """Where checkpoints are sent, too."""
    watched: dict[str, Any] | None = None
    """Settings, store, patches and labels of the task to watch."""

    @classmethod
    def read(cls, path: Path) -> "Run":
        """Read the description written by `pretrain.pretrain`."""
        content = json.loads(Path(path).read_text())
        options, files = content["options"], content["files"]
        return cls(
            **{n: f if n in ("store", "bucket") else Path(f) for n, f in files.items()},
            options=Options(**(options | {"bands": tuple(options["bands"])})),
            facts=content["facts"],
            watched=content["watched"],
        )


def processes_here(n_ranks: int) -> int:
    """Give the number of ranks on this machine: all, unless torchrun says otherwise."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", n_ranks))


def choose_device(wanted: str, processes: int) -> torch.device:
    """Give this process's device.

    Raises
    ------
    ValueError
        If `cuda` is wanted and there are fewer GPUs than processes.
    """
    n_gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if wanted == "cuda" and n_gpus < processes:
        raise ValueError(
            f"device: cuda with processes: {processes}, but this machine has {n_gpus} usable GPUs. "
            "Set device: cpu or auto, or lower processes."
        )
    if wanted == "cpu" or n_gpus < processes:
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))


def build_objective(options: Options) -> Objective:
    """Build encoder and objective with the recipe's initial weights."""
    encoder = build_encoder(options.backbone, len(options.bands), options.seed)
    group_batch_norm(encoder, options.bn_group_size, n_parts=options.accumulate)
    return OBJECTIVES[options.objective].build(encoder, options)


def build_optimizer(objective: nn.Module, options: Options) -> torch.optim.Optimizer:
    """SGD over all parameters that learn."""
    return torch.optim.SGD(
        [parameter for parameter in objective.parameters() if parameter.requires_grad],
        lr=options.learning_rate,
        momentum=options.momentum,
        weight_decay=options.weight_decay,
    )


def prepare(options: Options, device: torch.device) -> tuple[Objective, torch.optim.Optimizer]:
    """Build objective and optimizer on the device, ready to train."""
    objective = build_objective(options).to(device, DTYPES[options.precision]).train()
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True  # every step has the same shapes
        speed_up(
            objective, channels_last=options.channels_last, backend="inductor" if options.compile else None
        )
    return objective, build_optimizer(objective, options)


def continue_from(folder: Path, objective: Objective, optimizer: torch.optim.Optimizer) -> int:
    """Load the newest undamaged checkpoint, if there is one.

    Returns
    -------
    steps already done
    """
    state = newest_checkpoint(folder)
    if state is None:
        return 0
    objective.load_state_dict(state["objective"])
    optimizer.load_state_dict(state["optimizer"])
    logger.info("continuing after step %d", state["step"])
    return state["step"]


def batches(
    reader: PatchReader, samples: Samples, options: Options, objective: Objective, *, first: int, last: int
) -> Iterator[Batch]:
    """Yield this rank's part of the batch of each step, from `first` to before `last`."""
    rank, n_ranks = world()
    per_epoch = steps_per_epoch(options, len(samples))

    def read(step: int) -> Batch:
        epoch, batch = divmod(step, per_epoch)
        return reader.read_batch(
            samples,
            batch,
            seed=options.seed,
            epoch=epoch,
            n_seasons=objective.n_seasons,
            max_seasons=options.seasons,
            side_columns=objective.side_columns,
            batch_size=options.batch_size,
            rank=rank,
            n_ranks=n_ranks,
            n_parts=options.accumulate,
            skip_unreadable=options.skip_unreadable,
        )

    return prefetch(read, range(first, last))


class Metrics:
    """Means of what steps report, one JSON line per logged interval."""

    def __init__(self, path: Path, *, first_step: int, batch_size: int, tensorboard: bool = False) -> None:
        self.path = path
        self._batch_size = batch_size
        self._is_writer = world()[0] == 0
        self._board = None
        if self._is_writer:
            self._keep_until(first_step)
        if self._is_writer and tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            self._board = SummaryWriter(path.parent / "tensorboard", purge_step=first_step + 1)
        self._begin()

    def _keep_until(self, step: int) -> None:
        """Drop the lines of steps that will be done again, and a line that a kill left half written."""
        lines = self.path.read_text().splitlines(keepends=True) if self.path.exists() else []
        whole = [line for line in lines if line.endswith("\n")]
        self.path.write_text("".join(line for line in whole if json.loads(line)["step"] <= step))

    def _begin(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._n_steps, self._waited, self._started = 0, 0.0, time.perf_counter()

    def add(self, results: Mapping[str, Tensor], *, waited: float) -> None:
        """Take up one step's results; `waited` are the seconds its batch was not ready."""
        for name, value in results.items():
            self._sums[name] = self._sums.get(name, 0) + value.detach()
        self._n_steps += 1
        self._waited += waited

    def write(self, *, step: int, epoch: int, rate: float, scores: Mapping[str, float]) -> dict[str, float]:
        """Average over the interval and the ranks (all of them must call), and append a line.

        `scores` are added as they are.
        """
        seconds = time.perf_counter() - self._started
        names = list(self._sums)
        means = mean_over_ranks(torch.stack([self._sums[name].double() for name in names])) / self._n_steps
        line = {
            "step": step,
            "epoch": epoch,
            **dict(zip(names, means.tolist(), strict=True)),
            "learning_rate": rate,
            "samples_per_s": round(self._n_steps * self._batch_size / seconds, 2),
            "wait_share": round(self._waited / seconds, 4),
            **scores,
        }
        if self._is_writer:
            with open(self.path, "a") as file:
                file.write(json.dumps(line) + "\n")
        if self._board is not None:
            for name, value in line.items():
                if name != "step":
                    self._board.add_scalar(name, value, step)
            self._board.flush()
        self._begin()
        return line


def train(run: Run, *, is_alive: Callable[[], bool] = lambda: True) -> None:
    """Train to the end of the recipe, or continue to it, as long as who started it is alive."""
    options = run.options
    rank, n_ranks = world()
    device = choose_device(options.device, processes_here(n_ranks))
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "the CPU"
    logger.info("training on %s, %d process(es)", name, n_ranks)
    samples = read_samples(run.samples)
    samples.side_values(OBJECTIVES[options.objective].side_columns)
    reader = PatchReader(
        nearest_store(run, samples, is_alive=is_alive),
        options.bands,
        n_threads=options.reader_threads,
        pin_memory=device.type == "cuda",
    )
    objective, optimizer = prepare(options, device)
    step = continue_from(run.checkpoints, objective, optimizer)
    model: nn.Module = objective
    if n_ranks > 1:
        model = DistributedDataParallel(objective, forward_sync_buffers=False, gradient_as_bucket_view=True)

    last, every = total_steps(options, len(samples)), checkpoint_interval(options, len(samples))
    metrics = Metrics(
        run.checkpoints / "metrics.jsonl",
        first_step=step,
        batch_size=options.batch_size,
        tensorboard=options.tensorboard,
    )
    per_epoch = steps_per_epoch(options, len(samples))
    watch = None
    if run.watched is not None:
        places = {name: run.watched[name] for name in ("store", "patches", "labels")}
        watch = NeighborWatch(run.watched["settings"], **places, options=options)
    unchecked: tuple[Tensor, Batch, int] | None = None
    source = batches(reader, samples, options, objective, first=step, last=last)
    asked = time.perf_counter()
    for batch in on_device(source, device):
        waited = time.perf_counter() - asked
        rate = learning_rate(options, batch.epoch)
        for group in optimizer.param_groups:
            group["lr"] = rate
        results = learn(model, objective, optimizer, batch, reader.plan, options)
        optimizer.step()
        objective.after_step()
        if unchecked is not None:  # the loss of the step before: to read this one's would wait for the GPU
            stop_if_not_finite(*unchecked)
        unchecked = results["loss"], replace(batch, dn={}), step
        step += 1
        metrics.add(results, waited=waited)
        is_watched = watch is not None and watch.is_due(step, per_epoch)
        if step % every == 0 or step % options.log_steps == 0 or step == last or is_watched:
            stop_if_not_finite(*unchecked)  # nothing is written of a step that failed
        if step % options.log_steps == 0 or step == last or is_watched:
            scores = watch.score(objective.encoder) if is_watched and rank == 0 else {}
            line = metrics.write(step=step, epoch=batch.epoch, rate=rate, scores=scores)
            if rank == 0:
                report(line, last=last, batch_size=options.batch_size)
        if step % every == 0 or step == last:
            average_statistics(objective.modules())
            if rank == 0:
                state = {
                    "step": step,
                    "objective": objective.state_dict(),
                    "optimizer": optimizer.state_dict(),
                }
                save_checkpoint(run.checkpoints, state, step=step, keep=options.keep_checkpoints)
                if run.bucket is not None:
                    send_checkpoints(run.checkpoints, run.bucket)
        if not is_alive():
            raise RuntimeError(f"the process that started this run is gone; stopped after step {step}")
        asked = time.perf_counter()
    if rank == 0:
        with atomic_path(run.metrics) as temporary:
            shutil.copyfile(metrics.path, temporary)
        save_encoder(run.encoder, objective.encoder, bands=options.bands, steps=step, **run.facts)


def nearest_store(run: Run, samples: Samples, *, is_alive: Callable[[], bool]) -> str:
    """Give the store to read: the run's own, or its copy on this machine, which is made or completed first."""
    if run.options.cache is None:
        return run.store
    target = Path(run.options.cache) / f"{run.facts['dataset']}-{run.facts['dataset_digest'][:16]}.zarr"
    share = int(os.environ.get("LOCAL_RANK", 0)), processes_here(world()[1])
    names = objects_to_copy(run.store, run.options.bands, samples.location)
    fill_cache(run.store, target, names, share=share, n_threads=run.options.reader_threads, is_alive=is_alive)
    return str(target)


@contextmanager
def coarse_products(is_allowed: bool) -> Iterator[None]:
    """Let a GPU round the factors of fp32 products to ten bits (TF32), where allowed."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if is_allowed else before)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def learn(
    model: nn.Module,
    objective: Objective,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    plan: BandPlan,
    options: Options,
) -> dict[str, Tensor]:
    """Make the views of a batch and find its gradients; the optimizer's step is left to the caller.

    Parameters
    ----------
    model : the objective, or what synchronizes its gradients over the ranks
    batch : on the device

    Returns
    -------
    results of the objective, averaged over the parts of the batch
    """
    kind = batch.season.device.type
    is_bf16 = options.precision == "bf16"
    draw = {"seed": options.seed, "epoch": batch.epoch, "slots": batch.slots, "crop_px": options.crop_px}
    with torch.no_grad(), coarse_products(is_bf16 and kind == "cuda"):  # the networks round to eight bits
        images = to_images(batch, plan).to(DTYPES[options.precision])
        views = make_views(images, objective.views, **draw)
        masks = make_masks(to_valid(batch), objective.views, **draw) if objective.needs_masks else ()
        del images
    autocast = partial(torch.autocast, kind, torch.bfloat16, enabled=is_bf16)
    parts = replace(batch, dn={}, views=views, masks=masks).split(options.accumulate)
    objective.before_step()
    optimizer.zero_grad()
    with autocast():
        objective.look_ahead(parts)
    total: dict[str, Tensor] = {}
    for number, part in enumerate(parts, start=1):
        is_waiting = number < len(parts) and isinstance(model, DistributedDataParallel)
        with model.no_sync() if is_waiting else nullcontext():
            with autocast():
                results = model(part)
            (results["loss"] / len(parts)).backward()
        for name, value in results.items():
            total[name] = total.get(name, 0) + value.detach() / len(parts)
    return total


def speed_up(objective: Objective, *, channels_last: bool, backend: str | None) -> None:
    """Lay out an objective's networks, and compile its encoders, in place; the mathematics stays.

    Parameters
    ----------
    channels_last : keep weights of convolutions, and so activations, with channels together in memory
    backend : of `torch.compile`; None: not compiled
    """
    if channels_last:
        objective.to(memory_format=torch.channels_last)
    if backend is not None:
        for module in objective.modules():
            if isinstance(module, Encoder):
                module.compile(backend=backend)


def stop_if_not_finite(loss: Tensor, batch: Batch, step: int) -> None:
    """Stop a run whose loss is not a number, naming step and batch."""
    if not torch.isfinite(loss):
        names = ", ".join(map(repr, batch.location_id[:8]))
        raise RuntimeError(
            f"the loss is {loss.item()} at step {step + 1} (epoch {batch.epoch}, slots {batch.slots[0]} to "
            f"{batch.slots[-1]}, locations {names}{' …' if len(batch.location_id) > 8 else ''}). Checkpoints "
            "before it are kept; lower learning_rate, or look at these locations with "
            "`python -m workflow_scripts.explain ID`."
        )


def report(line: Mapping[str, float], *, last: int, batch_size: int) -> None:
    """Log a line of progress, and warn of collapse."""
    remaining = (last - line["step"]) * batch_size / line["samples_per_s"]
    scores = "".join(f", {name} {value:.3f}" for name, value in line.items() if name.startswith("knn_"))
    logger.info(
        "step %d of %d (%.1f %%), epoch %d: loss %.4f%s, %.3g samples/s, waiting %.0f %%, %s left",
        line["step"],
        last,
        100 * line["step"] / last,
        line["epoch"],
        line["loss"],
        scores,
        line["samples_per_s"],
        100 * line["wait_share"],
        timedelta(seconds=round(remaining)),
    )
    for name, value in line.items():
        if name.startswith("std_") and value < COLLAPSED_STD:
            logger.warning("step %d: space %r has collapsed (std %.3f)", line["step"], name[4:], value)


def process_exists(identifier: int) -> bool:
    """Tell whether a process of this machine is running."""
    try:
        os.kill(identifier, 0)
    except ProcessLookupError:
        return False
    return True


def main(run_file: str, error_file: str, launcher: str) -> int:
    """Train as one process of a run.

    Parameters
    ----------
    run_file : description written by `pretrain.pretrain`
    error_file : where the first error of any process is left
    launcher : process that waits for this run; without it the run stops (torchrun's own processes
        outlive a launcher that is killed)

    Returns
    -------
    exit status
    """
    numcodecs.blosc.use_threads = False  # the reader has its own threads
    rank, n_ranks = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    level = logging.INFO if rank == 0 else logging.WARNING
    logging.basicConfig(level=level, format="%(levelname)s %(name)s: %(message)s", stream=sys.stdout)
    try:
        run = Run.read(Path(run_file))
        device = choose_device(run.options.device, processes_here(n_ranks))
        if device.type == "cuda":
            torch.cuda.set_device(device)
        if n_ranks > 1:
            is_gpu = device.type == "cuda"
            distributed.init_process_group("nccl" if is_gpu else "gloo", device_id=device if is_gpu else None)
        train(run, is_alive=partial(process_exists, int(launcher)))
        if n_ranks > 1:
            distributed.destroy_process_group()
        return 0
    except (ValueError, RuntimeError, OSError) as error:
        logger.exception("rank %d failed", rank)
        with suppress(FileExistsError), open(error_file, "x") as file:
            file.write(str(error))
        return 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
