"""Checkpoints of a training run: written whole or not at all, read only if undamaged."""

import logging
import os
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from workflow_scripts.core.objects import open_folder
from workflow_scripts.core.stage import atomic_path

logger = logging.getLogger(__name__)


def checkpoint_files(folder: str | os.PathLike) -> list[Path]:
    """List the checkpoints of a folder, newest first."""
    files = [path for path in Path(folder).glob("step-*.pt") if re.fullmatch(r"step-\d+", path.stem)]
    return sorted(files, key=lambda path: int(path.stem.removeprefix("step-")), reverse=True)


def save_checkpoint(folder: str | os.PathLike, state: Mapping[str, Any], *, step: int, keep: int) -> Path:
    """Write a checkpoint atomically and delete all but the newest `keep`.

    Parameters
    ----------
    state : tensors, numbers, text, and lists and dicts of these
    step : steps done
    """
    path = Path(folder) / f"step-{step:08d}.pt"
    with atomic_path(path) as temporary:
        torch.save(dict(state), temporary)
    for old in checkpoint_files(folder)[keep:]:
        old.unlink()
    return path


def send_checkpoints(folder: Path, bucket: str) -> None:
    """Bring a folder's checkpoints to a bucket, what belongs to them first; older ones there are deleted."""
    there = open_folder(bucket)
    newest, *_ = checkpoint_files(folder)
    for path in [*folder.glob("*.json*"), newest]:
        there.write(path.name, path)
    kept = {path.name for path in checkpoint_files(folder)}
    for name in there.list("step-*.pt"):
        if name not in kept:
            there.delete(name)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read one checkpoint; no code in it is run.

    Raises
    ------
    ValueError
        If it is damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
        if damaged is not None:
            raise ValueError(f"checksum of {damaged!r} is wrong")
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises errors of many classes on damaged bytes
        raise ValueError(f"checkpoint {path} cannot be read ({error})") from None


def newest_checkpoint(folder: str | os.PathLike) -> dict[str, Any] | None:
    """Read the newest checkpoint that is undamaged; a damaged one is skipped with a warning.

    Returns
    -------
    its content, or None if there is no readable checkpoint
    """
    for path in checkpoint_files(folder):
        try:
            return read_checkpoint(path)
        except ValueError as error:
            logger.warning("%s; the one before it is used", error)
    return None
