"""Delete the bad objects of a patch store, so that the next run fetches what they held.

    python -m workflow_scripts.repair results/datasets/demo/patches.zarr

Reads : the store and the retrieved/ tables beside it.
Writes: nothing; deletes objects that cannot be read. Where single patches differ from their checksum,
        only the shard's smallest object is deleted: the job then runs, keeps the patches that are
        whole and fetches the others.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from workflow_scripts.core import store, tables
from workflow_scripts.core.patches import PARTS

TRIGGER = "aligned"
"""The array whose object is deleted to have a shard looked at again: it is made from the others."""


def bad_objects(path: Path, shard: int) -> Iterator[tuple[str, str]]:
    """Find the objects of a shard that must go.

    Parameters
    ----------
    path : the store's folder
    shard : number of the shard

    Yields
    ------
    path relative to the store, and why
    """
    arrays, readable = store.read_shard(path, shard)
    objects = dict(zip(arrays, store.shard_objects(shard, arrays), strict=True))
    parts = [part for part in PARTS if part in arrays]
    for name, object_path in objects.items():
        if not readable[name] and (path / object_path).exists():
            yield object_path, "cannot be read"
    table_path = path.parent / "retrieved" / f"{shard}.parquet"
    if not table_path.exists() or not all(readable[part] for part in parts):
        return
    first, last = store.shard_range(path, shard)
    labels = store.layout(path)["seasons"]
    table = tables.read_table(table_path, "retrieved")
    there = table[(table["status"] == "ok") & (table["location"] < last)]
    n_bad = 0
    for row in there.itertuples():
        here = row.location - first, labels.index(row.season)
        n_bad += store.patch_checksum(*(arrays[part][here] for part in parts)) != row.checksum
    if n_bad and readable[TRIGGER]:
        yield objects[TRIGGER], f"{n_bad} patches of the shard differ from their checksum"


def command(arguments: list[str]) -> int:
    """Repair a store from the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m workflow_scripts.repair", description="Delete the bad objects of a patch store."
    )
    parser.add_argument("store", type=Path, help="folder patches.zarr of a dataset")
    parser.add_argument("--dry-run", action="store_true", help="only list them")
    options = parser.parse_args(arguments)
    try:
        facts = store.layout(options.store)
    except FileNotFoundError as error:
        sys.stderr.write(f"{options.store} is no patch store ({error})\n")
        return 1
    n_bad = 0
    for shard in range(-(-facts["n_locations"] // facts["per_shard"])):
        for object_path, why in bad_objects(options.store, shard):
            n_bad += 1
            sys.stdout.write(f"{object_path}: {why}\n")
            if not options.dry_run:
                (options.store / object_path).unlink()
    verb = "found" if options.dry_run else "deleted; run the workflow again to fetch what they held"
    sys.stdout.write(f"{n_bad} bad objects {verb}\n")
    return 0


if __name__ == "__main__":
    sys.exit(command(sys.argv[1:]))
