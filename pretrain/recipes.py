"""Recipes: the options of a training run, as published and as recommended.

`paper` is the published command with the weighted sampling of the paper's text. Where the sources
differ: the scripts' default temperature is 0.07, the published command says 0.2; the original SeCo
(Mañas et al., 2021) used 0.07, a queue of 16,384 and 200 epochs with learning-rate drops at 120 and 160, which
the published 100 epochs never reach, so that the rate stays at 0.03; the text weights the
locations, the command passes no weights. MoCo-Eco decays the rate by a cosine per epoch.

`default` will differ from `paper` where a benchmark shows a gain; none has been made yet, so the two
are equal.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

PAPER_BANDS = ("B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "NDVI")


@dataclass(frozen=True)
class Options:
    """Everything a training run depends on besides its data."""

    objective: str
    backbone: str
    bands: tuple[str, ...]
    seed: int
    epochs: int
    steps: int | None
    """Stop after this many steps; None: after `epochs`."""
    batch_size: int
    """Locations per step, all processes together."""
    crop_px: int
    queue_size: int
    temperature: float
    key_momentum: float
    projection_size: int
    learning_rate: float
    schedule: str
    """`constant`, or `cosine` (to zero, by epoch)."""
    momentum: float
    weight_decay: float
    """On all parameters, those of normalizations too, as published."""
    seasons: int | None
    """Distinct seasons drawn per location at most; None: as many as the objective has views of."""
    side_table: str | None
    """Numbers per location for objectives that ask for them."""
    leave_out_validation: bool
    """Train on the locations whose `split` is not `validation`."""
    complete_in: tuple[str, ...]
    """Other datasets: train on the locations that have every season in this one and in these."""
    n_locations: int | None
    """Train on so many of the locations at most, the same for every seed."""
    bn_group_size: int
    """Locations that share statistics: a part of a process's locations, or those of several processes."""
    bn_shuffle: bool
    accumulate: int
    """Parts a batch is taken in, one after the other, to save memory."""
    channels_last: bool
    compile: bool
    precision: str
    """`fp32`, `bf16` (autocast), or `fp64` (to compare runs: fp32 differences grow step by step)."""
    device: str
    processes: int
    """On all machines together."""
    nodes: int
    """Machines."""
    rendezvous: str | None
    """``host:port`` of the first machine, where they find each other."""
    reader_threads: int
    store: str | None
    """Where the patches are read from, a path or an address; None: the dataset's own store."""
    cache: str | None
    """Folder, on a disk of each machine, that what is read is copied to first."""
    skip_unreadable: bool
    """Draw another location where a patch cannot be read, instead of stopping."""
    log_steps: int
    tensorboard: bool
    knn_task: str | None
    knn_epochs: int
    """Epochs between looks at the k-NN score of `knn_task`."""
    checkpoint_steps: int | None
    """None: every epoch, and where epochs are shorter every `CHECKPOINT_STEPS`."""
    keep_checkpoints: int


_PAPER = {
    "epochs": 100,
    "steps": None,
    "batch_size": 256,
    "crop_px": 224,
    "queue_size": 65_536,
    "temperature": 0.2,
    "key_momentum": 0.999,
    "projection_size": 128,
    "learning_rate": 0.03,
    "schedule": "constant",
    "momentum": 0.9,
    "weight_decay": 1e-4,
    "precision": "fp32",
}

RECIPES: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "paper": {"seco": _PAPER, "moco": {**_PAPER, "schedule": "cosine"}},
    "default": {"seco": _PAPER, "moco": {**_PAPER, "schedule": "cosine"}},
}
"""Recipe → objective → options; an entry of `models` overrides what it names."""

RECIPE = "default"
"""Recipe of an entry that names none."""

CHECKPOINT_STEPS = 100
"""Least steps between checkpoints unless given: writing one (0.15 GB with ResNet-18) takes seconds."""

KNN_EPOCHS = 10
"""Epochs between k-NN scores unless given."""

VIT_PATCH_PX = 16
"""Side of the squares that the vision transformers cut images into."""

_RUNNING = {
    "backbone": "resnet50",
    "bands": PAPER_BANDS,
    "device": "auto",
    "processes": 1,
    "nodes": 1,
    "rendezvous": None,
    "reader_threads": 1,
    "store": None,
    "cache": None,
    "seasons": None,
    "side_table": None,
    "leave_out_validation": False,
    "complete_in": (),
    "n_locations": None,
    "skip_unreadable": False,
    "tensorboard": False,
    "accumulate": 1,
    "channels_last": False,
    "compile": False,
    "log_steps": 10,
    "checkpoint_steps": None,
    "keep_checkpoints": 2,
}

