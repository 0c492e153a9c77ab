"""Pretrain an encoder on the patches of a dataset.

Reads   patches.parquet, weights.parquet, patches.zarr
Writes  options.json (what was asked for, resolved), metrics.jsonl (a line per logged step),
        encoder.safetensors (weights by torchvision's names and metadata, written last);
        beside them checkpoints/, from which a killed run continues

This module checks the inputs and starts the training processes (`pretrain.train`), several of them through
torchrun, those of several machines through srun inside a Slurm job. It imports no torch, so that mistakes are
told at once.

Method: SSL4Eco; see `pretrain.objectives` and `pretrain.recipes`.
"""

import importlib.util
import json
import logging
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pretrain import recipes, samples
from workflow_scripts.core import tables
from workflow_scripts.core.objects import open_folder, parent
from workflow_scripts.core.provenance import ROOT, digest, git_commit, versions
from workflow_scripts.core.stage import read_json, run_stage, write_json

logger = logging.getLogger(__name__)

VERSION = 1
"""Raised when the meaning of the rule's outputs changes; a changed value retrains every model."""

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
"""Snakemake sets all of them to the job's threads, of which each process may use its share only."""

_RANK_VARIABLES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE")
"""Set by torchrun for its processes; those that another program left are not meant for them."""

_BAR_WIDTH = 30
"""Characters of the progress bar."""

_KINDS = ("is_non_vegetated", "is_mountain")
"""Kinds of locations whose share of the draws is told."""

_PATCH_COLUMNS = ("location_id", "location", "season", "status", "datetime", "lon", "lat", "checksum")


def prepare_checkpoints(folder: Path, identity: dict[str, Any]) -> None:
    """Keep the checkpoints of a folder if they are of this very run, else begin anew.

    What differs only in its batch-normalization groups looks like the same run on another number of
    processes, and is refused.

    Parameters
    ----------
    identity : version, data and options that determine the result
    """
    identity = json.loads(json.dumps(identity))  # as the file gives it back: lists for tuples
    file = folder / "identity.json"
    folder.mkdir(parents=True, exist_ok=True)
    found = read_json(file) if file.exists() else None
    if found is not None and found != identity:
        keys = sorted(found.keys() | identity.keys())
        changed = [key for key in keys if found.get(key) != identity.get(key)]
        if changed == ["bn_group_size"] and list(folder.glob("step-*.pt")):
            raise ValueError(
                f"{folder}: the run was begun with bn.group_size = {found['bn_group_size']} and is to be "
                f"continued with {identity['bn_group_size']}. Set bn.group_size: {found['bn_group_size']} "
                "(the number of processes may change), or delete the folder to begin anew."
            )
        changes = ", ".join(f"{key}: {found.get(key)!r} -> {identity.get(key)!r}" for key in changed)
        logger.warning("%s: its checkpoints are of another run (%s); beginning anew", folder, changes)
        found = None
    if found is None:
        shutil.rmtree(folder)
        folder.mkdir()
    write_json(file, identity)


def fetch_checkpoints(bucket: str, folder: Path) -> None:
    """Take over the checkpoints that a run on another machine left in a bucket; they replace those here."""
    source = open_folder(bucket)
    names = source.list("*")
    if any(name.endswith(".pt") for name in names):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for name in names:
            source.copy(name, folder / name)
        logger.info("%d files of checkpoints fetched from %s", len(names), bucket)


