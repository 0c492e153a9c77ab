"""A copy of what a training run reads, on a disk of the machine that trains.

For stores in a bucket or on a slow common disk. Objects are copied whole and as they are, only those of the
arrays and shards that the run reads; what is there already is not copied again. The copy lies in
a folder named by the dataset's digest, so that it never outlives its data.
"""

import logging
import os
import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from pretrain.data import ORIGINS, plan_bands
from pretrain.reader import BAND_ARRAYS, open_arrays
from workflow_scripts.core import store
from workflow_scripts.core.objects import open_folder
from workflow_scripts.core.stage import atomic_path

logger = logging.getLogger(__name__)

POLL_S = 0.5
"""Seconds between looks at what this machine's other processes have copied."""


def objects_to_copy(source: str | os.PathLike, bands: Sequence[str], locations: np.ndarray) -> list[str]:
    """List the objects that a run reads, metadata first.

    Parameters
    ----------
    source : the `patches.zarr` folder, a path or an address
    bands : of the model
    locations : rows in the store
    """
    plan = plan_bands(bands, open_arrays(source), store=source)
    arrays = [*plan.stored, *(ORIGINS if "dn60" in plan.stored else ())]
    coordinates = [BAND_ARRAYS[name] for name in plan.stored]
    metadata = ["zarr.json", *(f"{name}/zarr.json" for name in [*coordinates, *arrays])]
    shards = np.unique(np.asarray(locations) // store.layout(source)["per_shard"])
    objects = [name for shard in shards for name in store.shard_objects(int(shard))]
    return [
        *metadata,
        *(f"{name}/c.0" for name in coordinates),
        *(name for name in objects if name.split("/")[0] in arrays),
    ]


def fill_cache(
    source: str | os.PathLike,
    target: Path,
    names: Collection[str],
    *,
    share: tuple[int, int] = (0, 1),
    n_threads: int = 4,
    is_alive: Callable[[], bool] = lambda: True,
) -> None:
    """Copy objects that are not there yet, and wait until this machine's other processes have copied theirs.

    Parameters
    ----------
    share : which of how many processes of this machine this is
    is_alive : asked while waiting; false ends it with an error

    Raises
    ------
    RuntimeError
        If who started the run is gone.
    OSError
        If an object cannot be read or written.
    """
    folder, names = open_folder(source), list(names)
    missing = [name for name in names[share[0] :: share[1]] if not (target / name).exists()]

    def copy(name: str) -> None:
        with atomic_path(target / name) as temporary:
            folder.copy(name, temporary)

    if missing:
        logger.info("copying %d of %d objects of %s to %s", len(missing), len(names), folder.address, target)
        with ThreadPoolExecutor(n_threads) as pool:
            list(pool.map(copy, missing))
    while not all((target / name).exists() for name in names):
        if not is_alive():
            raise RuntimeError(f"the process that started this run is gone; {target} is not complete")
        time.sleep(POLL_S)