_RUN_ONLY = (
    "device",
    "processes",
    "nodes",
    "rendezvous",
    "reader_threads",
    "store",
    "cache",
    "accumulate",
    "channels_last",
    "compile",
    "log_steps",
    "tensorboard",
    "knn_task",
    "knn_epochs",
    "checkpoint_steps",
    "keep_checkpoints",
)
"""Options that do not change what is learned."""


def resolve(entry: Mapping[str, Any]) -> Options:
    """Turn a model's entry in the configuration into options.

    Parameters
    ----------
    entry : checked against the schema; `objective` and `seed` are there

    Raises
    ------
    ValueError
        If the options do not fit together.
    """
    recipe = entry.get("recipe") or RECIPE
    base = _RUNNING | RECIPES[recipe][entry["objective"]]
    named = {key: value for key, value in entry.items() if value is not None}
    merged = base | named
    groups = named.get("bn", {})
    merged["bands"] = tuple(merged["bands"])
    merged["complete_in"] = tuple(merged["complete_in"])
    merged["bn_group_size"] = groups.get("group_size") or merged["batch_size"]
    merged["bn_shuffle"] = groups.get("shuffle", False)
    watched = named.get("knn", {})
    merged["knn_task"], merged["knn_epochs"] = watched.get("task"), watched.get("epochs", KNN_EPOCHS)
    options = Options(**{field.name: merged[field.name] for field in fields(Options)})
    check(options)
    return options


def check(options: Options) -> None:
    """Refuse options that do not fit together."""
    batch, queue, ranks = options.batch_size, options.queue_size, options.processes
    if batch > queue or queue % batch:
        raise ValueError(
            f"batch_size = {batch} must divide queue_size = {queue} (keys enter the queue batch by batch). "
            f"Set queue_size to a multiple of {batch}."
        )
    if ranks % options.nodes:
        raise ValueError(
            f"processes = {ranks}, of all machines together, must be a multiple of nodes = {options.nodes}"
        )
    parts, group = options.accumulate, options.bn_group_size
    if batch % (ranks * parts):
        raise ValueError(
            f"batch_size = {batch} is not divisible by processes = {ranks}"
            + (f" times accumulate = {parts}" if parts > 1 else "")
        )
    share = batch // (ranks * parts)
    if share % group and (group % share or batch // parts % group):
        raise ValueError(
            f"bn.group_size = {group} does not fit: {parts} part(s) of a batch of {batch} on {ranks} "
            f"process(es) make {share} locations at a time, which must be whole groups, or a whole part of one. "
            f"Set bn.group_size to a divisor of {share}, or to a multiple of it that divides "
            f"{batch // parts} (it is {batch} unless given: the whole batch, as published)."
        )
    if options.backbone.startswith("vit_") and options.crop_px % VIT_PATCH_PX:
        raise ValueError(
            f"crop_px = {options.crop_px}: {options.backbone!r} cuts images into squares of {VIT_PATCH_PX} px. "
            f"Set crop_px to a multiple of {VIT_PATCH_PX}."
        )
    if group < 2:
        raise ValueError("bn.group_size = 1: batch normalization needs at least 2 samples per group")


def what_is_learned(options: Options) -> dict[str, Any]:
    """Give the options that determine the result, as JSON values."""
    content = {key: value for key, value in asdict(options).items() if key not in _RUN_ONLY}
    return content | {"bands": list(options.bands)}


def learning_rate(options: Options, epoch: int) -> float:
    """Give the learning rate of an epoch (counted from 0)."""
    if options.schedule == "cosine":
        return options.learning_rate * 0.5 * (1 + math.cos(math.pi * epoch / options.epochs))
    return options.learning_rate


def steps_per_epoch(options: Options, n_locations: int) -> int:
    """Give the steps of an epoch: as many slots as locations, in whole batches, at least one."""
    return max(1, n_locations // options.batch_size)


def checkpoint_interval(options: Options, n_locations: int) -> int:
    """Give the steps between checkpoints."""
    return options.checkpoint_steps or max(CHECKPOINT_STEPS, steps_per_epoch(options, n_locations))


def total_steps(options: Options, n_locations: int) -> int:
    """Give the steps of the whole run."""
    planned = options.epochs * steps_per_epoch(options, n_locations)
    return planned if options.steps is None else min(planned, options.steps)