def torchrun(run_file: Path, options: recipes.Options) -> list[str]:
    """Give the command that starts the training processes of one machine, but for its last two arguments.

    These are the file for the first error, and the process without which the run is to stop. One process is
    started without torchrun, which takes seconds to start itself.
    """
    if options.processes == 1:
        return [sys.executable, "-m", "pretrain.train", str(run_file)]
    command = [sys.executable, "-m", "torch.distributed.run"]
    if options.nodes == 1:
        command += ["--standalone"]
    else:
        command += ["--nnodes", str(options.nodes), "--rdzv-backend", "c10d"]
        command += ["--rdzv-endpoint", options.rendezvous, "--rdzv-id", run_file.parent.name]
    command += ["--nproc-per-node", str(options.processes // options.nodes)]
    return [*command, "-m", "pretrain.train", str(run_file)]


def slurm_rendezvous(environment: Mapping[str, str]) -> str | None:
    """Give the host:port where the machines of a Slurm job find each other; None outside of one.

    The rule's own machine is the first of the job's; the port follows from the job's number, so that
    two jobs of one machine do not meet.
    """
    job = environment.get("SLURM_JOB_ID")
    return None if job is None else f"{socket.gethostname()}:{20_000 + int(job) % 10_000}"


def srun(command: Sequence[str], options: recipes.Options, threads: int) -> list[str]:
    """Give the Slurm step that runs a command once on each machine of the job.

    The command gets one more argument: the process of its own machine that it must not outlive.
    """
    return [
        *("srun", f"--nodes={options.nodes}", f"--ntasks={options.nodes}", "--ntasks-per-node=1"),
        *(f"--cpus-per-task={threads}", "--kill-on-bad-exit=1", "sh", "-c", shlex.join(command) + " $$"),
    ]


def launch(run_file: Path, *, options: recipes.Options, threads: int, error_file: Path) -> None:
    """Run the training processes to their end; what they log is logged here.

    Raises
    ------
    RuntimeError
        With the first error of any process.
    """
    error_file.unlink(missing_ok=True)
    command = torchrun(run_file, options)
    in_slurm = "SLURM_JOB_ID" in os.environ
    if options.nodes > 1 and not in_slurm:
        other = shlex.join([*command, os.devnull]) + " $$"
        logger.warning(
            "on each of the %d other machines run, in %s: PYTHONPATH=%s %s",
            options.nodes - 1,
            Path.cwd(),
            ROOT,
            other,
        )
    if options.nodes > 1 and in_slurm:
        command = srun([*command, str(error_file)], options, threads)
    else:
        command += [str(error_file), str(os.getpid())]
    processes = options.processes // options.nodes
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {
        **{key: value for key, value in os.environ.items() if key not in _RANK_VARIABLES},
        **dict.fromkeys(_THREAD_VARIABLES, str(max(1, threads // processes))),
        "PYTHONPATH": os.pathsep.join(paths),
        "PYTHONUNBUFFERED": "1",
    }
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        try:
            for line in process.stdout:
                level = logging.WARNING if line.startswith("WARNING ") else logging.INFO
                logger.log(level, "%s", line.rstrip())
                if sys.stderr.isatty():
                    draw_progress(run_file.parent.name, line)
            status = process.wait()
        finally:
            process.terminate()
    if status:
        message = error_file.read_text() if error_file.exists() else f"training ended with status {status}"
        error_file.unlink(missing_ok=True)
        raise RuntimeError(message)


def draw_progress(model: str, line: str) -> None:
    """Draw a bar on the terminal from a line of the log that tells the progress; other lines draw none."""
    found = re.search(r"step (\d+) of (\d+) .*?(loss .*)", line)
    if found is None:
        return
    step, last = int(found[1]), int(found[2])
    filled = _BAR_WIDTH * step // last
    bar = "#" * filled + "." * (_BAR_WIDTH - filled)
    sys.stderr.write(f"\r{model} [{bar}] {found[3]}\033[K" + ("\n" if step == last else ""))
    sys.stderr.flush()


def describe(
    options: recipes.Options,
    facts: dict[str, Any],
    files: dict[str, str],
    *,
    watched: dict[str, Any] | None,
    draws: dict[str, Any],
) -> dict[str, Any]:
    """Give the content of options.json, which is also what the training processes read."""
    return {
        "options": asdict(options) | {"bands": list(options.bands)},
        "facts": facts,
        "files": files,
        "watched": watched,
        "draws": draws,
        "versions": versions("torch", "transformers", "safetensors", "numpy", "zarr"),
    }


def main(job: Any) -> None:
    """Check, start the training processes, and bring their results into place."""
    entry = dict(job.params.model)
    if entry.get("nodes", 1) > 1 and not entry.get("rendezvous"):
        entry["rendezvous"] = slurm_rendezvous(os.environ)
    options = recipes.resolve(entry)
    if options.nodes > 1 and not options.rendezvous:
        raise ValueError(
            f"nodes = {options.nodes} outside of a Slurm job: set rendezvous to the host:port of one of the machines, "
            "reachable from the others (a Slurm job finds its own)."
        )
    if options.tensorboard and importlib.util.find_spec("tensorboard") is None:
        raise ValueError(
            "tensorboard: true needs the package tensorboard, which is not installed here. Install it "
            "(pip install tensorboard), or set tensorboard: false; metrics.jsonl holds the same numbers."
        )
    patches = tables.read_table(job.input.patches, "patches", columns=_PATCH_COLUMNS)
    weights = tables.read_table(job.input.weights, "weights", columns=("location_id", "weight", *_KINDS))
    store_path = options.store or parent(job.input.store)
    others = [job.input.others] if isinstance(job.input.others, str) else job.input.others
    chosen = samples.choose(
        options,
        patches=patches,
        weights=weights,
        store_path=store_path,
        locations=job.input.locations,
        others=[tables.read_table(path, "patches", columns=_PATCH_COLUMNS) for path in others],
    )
    draws = samples.shares_of_draws(chosen, weights, _KINDS)

    encoder = Path(job.output.encoder)
    checkpoints = encoder.parent / "checkpoints"
    dataset_digest = tables.dataset_digest(patches)
    learned = recipes.what_is_learned(options)
    if job.params.checkpoints is not None:
        fetch_checkpoints(job.params.checkpoints, checkpoints)
    prepare_checkpoints(checkpoints, {"version": VERSION, "dataset_digest": dataset_digest, **learned})
    samples.write_samples(checkpoints / "samples.npz", chosen)
    facts = {
        "model": job.wildcards.model,
        "dataset": entry["dataset"],
        "dataset_digest": dataset_digest,
        "objective": options.objective,
        "recipe": entry.get("recipe") or recipes.RECIPE,
        "seed": options.seed,
        "crop_px": options.crop_px,
        "n_locations": len(chosen),
        "config_digest": digest(learned),
        "git_commit": git_commit(),
    }
    files = {
        "store": store_path,
        "samples": str(checkpoints / "samples.npz"),
        "checkpoints": str(checkpoints),
        "metrics": str(job.output.metrics),
        "encoder": str(encoder),
        "bucket": job.params.checkpoints,
    }
    watched = None
    if options.knn_task is not None:
        watched = {
            "settings": dict(job.params.watched_task),
            "store": parent(job.input.watched_store),
            "patches": str(job.input.watched_patches),
            "labels": str(job.input.watched_labels),
        }
    write_json(job.output.options, describe(options, facts, files, watched=watched, draws=draws))
    for kind, share in draws.items():
        logger.info(
            "%s: %.1f %% of the locations, %.1f %% of the draws",
            kind.removeprefix("is_"),
            100 * share["locations"],
            100 * share["draws"],
        )
    logger.info(
        "%d of %d locations have at least %d season(s); %d steps of %d locations in %d processes",
        len(chosen),
        patches["location"].nunique(),
        samples.min_seasons(options),
        recipes.total_steps(options, len(chosen)),
        options.batch_size,
        options.processes,
    )
    launch(
        Path(job.output.options),
        options=options,
        threads=job.threads,
        error_file=checkpoints / "error.txt",
    )


if "snakemake" in globals():
    run_stage(main, snakemake)  # noqa: F821
